// Numbers beside the excerpts: scores, the simulation, statistics, means by token.

// The explanations' scores beside the baselines', a figure of a method at a time.
function scoreSection({ page, told }) {
  const others = page.explanations.filter((one) => one !== told);
  const named = [
    ...(told ? [["explanation", told]] : []),
    ...others.map((one, place) => [
      others.length > 1 ? `other explanation ${place + 1}` : "other explanation",
      one,
    ]),
    ...page.baselines.map((one) => [one.name, one]),
  ];
  const all = named.flatMap(([label, one]) => one.scores.map((score) => ({ label, score })));
  const methods = [...new Set(all.map(({ score }) => score.method))];
  const measures = methods.flatMap((method) => {
    const of = all.filter(({ score }) => score.method === method).flatMap(({ score }) => score.figures ?? []);
    return [...new Set(of.map(({ name }) => name))].map((name) => ({ method, name }));
  });
  const failed = all.filter(({ score }) => score.error);
  const failures =
    failed.length > 0 &&
    el(
      "ul",
      {},
      failed.map(({ label, score }) => el("li", { class: "alert" }, readable(`${label}: ${score.error}`))),
    );
  if (!measures.length)
    return section(
      "Scores",
      { id: "scores", missing: page.missing.scores ?? "No score could be computed." },
      failures,
    );
  const body = el("div");
  const draw = (place) => fill(body, scoresOf(all, measures[place]));
  draw(0);
  const options = measures.map(({ method, name }, place) => [
    String(place),
    methods.length > 1 ? `${method}: ${words(name)}` : words(name),
  ]);
  return section(
    "Scores",
    {
      id: "scores",
      tools: options.length > 1 && select("Figure", options, "0", (place) => draw(Number(place))),
    },
    body,
    failures,
  );
}

function scoresOf(all, { method, name }) {
  const there = all
    .filter(({ score }) => score.method === method)
    .flatMap(({ label, score }) =>
      (score.figures ?? [])
        .filter((figure) => figure.name === name)
        .map((figure) => ({ label, by: score.simulator, figure })),
    );
  const several = new Set(there.map(({ label }) => label)).size < there.length;
  const shown = there.map(({ label, by, figure }, place) => ({
    ...figure,
    label: readable(several && by && by !== label ? `${label} by ${by}` : label),
    colour: seriesColour(label === "null", place),
  }));
  return [
    scoreChart(shown, name),
    el(
      "ul",
      { class: "values" },
      shown.map(({ label, colour, value, low, high, why }) => {
        const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
        swatch.style.setProperty("--colour", colour);
        const told =
          value === null
            ? el("span", { class: "missing" }, readable(why ?? "absent"))
            : withInterval(value, low, high);
        return el("li", {}, swatch, el("span", {}, label), el("span", { class: "number" }, told));
      }),
    ),
    el("p", { class: "note" }, noteOf(shown[0])),
  ];
}

const noteOf = (figure) =>
  figure.excerpts
    ? `n = ${many(figure.excerpts, "held-out excerpt")}, ${many(figure.tokens ?? 0, "token")}`
    : "held-out excerpts";

function scatterSection({ page }) {
  const place = page.simulations.findIndex(({ line }) => line);
  if (place < 0)
    return section("Simulation", {
      id: "scatter",
      missing: page.missing.simulations ?? "No held-out excerpt was simulated.",
    });
  const { line } = page.simulations[place];
  const points = [];
  for (const { set, pick, excerpts } of page.groups) {
    if (set !== "held-out" || (pick !== "top" && pick !== "random")) continue;
    for (const { tokens, activations, simulated } of excerpts) {
      simulated[place]?.forEach((said, at) => {
        if (said !== null && activations[at] !== null)
          points.push({ said, truth: activations[at], text: tokens[at] });
      });
    }
  }
  const every = points.flatMap(({ said, truth }) => [said, truth]);
  const [low, high] = every.length ? d3.extent(every) : [0, 1];
  const on = `${line.set === "held-out" ? "the held-out excerpts themselves" : `${line.set} excerpts`} (${many(line.excerpts, "excerpt")}, ${many(line.tokens, "token")})`;
  const told =
    typeof line.slope === "number"
      ? `Solid: true = ${exact(line.intercept)} ${line.slope < 0 ? "−" : "+"} ${exact(Math.abs(line.slope))} · simulated, fitted on ${on}. Dashed: equality.`
      : `The simulation never changes on ${on}: there is no line.`;
  return section(
    "Simulation",
    {
      id: "scatter",
      note: `n = ${many(points.length, "held-out token")}${typeof line.correlation === "number" ? `, correlation ${fixed(line.correlation, 3)}` : ""}`,
    },
    points.length
      ? scatterChart(points, line, { low, high })
      : el("p", { class: "missing" }, "No held-out excerpt was simulated."),
    el("p", { class: "note" }, told),
  );
}

function statisticsSection({ page }) {
  const { stats, histogram } = page;
  const labels = {
    tokens: count,
    mean: exact,
    variance: exact,
    skewness: exact,
    kurtosis: exact,
    max: exact,
    min: exact,
    active: (x) => percent(x, 2),
    active_negative: (x) => percent(x, 2),
  };
  const names = {
    active: "tokens above 0.3 of the maximum",
    active_negative: "tokens below 0.3 of the minimum",
    max: "maximum",
    min: "minimum",
  };
  const list = Object.entries(labels)
    .filter(([name]) => name in stats)
    .map(([name, told]) => el("div", {}, el("dt", {}, names[name] ?? name), el("dd", {}, told(stats[name]))));
  return section(
    "Activations",
    { id: "statistics", missing: page.missing.stats },
    histogram.maxima && histogramChart(histogram.maxima, "Maxima of excerpts", 1),
    histogram.minima && histogramChart(histogram.minima, "Minima of excerpts", -1),
    page.missing.histogram && el("p", { class: "missing" }, readable(page.missing.histogram)),
    el("dl", { class: "figures" }, list),
  );
}

function tokenSection({ page }) {
  const { highest, lowest, tokens, excerpts } = page.tokens;
  const list = (rows, title) =>
    rows.length > 0 && [
      lowest.length > 0 && highest.length > 0 && el("h3", {}, title),
      bars(
        rows.map(({ token: text, mean, margin, n }) => ({
          name: token(text),
          value: mean,
          note: `${exact(mean)} ±${exact(margin)} (${count(n)})`,
        })),
        "tokens",
      ),
    ];
  return section(
    "Tokens with the highest mean activation",
    {
      id: "tokens",
      missing: page.missing.tokens,
      note: `Mean ± 95% (n) over ${many(tokens, "token")} of ${many(excerpts, "evidence excerpt")}; tokens seen once are left out.`,
    },
    list(highest, "Highest"),
    list(lowest, "Lowest"),
  );
}
