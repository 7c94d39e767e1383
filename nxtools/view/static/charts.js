// Charts, drawn by Observable Plot at the width that there is, in colours of the style sheet.

const SERIES_COLOURS = 6;
const FAMILY = { fontFamily: "inherit", fontSize: "12px", background: "none", overflow: "visible" };

// The null is grey wherever it stands; the others keep the colour of their place.
const seriesColour = (isNull, place) => (isNull ? "var(--null)" : `var(--series-${place % SERIES_COLOURS})`);

// A chart with words for those who do not see it. `make(width)` gives Plot's options.
function chart(label, title, make, note) {
  const holder = el("div", { class: "drawing" });
  holder.style.minHeight = `${make(400).height}px`; // so that nothing moves when it is drawn
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (Math.abs(contentRect.width - width) < 1 || contentRect.width < 40) return;
    width = contentRect.width;
    fill(holder, drawn(make(width), width, label));
  }).observe(holder);
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, title),
    holder,
    note && el("p", { class: "note" }, note),
  );
}

function drawn(options, width, label) {
  const svg = Plot.plot({ width, style: FAMILY, ...options });
  svg.querySelectorAll("style").forEach((style) => style.remove()); // ours says the same, and this page admits no other
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  return svg;
}

function legend(entries) {
  return el(
    "ul",
    { class: "legend" },
    entries.map(([label, colour, dashed]) => {
      const swatch = el("span", { class: dashed ? "swatch dashed" : "swatch", "aria-hidden": "true" });
      swatch.style.setProperty("--colour", colour);
      return el("li", {}, swatch, readable(label));
    }),
  );
}

// Scores

// The first explanation as an area, everything else as outlines over it: shares of the units that have a score.
function distribution(series, { figure }) {
  const binned = series
    .filter(({ histogram }) => histogram?.counts.length)
    .map((one) => ({ ...one, bins: binsOf(one) }));
  const main = binned.find(({ baseline }) => !baseline);
  const means = series.filter(({ all }) => typeof all?.mean === "number");
  return chart(
    `Distribution of ${words(figure)} over units. Means: ${means.map(({ name, all }) => `${name} ${fixed(all.mean, 3)}`).join(", ")}.`,
    "Distribution over units",
    () => ({
      height: 290,
      marginLeft: 48,
      marginBottom: 40,
      x: { label: words(figure), labelAnchor: "center", labelArrow: "none", ticks: 6 },
      y: { label: "share of units", labelArrow: "none", tickFormat: "%", grid: true, ticks: 5, zero: true },
      marks: [
        Plot.rectY(main?.bins ?? [], {
          x1: "from",
          x2: "to",
          y: "share",
          fill: "colour",
          fillOpacity: 0.75,
          insetLeft: 0.5,
          insetRight: 0.5,
          title: ({ from, to, n }) => `${fixed(from)} to ${fixed(to)}: ${many(n, "unit")}`,
        }),
        binned
          .filter((one) => one !== main)
          .map(({ bins, colour }) =>
            Plot.line(outlined(bins), { x: "x", y: "y", stroke: colour, strokeWidth: 1.75 }),
          ),
        Plot.ruleY([0]),
        Plot.dot([...means].reverse(), {
          x: ({ all }) => all.mean,
          y: 0,
          fill: "colour",
          stroke: "var(--surface)",
          r: 4,
        }),
      ],
    }),
    main &&
      `n = ${many(
        d3.sum(main.bins, ({ n }) => n),
        "unit",
      )}. Dots on the axis are means.`,
  );
}

function binsOf({ histogram: { edge, width, counts }, colour }) {
  const total = d3.sum(counts);
  const at = (place) => Number((edge + place * width).toFixed(6));
  return counts.map((n, place) => ({ colour, from: at(place), to: at(place + 1), n, share: n / total }));
}

function outlined(bins) {
  const corners = bins.flatMap(({ from, to, share }) => [
    { x: from, y: share },
    { x: to, y: share },
  ]);
  return [{ x: bins[0].from, y: 0 }, ...corners, { x: bins.at(-1).to, y: 0 }];
}

// Series stand beside each other in a layer, so that their intervals do not hide one another.
function byLayer(series, { figure }) {
  const apart = Math.min(0.08, 0.5 / series.length);
  const points = series.flatMap(({ name, colour, layers }, place) =>
    layers
      .filter(({ mean }) => typeof mean === "number")
      .map((row) => ({ ...row, name, colour, x: row.layer + apart * (place - (series.length - 1) / 2) })),
  );
  const layers = [...new Set(points.map(({ layer }) => layer))].sort(d3.ascending);
  return chart(
    `Mean ${words(figure)} by layer, with 95% intervals.`,
    "Mean by layer, with 95% intervals",
    () => ({
      height: 290,
      marginLeft: 48,
      marginBottom: 40,
      x: {
        label: "layer",
        labelAnchor: "center",
        labelArrow: "none",
        ticks: layers.length > 16 ? 12 : layers,
        tickFormat: "d",
        domain: [layers[0] - 0.5, layers.at(-1) + 0.5],
      },
      y: { label: `mean ${words(figure)}`, labelArrow: "none", grid: true, ticks: 5, zero: true, nice: true },
      marks: [
        Plot.ruleY([0]),
        Plot.line(points, {
          x: "x",
          y: "mean",
          z: "name",
          stroke: "colour",
          strokeWidth: 1.25,
          strokeOpacity: 0.6,
        }),
        Plot.ruleX(points, { x: "x", y1: "low", y2: "high", stroke: "colour", strokeWidth: 2 }),
        Plot.dot(points, {
          x: "x",
          y: "mean",
          fill: "colour",
          stroke: "var(--surface)",
          strokeWidth: 0.75,
          r: 3.25,
          title: (row) =>
            `${row.name}, layer ${row.layer}: ${plusMinus(row.mean, row.low, row.high)} (n = ${row.units})`,
        }),
      ],
    }),
    points.length > 0 && `n = ${layerSizes(points)}`,
  );
}

function layerSizes(rows) {
  const [least, most] = d3.extent(rows, ({ units }) => units);
  return least === most
    ? `${many(most, "unit")} in each layer`
    : `${count(least)} to ${many(most, "unit")} in a layer`;
}

// One unit

// Scores side by side on one axis: [{label, colour, value, low, high}].
function scoreChart(scores, figure) {
  const there = scores.filter(({ value }) => typeof value === "number");
  const lowest = Math.min(0, ...there.map(({ value, low }) => low ?? value));
  return chart(
    `${words(figure)} with 95% intervals: ${there.map(({ label, value, low, high }) => `${label} ${withInterval(value, low, high, 2)}`).join("; ")}`,
    `${words(figure)}, with 95% intervals`,
    () => ({
      height: 40 + 26 * there.length,
      marginLeft: 8,
      marginRight: 8,
      marginTop: 4,
      marginBottom: 32,
      x: { domain: [Math.max(-1, lowest), 1], label: null, grid: true, ticks: 5 },
      y: { domain: there.map(({ label }) => label), axis: null },
      marks: [
        Plot.ruleX([0]),
        Plot.ruleY(there, {
          y: "label",
          x1: "low",
          x2: "high",
          stroke: "colour",
          strokeWidth: 3,
          strokeOpacity: 0.55,
        }),
        Plot.dot(there, {
          y: "label",
          x: "value",
          fill: "colour",
          r: 5,
          title: ({ label, value, low, high }) => `${label}: ${withInterval(value, low, high)}`,
        }),
      ],
    }),
  );
}

function scatterChart(points, line, bound) {
  const fitted = line && typeof line.slope === "number";
  const [low, high] = [Math.min(0, bound.low), bound.high];
  const ends = fitted
    ? d3.extent(points, ({ said }) => said).map((x) => ({ x, y: line.intercept + line.slope * x }))
    : [];
  return chart(
    `True against simulated activations of ${many(points.length, "token")}${fitted ? `; calibration line of slope ${exact(line.slope)}` : ""}.`,
    "True against simulated",
    () => ({
      height: 260,
      marginLeft: 44,
      marginBottom: 40,
      x: {
        label: "simulated activation",
        labelAnchor: "center",
        labelArrow: "none",
        domain: [low, high],
        ticks: 5,
      },
      y: { label: "true activation", labelArrow: "none", domain: [low, high], grid: true, ticks: 5 },
      marks: [
        Plot.line(
          [
            { x: low, y: low },
            { x: high, y: high },
          ],
          { x: "x", y: "y", stroke: "currentColor", strokeOpacity: 0.3, strokeDasharray: "3 3" },
        ),
        Plot.dot(points, {
          x: "said",
          y: "truth",
          fill: "var(--series-0)",
          fillOpacity: 0.35,
          r: 2.5,
          title: ({ text, truth, said }) =>
            `${visible(text)}: true ${exact(truth)}, simulated ${exact(said)}`,
        }),
        fitted && Plot.line(ends, { x: "x", y: "y", stroke: "var(--series-1)", strokeWidth: 2, clip: true }),
      ],
    }),
  );
}

// Bins of excerpt extremes on logarithmic axes; a bin without excerpts has no bar.
function histogramChart({ below, edges, counts }, title, sign) {
  const bins = edges
    .map((from, place) => ({ from, to: edges[place + 1] ?? from * Math.SQRT2, n: counts[place] }))
    .filter(({ from, n }) => n > 0 && from > 0);
  const [low, high] = [d3.min(bins, ({ from }) => from) ?? 0.1, d3.max(bins, ({ to }) => to) ?? 1];
  const most = Math.max(10, d3.max(bins, ({ n }) => n) ?? 1);
  return chart(
    `Histogram of ${title}, both axes logarithmic: ${many(d3.sum(counts) + below, "excerpt")}, ${count(below)} of them below the first bin.`,
    title,
    () => ({
      height: 200,
      marginLeft: 48,
      marginBottom: 40,
      x: {
        type: "log",
        label: `activation${sign < 0 ? ", negative" : ""}`,
        labelAnchor: "center",
        labelArrow: "none",
        ticks: roundNumbers(low, high),
        tickFormat: (x) => exact(sign * x),
      },
      y: {
        type: "log",
        label: "excerpts",
        labelArrow: "none",
        grid: true,
        ticks: roundNumbers(1, most),
        tickFormat: "~s",
        domain: [0.8, most],
      },
      marks: [
        Plot.rect(bins, {
          x1: "from",
          x2: "to",
          y1: 0.8,
          y2: "n",
          insetLeft: 0.5,
          insetRight: 0.5,
          fill: sign < 0 ? "var(--negative)" : "var(--positive)",
          title: ({ from, to, n }) => `${exact(sign * from)} to ${exact(sign * to)}: ${many(n, "excerpt")}`,
        }),
      ],
    }),
    `n = ${many(d3.sum(counts) + below, "excerpt")}${below ? `, ${count(below)} too low for a bin` : ""}`,
  );
}

// Ticks of a logarithmic axis: powers of ten and, where those are few, twice and five times as much.
function roundNumbers(low, high) {
  const powers = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1).map((n) => 10 ** n);
  const within = (ticks) => ticks.filter((x) => x >= low * 0.999 && x <= high * 1.001);
  return within(powers).length > 2 ? within(powers) : within(powers.flatMap((x) => [x, 2 * x, 5 * x]));
}
