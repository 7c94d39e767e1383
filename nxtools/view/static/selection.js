// Which units pass the filters, and in which order. Kept apart from the table, so that a unit knows its neighbours.

const ROWS = 50; // of the table at a time

// Which scores there are, as `method by simulator`; the first one of the run in front.
function scoreNames(rows) {
  const names = new Set();
  for (const row of rows) for (const score of row.scores) names.add(scoreName(score));
  return [...names];
}

const scoreName = (score) => (score.simulator ? `${score.method} by ${score.simulator}` : score.method);
const scoreOf = (row, name) => row.scores.find((score) => scoreName(score) === name) ?? null;
const valueOf = (row, name) => scoreOf(row, name)?.value ?? null;

class Selection {
  constructor(rows) {
    this.rows = rows;
    this.scores = scoreNames(rows);
    this.texts = null;
    this.sort = "";
    this.falling = true;
    this.filters = { q: "", layer: "", state: "", low: "", high: "", rare: "", dense: "", measure: "" };
    this.found = rows;
    this.first = 0;
  }

  get measure() {
    return this.filters.measure || this.scores[0] || "";
  }

  read(settings) {
    for (const name of Object.keys(this.filters)) this.filters[name] = settings.get(name) ?? "";
    if (!this.scores.includes(this.filters.measure)) this.filters.measure = "";
    this.sort = settings.get("sort") ?? "";
    this.falling = settings.get("order") !== "rising";
    this.first = Math.max(0, ROWS * Math.floor((Number(settings.get("from")) || 0) / ROWS));
    this.update();
  }

  written() {
    const settings = new URLSearchParams();
    for (const [name, value] of Object.entries(this.filters)) if (value !== "") settings.set(name, value);
    if (this.sort) settings.set("sort", this.sort);
    if (this.sort && !this.falling) settings.set("order", "rising");
    if (this.first) settings.set("from", this.first);
    const text = settings.toString();
    return text ? `#/?${text}` : "#/";
  }

  update() {
    const { q, layer, state } = this.filters;
    const wanted = q.toLowerCase().split(/\s+/).filter(Boolean);
    const bounds = this.bounds();
    this.texts ??= this.rows.map(searched);
    this.found = this.rows.filter(
      (row, place) =>
        (layer === "" || row.layer === Number(layer)) &&
        (state === "" || this.is(row, state)) &&
        bounds.every(([read, low, high]) => within(read(row), low, high)) &&
        wanted.every((word) => this.texts[place].includes(word)),
    );
    const key = this.keys()[this.sort];
    if (key) this.found.sort(by(key, this.falling));
    if (this.first >= this.found.length) this.first = 0;
  }

  bounds() {
    const number = (text, factor = 1) =>
      text === "" || Number.isNaN(Number(text)) ? null : Number(text) * factor;
    const { low, high, rare, dense } = this.filters;
    return [
      [(row) => valueOf(row, this.measure), number(low), number(high)],
      [(row) => row.density, number(rare, 0.01), number(dense, 0.01)],
    ].filter(([, from, to]) => from !== null || to !== null);
  }

  is(row, state) {
    if (state === "alive") return row.state !== "dead" && row.state !== "constant";
    if (state === "unscored") return valueOf(row, this.measure) === null;
    return row.state === state;
  }

  keys() {
    return {
      unit: (row) => row.layer * 1e9 + row.index,
      score: (row) => valueOf(row, this.measure),
      gain: (row) => row.gain,
      density: (row) => row.density,
      max: (row) => row.max,
      text: (row) => row.text?.toLowerCase() ?? null,
    };
  }
}

const searched = (row) =>
  [row.name, row.text ?? "", ...row.tokens, ...row.tokens.map(visible)].join("\n").toLowerCase();

function within(value, low, high) {
  if (typeof value !== "number") return false;
  return (low === null || value >= low) && (high === null || value <= high);
}

// What has no value comes last either way.
function by(key, falling) {
  return (a, b) => {
    const x = key(a);
    const y = key(b);
    if (x === null || x === undefined) return y === null || y === undefined ? 0 : 1;
    if (y === null || y === undefined) return -1;
    const order = x < y ? -1 : x > y ? 1 : 0;
    return falling ? -order : order;
  };
}
