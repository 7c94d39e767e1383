// What stands around every page, and which page an address shows.

// By the first word behind the #: takes the rest of the address and its ?settings, returns the page.
const routes = { "": startPage, unit: unitPage, text: textPage, rate: ratePage };
const links = [["#/", "Overview"], ["#/text", "Text to units"], ["#/rate", "Rate"]];

const main = el("main", { id: "main", tabindex: "-1" });
const title = document.body.dataset.title;

async function show() {
  const [path, settings = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first, ...rest] = path.split("/").map(decode);
  const route = Object.hasOwn(routes, first) ? routes[first] : null;
  const asked = location.hash;
  let page;
  try {
    page = route ? await route(rest.join("/"), new URLSearchParams(settings)) : nothing(path);
  } catch (error) {
    page = trouble(error);
  }
  if (location.hash !== asked) return; // another page was asked for meanwhile
  fill(main, page);
  const heading = main.querySelector("h1");
  document.title = heading && first ? `${heading.textContent} · ${title}` : title;
  for (const [address, , item] of marks) {
    if (address === `#/${first}`) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const nothing = (path) =>
  el("section", { class: "card" }, el("h1", {}, "Nothing here"), el("p", {}, `There is no page ${readable(path)}.`));

function trouble(error, heading = "h1") {
  console.error(error);
  return el("section", { class: "card" }, el(heading, {}, "This cannot be shown"), el("p", {}, readable(error.message)));
}

// Goes to a unit by what somebody types: 2:41, or the whole address.
async function goTo(typed) {
  const wanted = typed.trim();
  const rows = await source.rows();
  const row = rows.find((one) => one.address === wanted) ?? rows.find((one) => one.name === wanted);
  if (row) location.hash = link(row.address);
  return Boolean(row);
}

async function random() {
  const rows = await source.rows();
  const alive = rows.filter((row) => !row.state);
  const among = alive.length ? alive : rows;
  if (among.length) location.hash = link(among[Math.floor(Math.random() * among.length)].address);
}

const marks = [];

function banner() {
  const field = el("input", {
    type: "text",
    inputmode: "text",
    placeholder: "layer:index",
    "aria-label": "Go to a unit, such as 2:41",
    size: "9",
    autocomplete: "off",
    spellcheck: "false",
  });
  const form = el(
    "form",
    {
      class: "goto",
      role: "search",
      onsubmit: async (event) => {
        event.preventDefault();
        const found = await goTo(field.value);
        field.setAttribute("aria-invalid", String(!found));
        say(found ? "" : `There is no unit ${field.value}.`);
      },
    },
    field,
    el("button", {}, "Go"),
  );
  for (const [address, text] of links) marks.push([address, text, el("a", { href: address }, text)]);
  return el(
    "header",
    { class: "banner" },
    el("a", { class: "brand", href: "#/" }, el("b", {}, "nxtools"), el("span", {}, readable(title))),
    el("nav", { "aria-label": "Pages" }, marks.map(([, , item]) => item)),
    form,
    el("button", { onclick: random, class: "quiet" }, "Random unit"),
    themeButton(),
  );
}

// Light and dark follow the system until somebody chooses.
function themeButton() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = el("button", { class: "quiet theme", onclick: () => set(current() === "dark" ? "light" : "dark") });
  const current = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  function label() {
    fill(button, current() === "dark" ? "Light" : "Dark");
    button.setAttribute("aria-label", `Show in ${current() === "dark" ? "light" : "dark"} colours`);
  }
  function set(theme) {
    document.documentElement.dataset.theme = theme;
    remember("theme", theme);
    label();
  }
  const kept = recall("theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  dark.addEventListener("change", label);
  label();
  return button;
}

// A browser may keep nothing for pages from disk.
function remember(name, value) {
  try {
    localStorage.setItem(`nxtools-${name}`, value);
  } catch {}
}

function recall(name) {
  try {
    return localStorage.getItem(`nxtools-${name}`);
  } catch {
    return null;
  }
}

const voice = el("p", { class: "hidden", role: "status", "aria-live": "polite" });
const say = (text) => fill(voice, text);

// Another page: from its top, or where it was left when somebody comes back to it.

const left = new Map(); // how far down each entry of the history was left
let entry = null;

function enter() {
  entry = history.state?.entry ?? `${Date.now()}-${left.size}`;
  history.replaceState({ entry }, "");
}

async function turn() {
  // Two steps back may both have been taken before the first is heard of.
  if (history.state?.entry !== entry) left.set(entry, scrollY);
  enter();
  await show();
  main.focus({ preventScroll: true });
  // Charts are drawn when their room is known, behind the first frame: before that a page may be too short.
  const down = left.get(entry) ?? 0;
  requestAnimationFrame(() => requestAnimationFrame(() => scrollTo(0, down)));
}

function begin() {
  const skip = el("a", { class: "skip", href: "#main" }, "Skip to the page");
  skip.addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  document.body.append(skip, banner(), main, voice);
  history.scrollRestoration = "manual";
  addEventListener("hashchange", turn);
  enter();
  show();
}

begin();
