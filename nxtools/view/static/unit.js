// The page of one unit.

const AT_FIRST = 5; // excerpts of a group that are shown before somebody asks for more
const PICKS = { top: "Highest", bottom: "Lowest", spread: "Spread over all strengths", random: "Random" };
const FIGURES = ["loss", "kl", "jsd"];

// What somebody chose on one unit holds on the next.
const viewing = { mode: "overlaid", set: "" };

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
      el("div", { class: "main-side" }, [explanationSection, trySection, excerptSection, revisionSection].map(part)),
      el(
        "div",
        { class: "beside-it" },
        [scoreSection, scatterSection, statisticsSection, tokenSection, connectionSection, effectSection].map(part),
      ),
    ),
    part(provenanceSection),
  );
}

function headOf(page, row, order) {
  const place = order.indexOf(row);
  const beside = (to, text, key) =>
    order[to] ? el("a", { class: "button", href: link(order[to].address), rel: key }, text) : el("span", { class: "button off" }, text);
  const [state, why] = page.state;
  const { unit } = page;
  const badges = [unit.site && `site ${unit.site}`, `layer ${unit.layer}`, `index ${count(unit.index)}`, { "+": "positive side", "-": "negative side", "+-": "both sides" }[unit.sign]];
  return el(
    "div",
    { class: "head" },
    el("nav", { "aria-label": "Neighbours", class: "beside" },
      el("a", { class: "button", href: selection.written() }, "All units"),
      beside(place - 1, "← Previous", "prev"),
      el("span", { class: "note" }, `${count(place + 1)} of ${count(order.length)}`),
      beside(place + 1, "Next →", "next")),
    el("h1", {}, `Unit ${row.address}`),
    el("ul", { class: "badges" }, badges.filter(Boolean).map((text) => el("li", {}, readable(text))), state && el("li", { class: "alert" }, state)),
    state && el("p", { class: "alert" }, `This unit is ${state}: ${readable(why)}.`),
  );
}

// Explanations

// Patterns quote tokens and give levels: both are set off from the words between them.
function explanationText(text, by) {
  if (by !== "pattern") return readable(text);
  const pieces = text.split(/("(?:[^"\\]|\\.)*"|\([^()"]*\))/);
  return pieces.map((piece) => {
    if (piece.startsWith('"')) return el("code", { class: "token" }, readable(piece.slice(1, -1)).replace(/^ +/, (blanks) => "␣".repeat(blanks.length)));
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
    others.length > 0 && el("details", {}, el("summary", {}, many(others.length, "other explanation")), others.map((one) => explanation(one, false))),
  );
}

function explanation(one, large) {
  const { name, settings } = one.by;
  const how = Object.entries(settings).map(([key, value]) => `${words(key)} ${value}`);
  const main = one.scores.flatMap((score) => (score.figures ?? []).slice(0, 1).map((figure) => ({ ...figure, method: score.method })))[0];
  return el(
    "article",
    { class: large ? "said large" : "said" },
    one.error ? el("p", { class: "alert" }, readable(one.error)) : el("blockquote", {}, el("p", {}, explanationText(one.text, name))),
    main && typeof main.value === "number" && el("p", { class: "score" }, el("b", {}, fixed(main.value)), ` ${words(main.name)}, 95% interval `, typeof main.low === "number" ? `[${fixed(main.low)}, ${fixed(main.high)}]` : "unknown", sizeOf(main)),
    el("p", { class: "note" }, `By ${readable(name)}`, how.length > 0 && readable(` (${how.join("; ")})`), one.sign && `, of the ${one.sign} side`, typeof one.coverage === "number" && `, covers ${percent(one.coverage, 0)} of the squared activation of its evidence`, ". ", one.notes.join(" ")),
  );
}

const sizeOf = ({ excerpts, tokens }) => (excerpts ? `, n = ${many(excerpts, "excerpt")}${tokens ? `, ${many(tokens, "token")}` : ""}` : "");

// Revision

function revisionSection({ page, told }) {
  const revision = page.explanations.find((one) => one.revision)?.revision;
  if (!revision) return null;
  const rose = Object.entries(revision.scores).map(([name, { before, after }]) => `${words(name)} ${fixed(before, 3)} before, ${fixed(after, 3)} after`);
  return section(
    "Revision",
    { id: "revision", note: readable(`${revision.why}.`) },
    rose.length > 0 && el("p", {}, `On held-out excerpts: ${rose.join("; ")}.`),
    el("ol", { class: "versions" }, revision.versions.map((version, place) =>
      el("li", { class: place === revision.current ? "current" : null },
        el("p", { class: "note" }, place === revision.current && el("b", {}, "current · "), readable(version.round ? `round ${version.round}, ${version.made}` : version.made || "before"), version.literals && `, ${many(version.literals, "literal")}`, validationOf(version.validation)),
        el("p", { class: "version" }, explanationText(version.text, told?.by.name ?? ""))))),
    el("h3", {}, "Counterexamples"),
    revision.counterexamples.length ? counterexamples(revision.counterexamples) : el("p", { class: "missing" }, "There were none."),
  );
}

function validationOf(validation) {
  if (!validation) return null;
  const known = Object.entries(validation).filter(([, value]) => typeof value === "number");
  return known.length > 0 && ` · validation: ${known.map(([name, value]) => `${words(name)} ${fixed(value, 3)}`).join(", ")}`;
}

const SORTS = { "false-positive": "Said to fire, and did not", "false-negative": "Fired, and was not said to" };

// On their own scale: they come from other texts than the excerpts.
function counterexamples(examples) {
  const values = examples.flatMap(({ activation, expected }) => [Math.abs(activation ?? 0), Math.abs(expected ?? 0)]);
  const scale = Math.max(...values, 1e-9);
  return el("div", { class: "pair" }, d3.groups(examples, ({ sort }) => sort).map(([sort, some]) =>
    el("div", {}, el("h4", {}, SORTS[sort] ?? words(sort), el("small", {}, ` ${count(some.length)}`)),
      fewFirst(some, (one) => counterexample(one, scale), "ul", "examples"))));
}

function counterexample({ tokens, activation, expected, from, for: whom }, scale) {
  const last = el("span", {}, visible(tokens.at(-1) ?? ""));
  coloured(last, "v", activation, scale);
  coloured(last, "s", expected, scale);
  return el("li", {},
    el("span", { class: "context" }, tokens.slice(0, -1).map(visible).join(""), el("span", { class: "tokens overlaid" }, last)),
    el("span", { class: "note" }, `true ${exact(activation)}, said ${exact(expected)} · from ${words(from)}, for the ${whom}`));
}

// The first few of a list, and a button for the rest of it.
function fewFirst(rows, shown, name = "div", kind = null) {
  const list = el(name, { class: kind }, rows.slice(0, AT_FIRST).map(shown));
  const rest = rows.length - AT_FIRST;
  const more = rest > 0 && el("button", { class: "more", onclick: () => {
    append(list, rows.slice(AT_FIRST).map(shown));
    more.remove();
    const next = list.children[AT_FIRST];
    (next.querySelector("[role=option]") ?? next).focus();
  } }, `${count(rest)} more`);
  return [list, more];
}

// Excerpts

function excerptSection({ page }) {
  const scale = scaleOf(page.groups);
  const places = page.simulations.map((_, place) => place).filter((place) => page.groups.some(({ excerpts }) => excerpts.some(({ simulated }) => place in simulated)));
  const now = { place: places[0] ?? null };
  const body = el("div");
  const bar = el("div", { class: "controls" });
  function draw() {
    const mode = now.place === null ? "true" : viewing.mode;
    const shown = page.groups.filter(({ set }) => viewing.set === "" || set === viewing.set);
    const picks = d3.groups(shown, ({ pick }) => pick);
    fill(body, scaleLegend(scale, mode === "overlaid"), picks.map(([pick, groups]) => pickOf(pick, groups, { scale: scale.scale, mode, place: now.place })));
  }
  const sets = [...new Set(page.groups.map(({ set }) => set))];
  if (viewing.set && !sets.includes(viewing.set)) viewing.set = "";
  fill(
    bar,
    places.length > 0 && choice("Show", MODES, viewing.mode, (mode) => ((viewing.mode = mode), draw())),
    sets.length > 1 && select("Set", [["", "all"], ...sets.map((set) => [set, set])], viewing.set, (set) => ((viewing.set = set), draw())),
    places.length > 1 && select("Simulation", places.map((place) => [String(place), simulationName(page, place)]), String(now.place), (place) => ((now.place = Number(place)), draw())),
  );
  draw();
  const why = page.simulations.filter(({ failed }) => failed).map(({ by, failed }) => `${by.name} could not simulate it: ${failed}.`);
  return section(
    "Excerpts",
    { id: "excerpts", missing: page.missing.excerpts },
    bar,
    places.length === 0 && el("p", { class: "missing" }, readable(why.join(" ") || page.missing.simulations || "")),
    body,
  );
}

function simulationName(page, place) {
  const { explanation, by } = page.simulations[place];
  return page.explanations.length > 1 ? `${by.name}, explanation ${explanation + 1}` : by.name;
}

function pickOf(pick, groups, how) {
  return el("div", { class: "pick" }, el("h3", {}, PICKS[pick] ?? words(pick)), groups.map((group) => groupOf(group, how)));
}

function groupOf({ set, excerpts, pick }, how) {
  const places = new Map(excerpts.map((excerpt, place) => [excerpt, place]));
  return el("div", { class: "group" },
    el("h4", {}, set, el("small", {}, ` ${many(excerpts.length, "excerpt")}`)),
    fewFirst(excerpts, (excerpt) => excerptOf(excerpt, `${pick} excerpt ${places.get(excerpt) + 1}, ${set}`, how)));
}

function excerptOf(excerpt, label, how) {
  const known = excerpt.activations.filter((value) => value !== null);
  const [low, high] = known.length ? d3.extent(known) : [null, null];
  const where = [
    excerpt.document && `document ${String(excerpt.document).slice(0, 8)}`,
    typeof excerpt.start === "number" && `from token ${count(excerpt.start)}`,
    typeof excerpt.probability === "number" && `drawn with probability ${exact(excerpt.probability)}`,
  ].filter(Boolean);
  return el("div", { class: "excerpt" },
    el("p", { class: "meta" }, el("b", {}, `max ${exact(high)}`), low < 0 && ` min ${exact(low)}`, where.length > 0 && el("span", {}, ` · ${where.join(", ")}`)),
    heatMap(excerpt, { ...how, label }));
}

// Numbers beside the excerpts

// The explanations' scores beside the baselines', a figure of a method at a time.
function scoreSection({ page, told }) {
  const others = page.explanations.filter((one) => one !== told);
  const named = [
    ...(told ? [["explanation", told]] : []),
    ...others.map((one, place) => [others.length > 1 ? `other explanation ${place + 1}` : "other explanation", one]),
    ...page.baselines.map((one) => [one.name, one]),
  ];
  const all = named.flatMap(([label, one]) => one.scores.map((score) => ({ label, score })));
  const methods = [...new Set(all.map(({ score }) => score.method))];
  const measures = methods.flatMap((method) => {
    const of = all.filter(({ score }) => score.method === method).flatMap(({ score }) => score.figures ?? []);
    return [...new Set(of.map(({ name }) => name))].map((name) => ({ method, name }));
  });
  const failed = all.filter(({ score }) => score.error);
  const failures = failed.length > 0
    && el("ul", {}, failed.map(({ label, score }) => el("li", { class: "alert" }, readable(`${label}: ${score.error}`))));
  if (!measures.length) return section("Scores", { id: "scores", missing: page.missing.scores ?? "No score could be computed." }, failures);
  const body = el("div");
  const draw = (place) => fill(body, scoresOf(all, measures[place]));
  draw(0);
  const options = measures.map(({ method, name }, place) => [String(place), methods.length > 1 ? `${method}: ${words(name)}` : words(name)]);
  return section("Scores", { id: "scores", tools: options.length > 1 && select("Figure", options, "0", (place) => draw(Number(place))) }, body, failures);
}

function scoresOf(all, { method, name }) {
  const there = all
    .filter(({ score }) => score.method === method)
    .flatMap(({ label, score }) => (score.figures ?? []).filter((figure) => figure.name === name).map((figure) => ({ label, by: score.simulator, figure })));
  const several = new Set(there.map(({ label }) => label)).size < there.length;
  const shown = there.map(({ label, by, figure }, place) => ({
    ...figure,
    label: readable(several && by && by !== label ? `${label} by ${by}` : label),
    colour: seriesColour(label === "null", place),
  }));
  return [
    scoreChart(shown, name),
    el("ul", { class: "values" }, shown.map(({ label, colour, value, low, high, why }) => {
      const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.setProperty("--colour", colour);
      const told = value === null ? el("span", { class: "missing" }, readable(why ?? "absent")) : withInterval(value, low, high);
      return el("li", {}, swatch, el("span", {}, label), el("span", { class: "number" }, told));
    })),
    el("p", { class: "note" }, noteOf(shown[0])),
  ];
}

const noteOf = (figure) => (figure.excerpts ? `n = ${many(figure.excerpts, "held-out excerpt")}, ${many(figure.tokens ?? 0, "token")}` : "held-out excerpts");

function scatterSection({ page }) {
  const place = page.simulations.findIndex(({ line }) => line);
  if (place < 0) return section("Simulation", { id: "scatter", missing: page.missing.simulations ?? "No held-out excerpt was simulated." });
  const { line } = page.simulations[place];
  const points = [];
  for (const { set, pick, excerpts } of page.groups) {
    if (set !== "held-out" || (pick !== "top" && pick !== "random")) continue;
    for (const { tokens, activations, simulated } of excerpts) {
      simulated[place]?.forEach((said, at) => {
        if (said !== null && activations[at] !== null) points.push({ said, truth: activations[at], text: tokens[at] });
      });
    }
  }
  const every = points.flatMap(({ said, truth }) => [said, truth]);
  const [low, high] = every.length ? d3.extent(every) : [0, 1];
  const on = `${line.set === "held-out" ? "the held-out excerpts themselves" : `${line.set} excerpts`} (${many(line.excerpts, "excerpt")}, ${many(line.tokens, "token")})`;
  const told = typeof line.slope === "number"
    ? `Solid: true = ${exact(line.intercept)} ${line.slope < 0 ? "−" : "+"} ${exact(Math.abs(line.slope))} · simulated, fitted on ${on}. Dashed: equality.`
    : `The simulation never changes on ${on}: there is no line.`;
  return section("Simulation", { id: "scatter", note: `n = ${many(points.length, "held-out token")}${typeof line.correlation === "number" ? `, correlation ${fixed(line.correlation, 3)}` : ""}` },
    points.length ? scatterChart(points, line, { low, high }) : el("p", { class: "missing" }, "No held-out excerpt was simulated."),
    el("p", { class: "note" }, told));
}

function statisticsSection({ page }) {
  const { stats, histogram } = page;
  const labels = { tokens: count, mean: exact, variance: exact, skewness: exact, kurtosis: exact, max: exact, min: exact, active: (x) => percent(x, 2), active_negative: (x) => percent(x, 2) };
  const names = { active: "tokens above 0.3 of the maximum", active_negative: "tokens below 0.3 of the minimum", max: "maximum", min: "minimum" };
  const list = Object.entries(labels).filter(([name]) => name in stats).map(([name, told]) => el("div", {}, el("dt", {}, names[name] ?? name), el("dd", {}, told(stats[name]))));
  return section("Activations", { id: "statistics", missing: page.missing.stats },
    histogram.maxima && histogramChart(histogram.maxima, "Maxima of excerpts", 1),
    histogram.minima && histogramChart(histogram.minima, "Minima of excerpts", -1),
    page.missing.histogram && el("p", { class: "missing" }, readable(page.missing.histogram)),
    el("dl", { class: "figures" }, list));
}

function tokenSection({ page }) {
  const { highest, lowest, tokens, excerpts } = page.tokens;
  const list = (rows, title) => rows.length > 0 && [
    lowest.length > 0 && highest.length > 0 && el("h3", {}, title),
    bars(rows.map(({ token: text, mean, margin, n }) => ({ name: token(text), value: mean, note: `${exact(mean)} ±${exact(margin)} (${count(n)})` })), "tokens"),
  ];
  return section("Tokens with the highest mean activation", { id: "tokens", missing: page.missing.tokens, note: `Mean ± 95% (n) over ${many(tokens, "token")} of ${many(excerpts, "evidence excerpt")}; tokens seen once are left out.` },
    list(highest, "Highest"), list(lowest, "Lowest"));
}

// A list of values with bars: [{name, value, note}].
function bars(rows, label) {
  const most = Math.max(...rows.map(({ value }) => Math.abs(value)), 1e-12);
  return el("ol", { class: "bars", "aria-label": label }, rows.map(({ name, value, note }) => {
    const bar = el("span", { class: value < 0 ? "bar negative" : "bar", "aria-hidden": "true" });
    bar.style.setProperty("--size", `${(100 * Math.abs(value)) / most}%`);
    return el("li", {}, el("span", { class: "name" }, name), bar, el("span", { class: "number" }, note));
  }));
}

// Weights and effects

const LISTS = {
  output_tokens: ["Tokens that it promotes", "Tokens that it suppresses"],
  input_tokens: ["Tokens that excite it", "Tokens that inhibit it"],
  upstream: ["Units before it that excite it", "Units before it that inhibit it"],
  downstream: ["Units behind it that it excites", "Units behind it that it inhibits"],
};

function connectionSection({ page, rows }) {
  const found = page.connections;
  if (!found) return section("Connections by weights", { id: "connections", missing: page.missing.connections });
  if (found.error) return section("Connections by weights", { id: "connections", missing: `${found.error.message ?? found.error.kind}.` });
  const known = new Map(rows.map(({ name, address }) => [name, address]));
  const named = (one) => (one.token === undefined ? unitLink(one.unit, known) : [token(one.token), one.token.includes("\ufffd") && el("small", {}, ` ${one.id}`)]);
  const pair = ([highest, lowest], lists, part) => [
    [highest, lists.positive],
    [lowest, lists.negative],
  ].map(([title, some]) => el("div", {}, el("h3", {}, title, part && el("small", {}, ` ${part}`)),
    some?.length ? bars(some.map((one) => ({ name: named(one), value: one.weight, note: exact(one.weight) })), title) : el("p", { class: "missing" }, "None.")));
  const spread = ({ sd, of }) => typeof sd === "number" && el("p", { class: "note" }, `Standard deviation ${exact(sd)} over ${many(of, "weight")}.`);
  const parts = (name, of) => (of.positive ? [[null, of]] : Object.entries(of)).map(([part, lists]) => [pair(LISTS[name], lists, part === "input" ? null : part), spread(lists)]);
  return section("Connections by weights", { id: "connections", note: "What the weights alone say, whatever the text." },
    Object.keys(LISTS).map((name) => (found[name] ? el("div", { class: "pair" }, parts(name, found[name])) : el("p", { class: "missing" }, `${LISTS[name][0]}: ${readable(found.absent?.[name] ?? "not asked for")}.`))));
}

const unitLink = (name, known) => (known.has(name) ? el("a", { href: link(known.get(name)) }, name) : el("span", { title: "not in this report" }, name));

function effectSection({ page }) {
  const { effects } = page;
  if (!Array.isArray(effects)) return section("Effects of silencing it", { id: "effects", missing: page.missing.effects });
  return section("Effects of silencing it", { id: "effects", note: "Changes of the subject's output per token, in nats, with 95% intervals." },
    effects.map(effectOf));
}

function effectOf(effect) {
  const { replaced_by: by } = effect;
  const rows = Object.entries(effect).filter(([, of]) => of && typeof of === "object" && "loss" in of);
  const nats = (of, name) => {
    const [low, high] = of[`${name}_interval`] ?? [];
    return el("div", {}, el("dt", {}, { loss: "loss", kl: "KL", jsd: "JSD" }[name]),
      el("dd", {}, exact(of[name]), typeof low === "number" && el("small", {}, ` [${exact(low)}, ${exact(high)}]`)));
  };
  const moved = (title, tokens) => tokens?.length > 0
    && el("div", {}, el("h4", {}, title), bars(tokens.map((one) => ({ name: token(one.token), value: one.logit, note: exact(one.logit) })), title));
  return [
    el("h3", {}, `With ${by === "zero" ? "zero" : `its ${words(by)}`} in its place`, typeof effect.value === "number" && el("small", {}, ` ${exact(effect.value)}`)),
    rows.map(([name, of]) => el("div", {}, el("h4", {}, words(name), el("small", {}, sizeOf(of))), el("dl", { class: "nats" }, FIGURES.map((figure) => nats(of, figure))))),
    el("div", { class: "pair" }, moved("Logits that rise", effect.raises), moved("Logits that fall", effect.lowers)),
  ];
}

function provenanceSection({ page }) {
  return section("Where this comes from", { id: "provenance" },
    el("dl", { class: "facts" }, page.provenance.map(([name, value]) => el("div", {}, el("dt", {}, readable(words(name))), el("dd", {}, el("code", {}, readable(value)))))),
    Object.values(page.missing).length > 0 && el("details", {}, el("summary", {}, "What this page does not have"), el("ul", {}, Object.values(page.missing).map((sentence) => el("li", {}, readable(sentence))))));
}
