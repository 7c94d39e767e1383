// Elements, numbers and tokens. Strings reach the page as text here and nowhere as markup.

// An element with attributes and children. A function under onNAME listens; null and false are left out.
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

// Numbers

const grouped = new Intl.NumberFormat("en");
const count = (value) => grouped.format(value);
const many = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

// As exact as the line has it, but no longer than eight characters or so.
function exact(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return minus(value.toExponential(2));
  return minus(String(Number(value.toPrecision(4))));
}

const minus = (text) => text.replace("-", "−");
const fixed = (value, digits = 2) => (typeof value === "number" ? minus(value.toFixed(digits)) : "–");
const signed = (value, digits = 3) => (value > 0 ? "+" : "") + fixed(value, digits);
const percent = (share, digits = 1) =>
  typeof share === "number" ? `${(100 * share).toFixed(digits)}%` : "–";

// A value with its 95% interval, as ± where it is even and as bounds where it is not.
function withInterval(value, low, high, digits = 3) {
  if (typeof value !== "number") return "–";
  if (typeof low !== "number") return fixed(value, digits);
  return `${fixed(value, digits)} [${fixed(low, digits)}, ${fixed(high, digits)}]`;
}

const plusMinus = (value, low, high, digits = 3) =>
  typeof value !== "number"
    ? "–"
    : fixed(value, digits) + (typeof low === "number" ? ` ±${fixed((high - low) / 2, digits)}` : "");

// Names of figures and methods as people say them.
const words = (name) => String(name).replaceAll("_", " ");

// Tokens

const NAMED = new Map([
  ["\n", "↵"],
  ["\t", "⇥"],
  ["\r", "␍"],
  ["\u007f", "␡"],
  ["\u00a0", "⍽"],
]);
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Zs}\p{Cn}\p{Cs}\p{Co}]/u;

// A token with a sign for everything that would not show, or would change how its neighbours are shown.
function visible(token) {
  if (token === "") return "∅";
  let text = "";
  for (const character of token) text += sign(character);
  if (/^\p{M}/u.test(token)) text = `◌${text}`;
  return /^ +$/.test(text) ? "␣".repeat(text.length) : text;
}

function sign(character) {
  if (character === " " || !UNSEEN.test(character)) return character;
  const number = character.codePointAt(0);
  if (NAMED.has(character)) return NAMED.get(character);
  if (number < 0x20) return String.fromCodePoint(0x2400 + number);
  return `⟨U+${number.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

// Text of an explanation: line ends and blanks as they are meant, nothing that turns the writing around.
const readable = (text) => Array.from(text, (c) => (/\s/u.test(c) ? " " : sign(c))).join("");

// A token that stands alone: the blank before a word is shown, too.
function token(text) {
  const shown = visible(text);
  const stem = shown.replace(/^ +/, "");
  const blanks = shown.length - stem.length;
  return el(
    "code",
    { class: "token" },
    blanks > 0 && el("span", { class: "blank" }, "␣".repeat(blanks)),
    stem,
  );
}

// Pieces that many pages have

function table(columns, rows, { caption, dense } = {}) {
  const head = columns.map((column) =>
    el("th", { scope: "col", class: column.number && "number" }, column.label),
  );
  const body = rows.map((row) =>
    el(
      "tr",
      {},
      columns.map((column, place) =>
        el(
          place === 0 ? "th" : "td",
          { scope: place === 0 && "row", class: column.number && "number" },
          column.cell(row),
        ),
      ),
    ),
  );
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      { class: dense ? "dense" : null },
      el("caption", { class: "hidden" }, caption),
      el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, body),
    ),
  );
}

// A section with a heading, or the sentence that says why there is nothing.
// `tools` stand beside the heading.
function section(title, { id, note, missing, tools, level = 2 } = {}, ...children) {
  const heading = `heading-${id}`;
  return el(
    "section",
    { id, "aria-labelledby": heading, class: "card" },
    el(
      "header",
      {},
      el(`h${level}`, { id: heading }, title),
      note && el("p", { class: "note" }, note),
      tools,
    ),
    missing ? el("p", { class: "missing" }, missing) : children,
  );
}

// A few choices of which one holds, as radio buttons that look like one bar.
function choice(label, options, chosen, onChoose) {
  const name = `choice-${(choice.made = (choice.made ?? 0) + 1)}`;
  return el(
    "fieldset",
    { class: "choice" },
    el("legend", {}, label),
    options.map(([value, text]) =>
      el(
        "label",
        {},
        el("input", {
          type: "radio",
          name,
          value,
          checked: value === chosen,
          onchange: () => onChoose(value),
        }),
        el("span", {}, text),
      ),
    ),
  );
}

function select(label, options, chosen, onChoose) {
  const list = el(
    "select",
    { onchange: () => onChoose(list.value) },
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
  );
  return el("label", { class: "field" }, el("span", {}, label), list);
}

const AT_FIRST = 5; // of a list whose rest waits behind a button

// The first few of a list, and a button for the rest of it.
function fewFirst(rows, shown, name = "div", kind = null) {
  const list = el(name, { class: kind }, rows.slice(0, AT_FIRST).map(shown));
  const rest = rows.length - AT_FIRST;
  const more =
    rest > 0 &&
    el(
      "button",
      {
        class: "more",
        onclick: () => {
          append(list, rows.slice(AT_FIRST).map(shown));
          more.remove();
          const next = list.children[AT_FIRST];
          (next.querySelector("[role=option]") ?? next).focus();
        },
      },
      `${count(rest)} more`,
    );
  return [list, more];
}

// A list of values with bars: [{name, value, note}].
function bars(rows, label) {
  const most = Math.max(...rows.map(({ value }) => Math.abs(value)), 1e-12);
  return el(
    "ol",
    { class: "bars", "aria-label": label },
    rows.map(({ name, value, note }) => {
      const bar = el("span", { class: value < 0 ? "bar negative" : "bar", "aria-hidden": "true" });
      bar.style.setProperty("--size", `${(100 * Math.abs(value)) / most}%`);
      return el("li", {}, el("span", { class: "name" }, name), bar, el("span", { class: "number" }, note));
    }),
  );
}

const link = (address) =>
  `#/unit/${encodeURIComponent(address).replaceAll("%3A", ":").replaceAll("%2F", "/")}`;
