// From text to units: which units fire most at each token of a text; and one unit on sentences.

const ASKED_FOR = "No text was given when this report was made: nx-view --text '…' -o report.html, or nx-view --serve to type some.";

async function textPage(rest, settings) {
  const given = (await source.part("texts")) ?? [];
  const typed = settings.get("t");
  const place = rest === "" ? 0 : Number(rest);
  const found = typed ? await source.ask?.("text", { text: typed }) : given[place];
  if (rest !== "" && !found) return nothing(`text/${rest}`);
  return el(
    "div",
    { class: "texts" },
    el("div", { class: "hero" }, el("h1", {}, "Text to units"),
      el("p", {}, "Which units fire most at each token of a text: their activation as a share of the strongest that was recorded of them.")),
    (source.ask || given.length > 0) && el("div", { class: "card" }, source.ask && typing(typed ?? "", "A text", "Show units", (text) => { location.hash = `#/text?t=${encodeURIComponent(text)}`; }), choices(given, typed ? -1 : place)),
    found ? textOf(found) : !source.ask && el("p", { class: "missing" }, ASKED_FOR),
  );
}

function choices(given, now) {
  return given.length > 0 && el("nav", { "aria-label": "Texts", class: "given" }, el("ul", {}, given.map(({ text }, place) =>
    el("li", {}, el("a", { href: `#/text/${place}`, "aria-current": place === now ? "true" : null }, readable(text))))));
}

// A field whose text goes to `onText`, which may take its time.
function typing(text, label, action, onText) {
  const field = el("textarea", { rows: "2", "aria-label": label, spellcheck: "false", maxlength: "20000" });
  field.value = text;
  const button = el("button", {}, action);
  const form = el("form", { class: "typing", onsubmit: async (event) => {
    event.preventDefault();
    if (!field.value.trim() || button.disabled) return;
    const here = location.hash;
    button.disabled = true;
    fill(button, "Running the subject…");
    say("The subject runs over the text.");
    await onText(field.value);
    if (location.hash !== here) return; // another page takes this one's place
    button.disabled = false;
    fill(button, action);
  } }, field, button);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  return form;
}

function textOf(found) {
  if (found.error) return section("This text", { id: "text", missing: `${readable(found.error.message)}.` });
  const { tokens, units, under, strongest } = found;
  return [
    section("Units under each token", { id: "under", note: `${many(tokens.length, "token")}, ${many(found.of, "unit")} that ever fired` },
      el("ol", { class: "under" }, tokens.map((text, place) => tokenColumn(text, place, under[place].map((unit) => units[unit]))))),
    section("Units that fire most", { id: "strongest", note: "Each over the whole text, on the scale of its own recorded maximum." },
      el("ol", { class: "strongest" }, strongest.map((place) => unitInText(units[place], tokens)))),
  ];
}

function tokenColumn(text, place, listed) {
  const head = el("span", {}, visible(text));
  if (listed.length) coloured(head, "v", listed[0].shares[place], 1);
  else head.classList.add("v-absent");
  return el("li", {},
    el("span", { class: "tokens" }, head),
    listed.length
      ? el("ol", { "aria-label": `units at ${visible(text)}` }, listed.map((unit) => el("li", {}, unitAt(unit, place))))
      : el("p", { class: "missing" }, "No unit fires here, or the position is left out."));
}

function unitAt(unit, place) {
  const share = el("span", { class: "share" }, fixed(unit.shares[place]));
  coloured(share, "v", unit.shares[place], 1);
  const about = `activation ${exact(unit.values[place])} of at most ${exact(unit.max)}`;
  return el("a", { href: link(unit.address), title: about }, el("b", {}, unit.address), share, scoreIn(unit), el("span", { class: "text" }, wordsOf(unit)));
}

const scoreIn = ({ score }) => el("small", {}, score ? `score ${fixed(score.value)}` : "no score");
const wordsOf = ({ text }) => (text === null ? "no explanation" : readable(text));

function unitInText(unit, tokens) {
  const excerpt = { tokens, activations: unit.values, simulated: {} };
  return el("li", {},
    el("p", {}, el("a", { href: link(unit.address) }, el("b", {}, unit.address)), " ", scoreIn(unit), " ", el("span", { class: "text" }, unit.text === null ? "no explanation" : explanationText(unit.text, unit.by))),
    heatMap(excerpt, { scale: Math.abs(unit.max), mode: "true", place: null, label: `unit ${unit.address}` }));
}

// On the page of a unit, where a server can run the subject.

function trySection({ row }) {
  if (!source.ask) return null;
  const answer = el("div");
  const onText = async (text) => {
    let found;
    try {
      found = await source.ask("try", { address: row.address, text });
    } catch (error) {
      found = { error: { message: String(error.message) } };
    }
    fill(answer, sentencesOf(found));
    say("");
  };
  return section("Try sentences", { id: "try", note: "One a line: upper part of a token true, lower part what the explanation says." }, typing("", "Sentences, one a line; Shift and Enter for a new line", "Run it", onText), answer);
}

function sentencesOf({ error, unit, sentences, unsaid }) {
  if (error) return el("p", { class: "alert" }, readable(error.message));
  const scale = Math.abs(unit.max);
  return [
    unsaid && el("p", { class: "missing" }, readable(`What is expected cannot be shown: ${unsaid}.`)),
    sentences.map(({ text, tokens, values, expected }) =>
      el("div", { class: "excerpt" }, heatMap({ tokens, activations: values, simulated: expected ? { 0: expected } : {} }, { scale, mode: expected ? "overlaid" : "true", place: expected ? 0 : null, label: text }))),
  ];
}
