// Excerpts of a unit, by how they were picked and by set.

const PICKS = { top: "Highest", bottom: "Lowest", spread: "Spread over all strengths", random: "Random" };

// What somebody chose on one unit holds on the next.
const viewing = { mode: "overlaid", set: "" };

function excerptSection({ page }) {
  const scale = scaleOf(page.groups);
  const places = page.simulations
    .map((_, place) => place)
    .filter((place) =>
      page.groups.some(({ excerpts }) => excerpts.some(({ simulated }) => place in simulated)),
    );
  const now = { place: places[0] ?? null };
  const body = el("div");
  const bar = el("div", { class: "controls" });
  function draw() {
    const mode = now.place === null ? "true" : viewing.mode;
    const shown = page.groups.filter(({ set }) => viewing.set === "" || set === viewing.set);
    const picks = d3.groups(shown, ({ pick }) => pick);
    fill(
      body,
      scaleLegend(scale, mode === "overlaid"),
      picks.map(([pick, groups]) => pickOf(pick, groups, { scale: scale.scale, mode, place: now.place })),
    );
  }
  const sets = [...new Set(page.groups.map(({ set }) => set))];
  if (viewing.set && !sets.includes(viewing.set)) viewing.set = "";
  fill(
    bar,
    places.length > 0 && choice("Show", MODES, viewing.mode, (mode) => ((viewing.mode = mode), draw())),
    sets.length > 1 &&
      select(
        "Set",
        [["", "all"], ...sets.map((set) => [set, set])],
        viewing.set,
        (set) => ((viewing.set = set), draw()),
      ),
    places.length > 1 &&
      select(
        "Simulation",
        places.map((place) => [String(place), simulationName(page, place)]),
        String(now.place),
        (place) => ((now.place = Number(place)), draw()),
      ),
  );
  draw();
  const why = page.simulations
    .filter(({ failed }) => failed)
    .map(({ by, failed }) => `${by.name} could not simulate it: ${failed}.`);
  return section(
    "Excerpts",
    { id: "excerpts", missing: page.missing.excerpts },
    bar,
    places.length === 0 &&
      el("p", { class: "missing" }, readable(why.join(" ") || page.missing.simulations || "")),
    body,
    page.missing.spread && el("p", { class: "missing" }, page.missing.spread),
  );
}

function simulationName(page, place) {
  const { explanation, by } = page.simulations[place];
  return page.explanations.length > 1 ? `${by.name}, explanation ${explanation + 1}` : by.name;
}

function pickOf(pick, groups, how) {
  return el(
    "div",
    { class: "pick" },
    el("h3", {}, PICKS[pick] ?? words(pick)),
    groups.map((group) => groupOf(group, how)),
  );
}

function groupOf({ set, excerpts, pick }, how) {
  const places = new Map(excerpts.map((excerpt, place) => [excerpt, place]));
  return el(
    "div",
    { class: "group" },
    el("h4", {}, set, el("small", {}, ` ${many(excerpts.length, "excerpt")}`)),
    fewFirst(excerpts, (excerpt) =>
      excerptOf(excerpt, `${pick} excerpt ${places.get(excerpt) + 1}, ${set}`, how),
    ),
  );
}

function excerptOf(excerpt, label, how) {
  const known = excerpt.activations.filter((value) => value !== null);
  const [low, high] = known.length ? d3.extent(known) : [null, null];
  const where = [
    excerpt.document && `document ${String(excerpt.document).slice(0, 8)}`,
    typeof excerpt.start === "number" && `from token ${count(excerpt.start)}`,
    typeof excerpt.probability === "number" && `drawn with probability ${exact(excerpt.probability)}`,
  ].filter(Boolean);
  return el(
    "div",
    { class: "excerpt" },
    el(
      "p",
      { class: "meta" },
      el("b", {}, `max ${exact(high)}`),
      low < 0 && ` min ${exact(low)}`,
      where.length > 0 && el("span", {}, ` · ${where.join(", ")}`),
    ),
    heatMap(excerpt, { ...how, label }),
  );
}
