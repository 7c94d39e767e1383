// From text to units: which units fire most at each token of a text; and one unit on sentences.

const ASKED_FOR =
  "No text was given when this report was made: nx-view --text '…' -o report.html, or nx-view --serve to type some.";
const ABOUT =
  "Which units fire most at each token of a text: their activation as a share of the strongest that was recorded of them.";

async function textPage(rest, settings) {
  const given = (await source.part("texts")) ?? [];
  const typed = settings.get("t");
  const place = rest === "" ? 0 : Number(rest);
  const found = typed ? await source.ask?.("text", { text: typed }) : given[place];
  if (rest !== "" && !found) return nothing(`text/${rest}`);
  return el(
    "div",
    { class: "texts" },
    el("div", { class: "hero" }, el("h1", {}, "Text to units"), el("p", {}, ABOUT)),
    (source.ask || given.length > 0) &&
      el(
        "div",
        { class: "card" },
        source.ask && typing(typed ?? "", "A text", "Show units", goToText),
        choices(given, typed ? -1 : place),
      ),
    found ? textOf(found) : !source.ask && el("p", { class: "missing" }, ASKED_FOR),
  );
}

function goToText(text) {
  location.hash = `#/text?t=${encodeURIComponent(text)}`;
}

function choices(given, now) {
  const links = given.map(({ text }, place) =>
    el("a", { href: `#/text/${place}`, "aria-current": place === now ? "true" : null }, readable(text)),
  );
  return (
    links.length > 0 &&
    el("nav", { "aria-label": "Texts", class: "given" }, el("ul", {}, links.map((one) => el("li", {}, one))))
  );
}

// A field whose text goes to `onText`, which may take its time.
function typing(text, label, action, onText) {
  const field = el("textarea", { rows: "2", "aria-label": label, spellcheck: "false", maxlength: "20000" });
  field.value = text;
  const button = el("button", {}, action);
  async function submitted(event) {
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
  }
  const form = el("form", { class: "typing", onsubmit: submitted }, field, button);
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
  const listed = (place) => under[place].map((unit) => units[unit]);
  const columns = tokens.map((text, place) => tokenColumn(text, place, listed(place)));
  const rows = strongest.map((place) => unitInText(units[place], tokens));
  const size = `${many(tokens.length, "token")}, ${many(found.of, "unit")} that ever fired`;
  const how = "Each over the whole text, on the scale of its own recorded maximum.";
  return [
    section("Units under each token", { id: "under", note: size }, el("ol", { class: "under" }, columns)),
    section("Units that fire most", { id: "strongest", note: how }, el("ol", { class: "strongest" }, rows)),
  ];
}

function tokenColumn(text, place, listed) {
  const head = el("span", {}, visible(text));
  if (listed.length) coloured(head, "v", listed[0].shares[place], 1);
  else head.classList.add("v-absent");
  const links = listed.map((unit) => el("li", {}, unitAt(unit, place)));
  const missing = el("p", { class: "missing" }, "No unit fires here, or the position is left out.");
  return el(
    "li",
    {},
    el("span", { class: "tokens" }, head),
    links.length ? el("ol", { "aria-label": `units at ${visible(text)}` }, links) : missing,
  );
}

function unitAt(unit, place) {
  const share = el("span", { class: "share" }, fixed(unit.shares[place]));
  coloured(share, "v", unit.shares[place], 1);
  const about = `activation ${exact(unit.values[place])} of at most ${exact(unit.max)}`;
  return el(
    "a",
    { href: link(unit.address), title: about },
    el("b", {}, unit.address),
    share,
    scoreIn(unit),
    el("span", { class: "text" }, unit.text === null ? "no explanation" : readable(unit.text)),
  );
}

const scoreIn = ({ score }) => el("small", {}, score ? `score ${fixed(score.value)}` : "no score");

function unitInText(unit, tokens) {
  const excerpt = { tokens, activations: unit.values, simulated: {} };
  const how = { scale: Math.abs(unit.max), mode: "true", place: null, label: `unit ${unit.address}` };
  const said = unit.text === null ? "no explanation" : explanationText(unit.text, unit.by);
  const name = el("a", { href: link(unit.address) }, el("b", {}, unit.address));
  return el(
    "li",
    {},
    el("p", {}, name, " ", scoreIn(unit), " ", el("span", { class: "text" }, said)),
    heatMap(excerpt, how),
  );
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
  const label = "Sentences, one a line; Shift and Enter for a new line";
  const note = "One a line: upper part of a token true, lower part what the explanation says.";
  return section("Try sentences", { id: "try", note }, typing("", label, "Run it", onText), answer);
}

function sentencesOf({ error, unit, sentences, unsaid }) {
  if (error) return el("p", { class: "alert" }, readable(error.message));
  const strips = sentences.map(({ text, tokens, values, expected }) => {
    const excerpt = { tokens, activations: values, simulated: expected ? { 0: expected } : {} };
    const how = { mode: expected ? "overlaid" : "true", place: expected ? 0 : null };
    const map = heatMap(excerpt, { ...how, scale: Math.abs(unit.max), label: text });
    return el("div", { class: "excerpt" }, map);
  });
  const why = unsaid && `What is expected cannot be shown: ${unsaid}.`;
  return [why && el("p", { class: "missing" }, readable(why)), strips];
}
