// How an explanation was revised, and what it got wrong before.

function revisionSection({ page, told }) {
  const revision = page.explanations.find((one) => one.revision)?.revision;
  if (!revision) return null;
  const rose = Object.entries(revision.scores).map(
    ([name, { before, after }]) => `${words(name)} ${fixed(before, 3)} before, ${fixed(after, 3)} after`,
  );
  return section(
    "Revision",
    { id: "revision", note: readable(`${revision.why}.`) },
    rose.length > 0 && el("p", {}, `On held-out excerpts: ${rose.join("; ")}.`),
    el(
      "ol",
      { class: "versions" },
      revision.versions.map((version, place) =>
        el(
          "li",
          { class: place === revision.current ? "current" : null },
          el(
            "p",
            { class: "note" },
            place === revision.current && el("b", {}, "current · "),
            readable(version.round ? `round ${version.round}, ${version.made}` : version.made || "before"),
            version.literals && `, ${many(version.literals, "literal")}`,
            validationOf(version.validation),
          ),
          el("p", { class: "version" }, explanationText(version.text, told?.by.name ?? "")),
        ),
      ),
    ),
    el("h3", {}, "Counterexamples"),
    revision.counterexamples.length
      ? counterexamples(revision.counterexamples)
      : el("p", { class: "missing" }, "There were none."),
    revision.sentences.length > 0 && el("h3", {}, "Sentences written to fit the explanation"),
    revision.sentences.length > 0 && sentences(revision.sentences),
  );
}

function validationOf(validation) {
  if (!validation) return null;
  const known = Object.entries(validation).filter(([, value]) => typeof value === "number");
  return (
    known.length > 0 &&
    ` · validation: ${known.map(([name, value]) => `${words(name)} ${fixed(value, 3)}`).join(", ")}`
  );
}

const SORTS = {
  "false-positive": "Said to fire, and did not",
  "false-negative": "Fired, and was not said to",
};

// On their own scale: they come from other texts than the excerpts.
function counterexamples(examples) {
  const values = examples.flatMap(({ activation, expected }) => [
    Math.abs(activation ?? 0),
    Math.abs(expected ?? 0),
  ]);
  const scale = Math.max(...values, 1e-9);
  return el(
    "div",
    { class: "pair" },
    d3
      .groups(examples, ({ sort }) => sort)
      .map(([sort, some]) =>
        el(
          "div",
          {},
          el("h4", {}, SORTS[sort] ?? words(sort), el("small", {}, ` ${count(some.length)}`)),
          fewFirst(some, (one) => counterexample(one, scale), "ul", "examples"),
        ),
      ),
  );
}

function counterexample({ tokens, activation, expected, from, for: whom }, scale) {
  const last = el("span", {}, visible(tokens.at(-1) ?? ""));
  coloured(last, "v", activation, scale);
  coloured(last, "s", expected, scale);
  return el(
    "li",
    {},
    el(
      "span",
      { class: "context" },
      tokens.slice(0, -1).map(visible).join(""),
      el("span", { class: "tokens overlaid" }, last),
    ),
    el(
      "span",
      { class: "note" },
      `true ${exact(activation)}, said ${exact(expected)} · from ${words(from)}, for the ${whom}`,
    ),
  );
}

function sentences(written) {
  const some = (fires, title) => {
    const found = written.filter((one) => one.fires === fires);
    return el(
      "div",
      {},
      el("h4", {}, title, el("small", {}, ` ${count(found.length)}`)),
      fewFirst(found, sentence, "ul", "examples"),
    );
  };
  return el("div", { class: "pair" }, some(true, "The unit fires"), some(false, "It does not"));
}

function sentence({ text, activation, round, for: whom }) {
  return el(
    "li",
    {},
    el("span", {}, readable(text)),
    el("span", { class: "note" }, `highest ${exact(activation)} · round ${round}, for the ${whom}`),
  );
}
