// Where people judge explanations blind: excerpts, and explanations in random order without scores or authors.
// What they say stays in the browser until they download it, a rating line each (docs/stream.md).

const GRADES = ["not at all", "a little", "partly", "mostly", "completely"];
const report = document.body.dataset.report;

// Judgements by what they are about, so that another one takes the place of the first.
const ratings = {
  rater: "",
  said: new Map(),

  load() {
    try {
      const { rater, said } = JSON.parse(recall(`ratings-${report}`));
      if (typeof rater === "string") this.rater = rater;
      this.said = new Map(said);
    } catch {} // nothing was kept, or by somebody else
    this.rater ||= `anonymous-${[...crypto.getRandomValues(new Uint8Array(4))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  },

  keep() {
    remember(`ratings-${report}`, JSON.stringify({ rater: this.rater, said: [...this.said] }));
  },

  // at: the unit's address in this report, and the unit.
  put({ address, unit }, about, judgement) {
    const { subject, fingerprint, site, layer, index, sign } = unit;
    const named = { subject, fingerprint, site, layer, index, sign };
    this.said.set(`${address} ${about}`, { kind: "rating", v: 1, unit: named, report, time: new Date().toISOString(), ...judgement });
    this.keep();
  },

  of: ({ address }, about) => ratings.said.get(`${address} ${about}`),

  drop({ address }, about) {
    this.said.delete(`${address} ${about}`);
    this.keep();
  },

  addresses() {
    return new Set([...this.said.keys()].map((key) => key.slice(0, key.lastIndexOf(" "))));
  },

  lines() {
    return [...this.said.values()].map((line) => `${JSON.stringify({ ...line, rater: this.rater })}\n`).join("");
  },
};
ratings.load();

const orders = new Map(); // of each unit's explanations, for as long as the page is open

async function ratePage(address) {
  const { rows, found } = await selected();
  if (!address) return beforeRating(found);
  const row = rows.find((one) => one.address === address);
  const page = row ? await source.page(row) : null;
  if (!page) return nothing(`unit ${address}`);
  if (!orders.has(address)) orders.set(address, d3.shuffle(candidates(page)));
  const texts = orders.get(address);
  const at = { address, unit: page.unit };
  const blind = groupsToRate(page.groups);
  const scale = scaleOf(blind);
  return el(
    "div",
    { class: "rating" },
    el("div", { class: "head" }, ratingBar(found), el("h1", {}, `Rate unit ${row.address}`),
      el("p", { class: "note" }, "What do these excerpts have in common where the unit is strong? Say how well each explanation says it. Scores and authors are hidden.")),
    el("div", { class: "columns" },
      section("Excerpts", { id: "rate-excerpts", missing: blind.length ? null : "The unit has no excerpts." },
        scaleLegend(scale, false),
        blind.map(({ pick, excerpts }) => el("div", { class: "pick" }, el("h3", {}, PICKS[pick] ?? words(pick)),
          excerpts.map((excerpt, place) => el("div", { class: "excerpt" }, heatMap(excerpt, { scale: scale.scale, mode: "true", place: null, label: `${pick} excerpt ${place + 1}` })))))),
      el("div", { class: "beside-it" },
        section("Explanations", { id: "rate-explanations", note: texts.length > 0 && `From 1, ${GRADES[0]}, to 5, ${GRADES.at(-1)}. Keys: 1 to 5 rate one after the other, N goes to the next unit.`, missing: texts.length ? null : "The unit has no explanation to rate." },
          texts.map((one, place) => rateOne(at, one, place))),
        texts.length > 1 && rankSection(at, texts),
        writeSection(at))),
  );
}

// The texts of a unit, each once: its explanations and, among them, the null.
function candidates({ explanations, baselines }) {
  const there = [...explanations.filter(({ error }) => !error), ...baselines].filter(({ text, digest }) => text && digest);
  return [...new Map(there.map(({ text, digest }) => [digest, { text, digest }])).values()];
}

// Validation's: explanations were not made from them, and what somebody writes here is scored on held-out ones.
function groupsToRate(groups) {
  const of = (name) => groups.filter(({ set, excerpts }) => set === name && excerpts.length);
  return of("validation").length ? of("validation") : of("evidence");
}

// Before it begins, and the end

function beforeRating(found) {
  const name = el("input", { type: "text", maxlength: "80", value: ratings.rater, autocomplete: "off", onchange: () => {
    ratings.rater = name.value.trim() || ratings.rater;
    name.value = ratings.rater;
    ratings.keep();
  } });
  const done = el("p", { class: "done" }, progressOf(found));
  const forget = el("button", { class: "quiet", onclick: () => {
    if (forget.dataset.sure === undefined) {
      forget.dataset.sure = "";
      fill(forget, "Really forget everything?");
      return;
    }
    ratings.said.clear();
    ratings.keep();
    show();
  } }, "Forget my judgements");
  return el("div", { class: "rating before" },
    section("Rate explanations", { id: "rate", level: 1 },
      el("p", {}, "You are shown excerpts of a unit and its explanations in random order, and not who wrote them or how they score. Rate each, put several in order, or write a better one. Units are drawn at random from those that the overview's filters leave."),
      el("div", { class: "controls" }, el("label", { class: "field" }, el("span", {}, "Your name"), name),
        el("button", { onclick: () => nextToRate(found) }, ratings.said.size ? "Go on" : "Begin"), downloadButton(), ratings.said.size > 0 && forget),
      done,
      el("p", { class: "note" }, "Your judgements stay in this browser, where it keeps anything for a page like this, until you download them. nx-score --ratings FILE says how scores agree with them.")));
}

const progressOf = (found) => {
  const rated = ratings.addresses();
  return `${many(ratings.said.size, "judgement")} of ${many(rated.size, "unit")}; ${many(found.filter(ratable).length, "unit")} to choose from.`;
};

const ratable = ({ state }) => !state;

function ratingBar(found) {
  return el("nav", { "aria-label": "Rating", class: "beside" },
    el("a", { class: "button", href: "#/rate" }, "About"),
    el("button", { class: "next", onclick: () => nextToRate(found) }, "Next unit →"),
    downloadButton(),
    el("span", { class: "note done" }, progressOf(found)));
}

// A unit at random of those that were not judged yet, or of all when all were.
function nextToRate(found) {
  const rated = ratings.addresses();
  const here = decode(location.hash.replace(/^#\/rate\/?/, ""));
  const among = found.filter((row) => ratable(row) && row.address !== here);
  const fresh = among.filter((row) => !rated.has(row.address));
  const pool = fresh.length ? fresh : among;
  if (!pool.length) return say("There is no other unit to rate.");
  location.hash = link(pool[Math.floor(Math.random() * pool.length)].address).replace("#/unit/", "#/rate/");
}

function downloadButton() {
  return el("button", { class: "download", disabled: ratings.said.size === 0, onclick: () => {
    const address = URL.createObjectURL(new Blob([ratings.lines()], { type: "application/x-ndjson" }));
    el("a", { href: address, download: `ratings-${report}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } }, "Download");
}

function changed(text) {
  for (const button of main.querySelectorAll(".download")) button.disabled = ratings.said.size === 0;
  for (const done of main.querySelectorAll(".done")) selected().then(({ found }) => fill(done, progressOf(found)));
  say(text);
}

// One explanation after the other

const letter = (place) => String.fromCodePoint(65 + (place % 26)).repeat(1 + Math.floor(place / 26));

function rateOne(at, { text, digest }, place) {
  const given = ratings.of(at, digest)?.rating;
  const buttons = GRADES.map((grade, below) => {
    const value = below + 1;
    return el("label", { title: grade },
      el("input", { type: "radio", name: `grade-${digest}`, value: String(value), checked: given === value, "aria-label": `${value}, ${grade}`, onchange: () => {
        ratings.put(at, digest, { explanation: digest, rating: value });
        changed(`Explanation ${letter(place)}: ${value}, ${grade}.`);
      } }),
      el("span", {}, String(value)));
  });
  return el("article", { class: "said to-rate" },
    el("h3", { class: "letter" }, letter(place)),
    el("blockquote", {}, el("p", {}, readable(text))),
    el("fieldset", { class: "choice" }, el("legend", {}, `Explanation ${letter(place)} says it`), buttons));
}

document.addEventListener("keydown", (event) => {
  const root = main.querySelector(".rating");
  if (!root || event.ctrlKey || event.metaKey || event.altKey || /^(textarea|select)$/i.test(event.target.tagName) || event.target.type === "text") return;
  if (event.key.toLowerCase() === "n") return root.querySelector(".next")?.click();
  if (!/^[1-5]$/.test(event.key)) return;
  const all = [...root.querySelectorAll(".to-rate")];
  const open = (one) => !one.querySelector(":checked");
  const current = all.find((one) => one.contains(event.target)) ?? all.find(open);
  if (!current) return;
  event.preventDefault();
  current.querySelector(`[value="${event.key}"]`).click();
  const next = all.slice(all.indexOf(current) + 1).find(open) ?? all.find(open);
  (next?.querySelector("input") ?? root.querySelector(".next")).focus();
});

// Several in order

function rankSection(at, texts) {
  const kept = ratings.of(at, "ranked")?.ranked;
  const places = new Map((kept ?? []).map((digest, place) => [digest, place]));
  const order = [...texts].sort((a, b) => (places.get(a.digest) ?? texts.length) - (places.get(b.digest) ?? texts.length));
  const list = el("ol", { class: "ranking" });
  const name = (one) => letter(texts.indexOf(one));
  function move(place, by) {
    const [one] = order.splice(place, 1);
    order.splice(place + by, 0, one);
    draw();
    const moved = list.children[place + by];
    (moved.querySelector(by < 0 ? ".up:enabled" : ".down:enabled") ?? moved.querySelector("button:enabled")).focus();
    say(`${name(one)} is number ${place + by + 1}.`);
  }
  const draw = () => fill(list, order.map((one, place) => el("li", {},
    el("b", {}, name(one)), el("span", { class: "clamped" }, readable(one.text)),
    el("button", { class: "up", disabled: place === 0, "aria-label": `${name(one)} is better`, onclick: () => move(place, -1) }, "↑"),
    el("button", { class: "down", disabled: place === order.length - 1, "aria-label": `${name(one)} is worse`, onclick: () => move(place, 1) }, "↓"))));
  draw();
  const state = el("span", { class: "note" }, kept && "Kept.");
  return section("Or put them in order, the best first", { id: "rank" }, list,
    el("div", { class: "controls" }, el("button", { class: "keep-order", onclick: () => {
      ratings.put(at, "ranked", { ranked: order.map(({ digest }) => digest) });
      fill(state, "Kept.");
      changed("The order is kept.");
    } }, "Keep this order"), state));
}

// A better one

function writeSection(at) {
  const area = el("textarea", { rows: "3", maxlength: "2000", "aria-label": "Your own explanation" });
  area.value = ratings.of(at, "written")?.written ?? "";
  const state = el("span", { class: "note" }, area.value && "Kept.");
  return section("Or write a better one", { id: "write", note: "In your words, or as a pattern." }, area,
    el("div", { class: "controls" }, el("button", { class: "keep-text", onclick: () => {
      const written = area.value.trim();
      if (written) ratings.put(at, "written", { written });
      else ratings.drop(at, "written");
      fill(state, written && "Kept.");
      changed(written ? "Your explanation is kept." : "Your explanation is forgotten.");
    } }, "Keep it"), state));
}
