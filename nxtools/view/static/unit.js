// The page of one unit: its parts stand in files of their own.

async function unitPage(address) {
  const { rows, found } = await selected();
  const row = rows.find((one) => one.address === address);
  const page = row ? await source.page(row) : null;
  if (!page) return nothing(`unit ${address}`);
  const told = page.explanations.find(({ error }) => !error) ?? page.explanations[0] ?? null;
  // A part that cannot be shown leaves the others alone.
  function part(make) {
    try {
      return make({ page, told, row, rows });
    } catch (error) {
      return trouble(error, "h2");
    }
  }
  return el(
    "div",
    { class: "unit" },
    headOf(page, row, found.includes(row) ? found : rows),
    el(
      "div",
      { class: "columns" },
      el(
        "div",
        { class: "main-side" },
        [explanationSection, trySection, excerptSection, revisionSection].map(part),
      ),
      el(
        "div",
        { class: "beside-it" },
        [scoreSection, scatterSection, statisticsSection, tokenSection, connectionSection, effectSection].map(
          part,
        ),
      ),
    ),
    part(provenanceSection),
  );
}

function headOf(page, row, order) {
  const place = order.indexOf(row);
  const beside = (to, text, key) =>
    order[to]
      ? el("a", { class: "button", href: link(order[to].address), rel: key }, text)
      : el("span", { class: "button off" }, text);
  const [state, why] = page.state;
  const { unit } = page;
  const badges = [
    unit.site && `site ${unit.site}`,
    `layer ${unit.layer}`,
    `index ${count(unit.index)}`,
    { "+": "positive side", "-": "negative side", "+-": "both sides" }[unit.sign],
  ];
  return el(
    "div",
    { class: "head" },
    el(
      "nav",
      { "aria-label": "Neighbours", class: "beside" },
      el("a", { class: "button", href: selection.written() }, "All units"),
      beside(place - 1, "← Previous", "prev"),
      el("span", { class: "note" }, `${count(place + 1)} of ${count(order.length)}`),
      beside(place + 1, "Next →", "next"),
    ),
    el("h1", {}, `Unit ${row.address}`),
    el(
      "ul",
      { class: "badges" },
      badges.filter(Boolean).map((text) => el("li", {}, readable(text))),
      state && el("li", { class: "alert" }, state),
    ),
    state && el("p", { class: "alert" }, `This unit is ${state}: ${readable(why)}.`),
  );
}

// Explanations

// Patterns quote tokens and give levels: both are set off from the words between them.
function explanationText(text, by) {
  if (by !== "pattern") return readable(text);
  const pieces = text.split(/("(?:[^"\\]|\\.)*"|\([^()"]*\))/);
  return pieces.map((piece) => {
    if (piece.startsWith('"'))
      return el(
        "code",
        { class: "token" },
        readable(piece.slice(1, -1)).replace(/^ +/, (blanks) => "␣".repeat(blanks.length)),
      );
    if (piece.startsWith("(")) return el("span", { class: "level" }, readable(piece));
    return readable(piece);
  });
}

function explanationSection({ page, told }) {
  const others = page.explanations.filter((one) => one !== told);
  return section(
    "Explanation",
    { id: "explanation", missing: page.missing.explanations },
    told && explanation(told, true),
    others.length > 0 &&
      el(
        "details",
        {},
        el("summary", {}, many(others.length, "other explanation")),
        others.map((one) => explanation(one, false)),
      ),
  );
}

function explanation(one, large) {
  const { name, settings } = one.by;
  const how = Object.entries(settings).map(([key, value]) => `${words(key)} ${value}`);
  const main = one.scores.flatMap((score) =>
    (score.figures ?? []).slice(0, 1).map((figure) => ({ ...figure, method: score.method })),
  )[0];
  return el(
    "article",
    { class: large ? "said large" : "said" },
    one.error
      ? el("p", { class: "alert" }, readable(one.error))
      : el("blockquote", {}, el("p", {}, explanationText(one.text, name))),
    main &&
      typeof main.value === "number" &&
      el(
        "p",
        { class: "score" },
        el("b", {}, fixed(main.value)),
        ` ${words(main.name)}, 95% interval `,
        typeof main.low === "number" ? `[${fixed(main.low)}, ${fixed(main.high)}]` : "unknown",
        sizeOf(main),
      ),
    el(
      "p",
      { class: "note" },
      `By ${readable(name)}`,
      how.length > 0 && readable(` (${how.join("; ")})`),
      one.sign && `, of the ${one.sign} side`,
      typeof one.coverage === "number" &&
        `, covers ${percent(one.coverage, 0)} of the squared activation of its evidence`,
      ". ",
      one.notes.join(" "),
    ),
  );
}

const sizeOf = ({ excerpts, tokens }) =>
  excerpts ? `, n = ${many(excerpts, "excerpt")}${tokens ? `, ${many(tokens, "token")}` : ""}` : "";

function provenanceSection({ page }) {
  return section(
    "Where this comes from",
    { id: "provenance" },
    el(
      "dl",
      { class: "facts" },
      page.provenance.map(([name, value]) =>
        el("div", {}, el("dt", {}, readable(words(name))), el("dd", {}, el("code", {}, readable(value)))),
      ),
    ),
    Object.values(page.missing).length > 0 &&
      el(
        "details",
        {},
        el("summary", {}, "What this page does not have"),
        el(
          "ul",
          {},
          Object.values(page.missing).map((sentence) => el("li", {}, readable(sentence))),
        ),
      ),
  );
}
