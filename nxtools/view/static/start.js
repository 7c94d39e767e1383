// The start page: what was run, how well it did, where to look first, and all units.

const LISTED = 8;
let selection = null;

async function startPage(_, settings) {
  const { overview } = source;
  const units = el("div", {}, el("p", { class: "note" }, "Reading the units…"));
  const first = el("div", { class: "lists" });
  const page = el(
    "div",
    { class: "start" },
    heroOf(overview),
    wellDone(overview.scores),
    section("Where to look first", { id: "first" }, first),
    section("All units", { id: "units" }, units),
    whatWasRun(overview),
  );
  source.rows().then(
    (rows) => {
      if (selection?.rows !== rows) selection = new Selection(rows);
      selection.read(settings);
      fill(first, lists(selection));
      fill(units, unitTable(selection));
      page.dispatchEvent(new CustomEvent("complete", { bubbles: true }));
    },
    (error) => fill(units, trouble(error)),
  );
  return page;
}

// The selection that a unit's neighbours are taken from.
async function selected() {
  const rows = await source.rows();
  if (selection?.rows !== rows) selection = new Selection(rows);
  return selection;
}

function heroOf({ facts, counts, layers, scores }) {
  const names = (fact) => Object.keys(facts[fact] ?? {});
  const numbers = Object.keys(layers);
  const sites = names("site").join(", ");
  const sentence = [
    `${many(counts.units, "unit")}${sites ? ` at ${sites}` : ""} in ${many(numbers.length, "layer")}`,
    names("explainer").length && `explained by ${names("explainer").join("; ")}`,
    names("simulator").length && `simulated by ${names("simulator").join("; ")}`,
    counts.tokens && `recorded on ${count(counts.tokens)} tokens`,
  ].filter(Boolean);
  return el(
    "div",
    { class: "hero" },
    el("h1", {}, readable(names("subject").join(", ") || title)),
    el("p", {}, readable(`${sentence.join(", ")}.`)),
    el("ul", { class: "tiles" }, tiles(scores, counts)),
  );
}

function tiles(scores, counts) {
  const figure = scores.figures[0];
  const of = (label) => scores.rows.find((row) => row.layer === "all" && row.figure === figure && row.series === label);
  const first = scores.series.find((one) => !one.baseline && of(one.label)?.figure === figure);
  const nothing = scores.series.find((one) => one.baseline && one.label === "null");
  const mean = first && of(first.label);
  const chance = nothing && of(nothing.label);
  const tile = (value, label, note) =>
    el("li", {}, el("span", { class: "value" }, value), el("span", { class: "label" }, label), note && el("span", { class: "note" }, note));
  const averaged = (row) => [fixed(row.mean), typeof row.low === "number" && el("small", {}, ` ±${fixed((row.high - row.low) / 2)}`)];
  return [
    mean && tile(averaged(mean), `mean score, ${words(figure)}`, `n = ${count(mean.units)}, 95% interval`),
    chance && tile(averaged(chance), "with a neighbour's explanation", `n = ${count(chance.units)}, the null`),
    mean && tile(percent(mean["over_0.7"], 0), "of units score over 0.7", `${percent(mean["over_0.9"], 0)} over 0.9`),
    tile(count(counts.dead + counts.constant), "dead or constant", `of ${many(counts.units, "unit")}`),
    tile(count(counts.failed), "failed", counts.unscored ? `${count(counts.unscored)} without scores` : "units with an error"),
  ];
}

function wellDone(scores) {
  if (!scores.figures.length) {
    return section("How well it did", { id: "scores", missing: "No unit has a score yet (nx-score)." });
  }
  const body = el("div");
  const draw = (figure) => fill(body, figures(scores, figure));
  draw(scores.figures[0]);
  const chosen = scores.figures.length > 1
    && select("Figure", scores.figures.map((name) => [name, words(name)]), scores.figures[0], draw);
  return section("How well it did", { id: "scores" }, chosen, body);
}

function figures(scores, figure) {
  const rows = scores.rows.filter((row) => row.figure === figure);
  const series = scores.series.filter(({ label }) => rows.some((row) => row.series === label));
  const all = new Map(rows.filter((row) => row.layer === "all").map((row) => [row.series, row]));
  const coloured = series.map((one, place) => ({ ...one, colour: seriesColour(one, place) }));
  const over = new Set([...all.values()].map((row) => row.interval_over));
  return [
    legend(coloured.map(({ label, colour, baseline }) => [label, colour, baseline])),
    el(
      "div",
      { class: "charts" },
      distribution(scores.histograms[figure], coloured, all, figure),
      byLayer(rows.filter((row) => row.layer !== "all"), coloured, figure),
    ),
    table(
      [
        { label: "Series", cell: ({ label }) => readable(label) },
        { label: "Units", number: true, cell: ({ label }) => count(all.get(label).units) },
        { label: "Mean ± 95%", number: true, cell: ({ label }) => plusMinus(all.get(label).mean, all.get(label).low, all.get(label).high) },
        { label: "Median", number: true, cell: ({ label }) => fixed(all.get(label).median, 3) },
        ...scores.thresholds.map((at) => ({
          label: `over ${at}`,
          number: true,
          cell: ({ label }) => percent(all.get(label)[`over_${at}`]),
        })),
        { label: "Absent", number: true, cell: ({ label }) => count(all.get(label).absent) },
        { label: "Failed", number: true, cell: ({ label }) => count(all.get(label).failed) },
      ],
      coloured.filter(({ label }) => all.has(label)),
      { caption: `Means and shares of units by series: ${words(figure)}` },
    ),
    el("p", { class: "note" }, `Scores are ${words(figure)}, on held-out excerpts. Intervals are over ${[...over].join(" or ")}.`),
  ];
}

function lists(selection) {
  const { rows, measure } = selection;
  const scored = rows.filter((row) => valueOf(row, measure) !== null).sort(by((row) => valueOf(row, measure), true));
  const improved = rows.filter((row) => row.gain > 0).sort(by((row) => row.gain, true));
  const shown = (row) => fixed(valueOf(row, measure));
  return [
    listOf("Best explained", scored.slice(0, LISTED), shown, "No unit has a score."),
    listOf("Worst explained", scored.slice(-LISTED).reverse(), shown, "No unit has a score."),
    listOf("Most improved by revision", improved.slice(0, LISTED), (row) => signed(row.gain), "No revision raised a held-out score."),
  ];
}

function listOf(title, rows, shown, missing) {
  return el(
    "div",
    {},
    el("h3", {}, title),
    rows.length
      ? el("ol", { class: "units-list" }, rows.map((row) => el("li", {}, el("a", { href: link(row.address) },
          el("span", { class: "name" }, row.address), el("span", { class: "text" }, readable(row.text ?? "")), el("span", { class: "number" }, shown(row))))))
      : el("p", { class: "missing" }, missing),
  );
}

function whatWasRun({ facts, counts, layers }) {
  const numbers = Object.entries(layers);
  const pairs = [
    ...Object.entries(facts).map(([name, values]) => [
      words(name),
      Object.entries(values).map(([value, n]) => (n === counts.units ? readable(value) : `${readable(value)} (${count(n)})`)),
    ]),
    ["layers", [numbers.map(([layer, n]) => `${layer} (${count(n)})`).join(", ")]],
    ["tokens recorded", [count(counts.tokens)]],
    ["documents scored on", [counts.documents ? `${count(counts.documents)}, among those of the first 256 units` : "unknown"]],
  ];
  return section(
    "What was run",
    { id: "run", note: "Numbers in brackets count units." },
    el("dl", { class: "facts" }, pairs.map(([name, values]) => el("div", {}, el("dt", {}, name), values.map((value) => el("dd", {}, value))))),
  );
}
