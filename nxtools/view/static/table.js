// The table of all units: search, filters, sorting, one screenful of rows at a time.

const LETTERS = 150; // of an explanation in the table: two lines
const STATES = [
  ["", "all"],
  ["alive", "that fire"],
  ["dead", "dead"],
  ["constant", "constant"],
  ["failed", "failed"],
  ["unscored", "without a score"],
];

function unitTable(selection) {
  const { rows } = selection;
  const count_ = el("p", { class: "count", role: "status", "aria-live": "polite" });
  const head = el("tr");
  const body = el("tbody");
  const pager = el("nav", { class: "pager", "aria-label": "Pages of the table" });
  const withGain = rows.some((row) => row.gain !== null);

  function changed({ keepPage = false } = {}) {
    if (!keepPage) selection.first = 0;
    selection.update();
    draw();
    try {
      history.replaceState(history.state, "", selection.written());
    } catch {} // a browser may find that somebody types too fast; the next letter says it all
  }

  function draw() {
    const { found, first } = selection;
    fill(head, columns().map(heading));
    fill(body, found.slice(first, first + ROWS).map(line));
    const of = `${count(found.length)} of ${many(rows.length, "unit")}`;
    fill(count_, found.length ? of : `No unit is like this. ${of}`);
    const last = Math.min(first + ROWS, found.length);
    const turn = (to, text, there) =>
      el(
        "button",
        { disabled: !there, onclick: () => ((selection.first = to), changed({ keepPage: true })) },
        text,
      );
    fill(
      pager,
      turn(Math.max(0, first - ROWS), "Previous", first > 0),
      el("span", {}, found.length ? `${count(first + 1)}–${count(last)} of ${count(found.length)}` : "none"),
      turn(first + ROWS, "Next", last < found.length),
    );
  }

  // Rows that were drawn once are kept: as somebody types, most stay.
  const lines = new Map();
  let shown = selection.measure;

  function line(row) {
    if (shown !== selection.measure) lines.clear();
    shown = selection.measure;
    if (!lines.has(row)) {
      const cells = columns().map((column) => cell(column, row));
      lines.set(row, el("tr", {}, cells));
    }
    return lines.get(row);
  }

  function columns() {
    const { measure } = selection;
    return [
      { key: "unit", label: "Unit", cell: (row) => el("a", { href: link(row.address) }, row.address) },
      {
        key: "text",
        label: "Explanation",
        class: "text",
        cell: (row) => el("div", { class: "clamped" }, said(row)),
      },
      { key: "score", label: "Score", number: true, cell: (row) => scoreCell(scoreOf(row, measure), row) },
      withGain && {
        key: "gain",
        label: "Gain",
        number: true,
        cell: (row) => (row.gain === null ? "–" : signed(row.gain)),
      },
      { key: "density", label: "Density", number: true, cell: (row) => percent(row.density, 2) },
      { key: "max", label: "Maximum", number: true, cell: (row) => exact(row.max) },
      { label: "Peaks at", class: "peaks", cell: (row) => row.tokens.slice(0, 4).map(token) },
    ].filter(Boolean);
  }

  function heading(column) {
    if (!column.key) return el("th", { scope: "col", class: column.class }, column.label);
    const sorted = selection.sort === column.key;
    const button = el(
      "button",
      {
        onclick: () => {
          selection.falling = sorted ? !selection.falling : column.key !== "unit" && column.key !== "text";
          selection.sort = column.key;
          changed();
          head.querySelector(`[data-key=${column.key}] button`).focus();
        },
      },
      column.label,
      el("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (selection.falling ? "▼" : "▲") : "↕"),
    );
    const order = sorted ? (selection.falling ? "descending" : "ascending") : "none";
    return el(
      "th",
      {
        scope: "col",
        class: column.number ? "number" : column.class,
        "aria-sort": order,
        "data-key": column.key,
      },
      button,
    );
  }

  const cell = (column, row) =>
    column.key === "unit"
      ? el("th", { scope: "row" }, column.cell(row))
      : el("td", { class: column.number ? "number" : column.class }, column.cell(row));

  const set = (name) => (value) => {
    selection.filters[name] = value;
    changed();
  };
  draw();
  return [
    filters(selection, set),
    el("div", { class: "above" }, count_, withdraw(selection, changed)),
    el(
      "div",
      { class: "scroll", role: "region", tabindex: "0", "aria-label": "Units" },
      el(
        "table",
        { class: "units" },
        el("caption", { class: "hidden" }, "All units"),
        el("thead", {}, head),
        body,
      ),
    ),
    pager,
  ];
}

function filters(selection, set) {
  const { rows, filters: now, scores } = selection;
  const layers = [...new Set(rows.map((row) => row.layer))].sort((a, b) => a - b);
  const states = STATES.filter(
    ([value]) => ["", "alive"].includes(value) || rows.some((row) => selection.is(row, value)),
  );
  const search = el("input", {
    type: "search",
    value: now.q,
    placeholder: "words of explanations, tokens, 2:41",
    oninput: () => set("q")(search.value),
  });
  return el(
    "form",
    { class: "filters", role: "search", "aria-label": "Units", onsubmit: (event) => event.preventDefault() },
    el("label", { class: "field wide" }, el("span", {}, "Search"), search),
    select(
      "Layer",
      [["", "all"], ...layers.map((layer) => [String(layer), String(layer)])],
      now.layer,
      set("layer"),
    ),
    scores.length > 1 &&
      select(
        "Score",
        scores.map((name) => [name, name]),
        selection.measure,
        set("measure"),
      ),
    range("Score", "low", "high", now, set, 0.05, ["at least", "at most"]),
    range("Density in %", "rare", "dense", now, set, 0.1, ["at least", "at most"]),
    select("Units", states, now.state, set("state")),
  );
}

function range(label, low, high, now, set, step, [from, to]) {
  const bound = (name, text) => {
    const input = el("input", {
      type: "number",
      step,
      value: now[name],
      placeholder: text,
      "aria-label": `${label} ${text}`,
      oninput: () => set(name)(input.value),
    });
    return input;
  };
  return el(
    "div",
    { class: "field range", role: "group", "aria-label": label },
    el("span", { "aria-hidden": "true" }, label),
    bound(low, from),
    bound(high, to),
  );
}

// Takes all filters back; drawn anew with the page, so that the fields are empty as well.
const withdraw = (selection, changed) =>
  el(
    "button",
    {
      class: "quiet",
      onclick: () => {
        selection.read(new URLSearchParams());
        changed();
        show();
      },
    },
    "Show all",
  );

function said(row) {
  if (row.text !== null) return explanationText(shortened(row.text), row.by);
  return el("span", { class: "missing" }, row.why ? `${row.state}: ${row.why}` : "not explained");
}

const shortened = (text) => (text.length > LETTERS ? `${text.slice(0, LETTERS)}…` : text);

function scoreCell(score, row) {
  if (!score || score.value === null) {
    return el("span", { class: "missing" }, row.state || (score?.why ? readable(score.why) : "none"));
  }
  return [el("span", {}, fixed(score.value)), intervalBar(score)];
}

// From 0 to 1, the interval and the value in it. The numbers stand beside it or in its title.
function intervalBar({ value, low, high }) {
  const at = (x) => `${100 * Math.min(1, Math.max(0, x))}%`;
  const bar = el("span", { class: "interval", title: withInterval(value, low, high), "aria-hidden": "true" });
  bar.style.setProperty("--at", at(value));
  if (typeof low === "number") {
    const inside = el("span", { class: "spread" });
    inside.style.setProperty("--from", at(low));
    inside.style.setProperty("--to", at(high));
    bar.append(inside);
  }
  bar.append(el("span", { class: "dot" }));
  return bar;
}
