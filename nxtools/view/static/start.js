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
  const explainers = [...new Set(names("explainer").map((name) => name.split(" (")[0]))];
  const sentence = [
    `${many(counts.units, "unit")}${sites ? ` at ${sites}` : ""} in ${many(numbers.length, "layer")}`,
    explainers.length && `explained by ${explainers.join(" and ")}`,
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

// What can be shown: figures by method, those of explanations first. [{method, figure, name}]
function measuresOf({ series, rows, figures }) {
  const methods = [...new Set(series.map(({ method }) => method))];
  const of = new Map(series.map(({ label, method }) => [label, method]));
  const there = new Set(rows.map(({ series: label, figure }) => `${of.get(label)} ${figure}`));
  return methods.flatMap((method) =>
    figures
      .filter((figure) => there.has(`${method} ${figure}`))
      .map((figure) => ({
        method,
        figure,
        name: methods.length > 1 ? `${method}: ${words(figure)}` : words(figure),
      })),
  );
}

// Series of a method, with their rows over all units and by layer; the first explanation's come first.
function seriesOf(scores, { method, figure }) {
  const rows = scores.rows.filter((row) => row.figure === figure);
  const there = scores.series.filter(
    (one) => one.method === method && rows.some(({ series }) => series === one.label),
  );
  // Settings that are objects are left out where it stays clear which series is meant, and said in words elsewhere.
  const plainly = ({ label }) => label.replace(` (${method})`, "");
  const briefly = (one) => plainly(one).replace(/=\{.*?\}(?= |$)/g, "");
  const inWords = (one) =>
    plainly(one)
      .replace(/[{}"[\]]/g, "")
      .replace(/[=:]/g, " ")
      .replace(/,/g, ", ");
  const names = d3.rollup(there, (some) => some.length, briefly);
  return there.map((one, place) => {
    const own = rows.filter(({ series }) => series === one.label);
    return {
      ...one,
      name: readable(names.get(briefly(one)) > 1 ? inWords(one) : briefly(one)),
      colour: seriesColour(one.baseline && /^null\b/.test(one.label), place),
      isNull: one.baseline && /^null\b/.test(one.label),
      all: own.find(({ layer }) => layer === "all"),
      layers: own.filter(({ layer }) => layer !== "all"),
      histogram: scores.histograms[figure]?.[one.label],
    };
  });
}

function tiles(scores, counts) {
  const measure = measuresOf(scores)[0];
  const series = measure ? seriesOf(scores, measure) : [];
  const mean = series.find(({ baseline }) => !baseline)?.all;
  const chance = series.find(({ isNull }) => isNull)?.all;
  const tile = (value, label, note) =>
    el(
      "li",
      {},
      el("span", { class: "value" }, value),
      el("span", { class: "label" }, label),
      el("span", { class: "note" }, note),
    );
  const averaged = ({ mean: value, low, high }) => {
    const margin = typeof low === "number" ? (high - low) / 2 : null;
    const digits = margin !== null && margin < 0.01 ? 3 : 2;
    return [fixed(value, digits), margin !== null && el("small", {}, ` ±${fixed(margin, digits)}`)];
  };
  return [
    mean && tile(averaged(mean), `mean score, ${measure.name}`, `n = ${count(mean.units)}, 95% interval`),
    chance &&
      tile(averaged(chance), "with a neighbour's explanation", `n = ${count(chance.units)}, the null`),
    mean &&
      tile(
        percent(mean["over_0.7"], 0),
        "of units score over 0.7",
        `${percent(mean["over_0.9"], 0)} over 0.9`,
      ),
    tile(count(counts.dead + counts.constant), "dead or constant", `of ${many(counts.units, "unit")}`),
    tile(
      count(counts.failed),
      "failed",
      counts.unscored ? `${count(counts.unscored)} without scores` : "units with an error",
    ),
  ];
}

function wellDone(scores) {
  const measures = measuresOf(scores);
  if (!measures.length)
    return section("How well it did", { id: "scores", missing: "No unit has a score yet (nx-score)." });
  const body = el("div");
  const draw = (place) => fill(body, measured(scores, measures[place]));
  draw(0);
  const options = measures.map(({ name }, place) => [String(place), name]);
  const chosen = options.length > 1 && select("Figure", options, "0", (place) => draw(Number(place)));
  return section("How well it did", { id: "scores", tools: chosen }, body);
}

function measured(scores, measure) {
  const series = seriesOf(scores, measure);
  const over = new Set(series.flatMap(({ all }) => (all ? [all.interval_over] : [])));
  const number = (label, cell) => ({ label, number: true, cell });
  return [
    legend(series.map(({ name, colour }) => [name, colour])),
    el("div", { class: "charts" }, distribution(series, measure), byLayer(series, measure)),
    table(
      [
        { label: "Series", cell: ({ name }) => name },
        number("Units", ({ all }) => count(all.units)),
        number("Mean ± 95%", ({ all }) => plusMinus(all.mean, all.low, all.high)),
        number("Median", ({ all }) => fixed(all.median, 3)),
        ...scores.thresholds.map((at) => number(`Over ${at}`, ({ all }) => percent(all[`over_${at}`]))),
        number("Absent", ({ all }) => count(all.absent)),
        number("Failed", ({ all }) => count(all.failed)),
      ],
      series.filter(({ all }) => all),
      { caption: `Means and shares of units by series: ${measure.name}` },
    ),
    el(
      "p",
      { class: "note" },
      `Scores are ${measure.name}, on held-out excerpts. Intervals are over ${[...over].join(" or ")}.`,
    ),
  ];
}

function lists(selection) {
  const { rows, measure } = selection;
  const scored = rows
    .filter((row) => valueOf(row, measure) !== null)
    .sort(by((row) => valueOf(row, measure), true));
  const improved = rows.filter((row) => row.gain > 0).sort(by((row) => row.gain, true));
  const shown = (row) => fixed(valueOf(row, measure));
  return [
    listOf("Best explained", scored.slice(0, LISTED), shown, "No unit has a score."),
    listOf("Worst explained", scored.slice(-LISTED).reverse(), shown, "No unit has a score."),
    listOf(
      "Most improved by revision",
      improved.slice(0, LISTED),
      (row) => signed(row.gain),
      "No revision raised a held-out score.",
    ),
  ];
}

function listOf(title, rows, shown, missing) {
  return el(
    "div",
    {},
    el("h3", {}, title),
    rows.length
      ? el(
          "ol",
          { class: "units-list" },
          rows.map((row) =>
            el(
              "li",
              {},
              el(
                "a",
                { href: link(row.address) },
                el("span", { class: "name" }, row.address),
                el("span", { class: "text" }, readable(row.text ?? "")),
                el("span", { class: "number" }, shown(row)),
              ),
            ),
          ),
        )
      : el("p", { class: "missing" }, missing),
  );
}

function whatWasRun({ facts, counts, layers }) {
  const numbers = Object.entries(layers);
  const pairs = [
    ...Object.entries(facts).map(([name, values]) => [
      words(name),
      Object.entries(values).map(([value, n]) =>
        n === counts.units ? readable(value) : `${readable(value)} (${count(n)})`,
      ),
    ]),
    ["layers", [numbers.map(([layer, n]) => `${layer} (${count(n)})`).join(", ")]],
    ["tokens recorded", [count(counts.tokens)]],
    [
      "documents scored on",
      [counts.documents ? `${count(counts.documents)}, among those of the first 256 units` : "unknown"],
    ],
  ];
  return section(
    "What was run",
    { id: "run", note: "Numbers in brackets count units." },
    el(
      "dl",
      { class: "facts" },
      pairs.map(([name, values]) =>
        el(
          "div",
          {},
          el("dt", {}, name),
          values.map((value) => el("dd", {}, value)),
        ),
      ),
    ),
  );
}
