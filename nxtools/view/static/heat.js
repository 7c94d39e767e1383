// Token heat maps: one colour scale for all excerpts of a unit, exact values on hover and by keyboard.

const MODES = [
  ["overlaid", "overlaid"],
  ["stacked", "stacked"],
  ["true", "true only"],
  ["simulated", "simulated only"],
];

// The largest magnitude among all that is shown, so that a colour means the same everywhere.
function scaleOf(groups) {
  let scale = 0;
  let negative = false;
  for (const { excerpts } of groups) {
    for (const { activations, simulated } of excerpts) {
      for (const row of [activations, ...Object.values(simulated)]) {
        for (const value of row) {
          if (value === null) continue;
          if (value < 0) negative = true;
          if (Math.abs(value) > scale) scale = Math.abs(value);
        }
      }
    }
  }
  return { scale: scale || 1, negative };
}

// Colours come from the style sheet: here only how much of them.
function coloured(element, name, value, scale) {
  if (value === null || value === undefined) return element.classList.add(`${name}-absent`);
  if (value < 0) element.classList.add(`${name}-negative`);
  element.style.setProperty(`--${name}`, `${((100 * Math.abs(value)) / scale).toFixed(1)}%`);
}

// An excerpt's tokens. `place`: which simulation is shown, null for none.
function heatMap(excerpt, { scale, mode, place, label }) {
  const said = place === null ? null : (excerpt.simulated[place] ?? null);
  const modes = mode === "stacked" ? ["true", "simulated"] : [mode];
  const lines = modes.filter((one) => one === "true" || one === "overlaid" || said !== null);
  if (!lines.length) return el("p", { class: "missing" }, "This excerpt was not simulated.");
  return el(
    "div",
    { class: "stack" },
    lines.map((line) => strip(excerpt, said, line, scale, lines.length > 1, label)),
  );
}

function strip(excerpt, said, line, scale, named, label) {
  const both = line === "overlaid" && said !== null;
  const list = el("div", {
    class: `tokens ${both ? "overlaid" : ""}`,
    role: "listbox",
    "aria-orientation": "horizontal",
    "aria-label": `${label}${named ? `, ${line}` : ""}`,
  });
  excerpt.tokens.forEach((text, place) => {
    const truth = excerpt.activations[place];
    const guess = said ? said[place] : undefined;
    const item = el(
      "span",
      { role: "option", tabindex: place === 0 ? "0" : "-1", "aria-selected": "false" },
      visible(text),
    );
    if (text.includes("\n")) item.classList.add("breaks");
    coloured(item, "v", line === "simulated" ? guess : truth, scale);
    if (both) coloured(item, "s", guess, scale);
    item.setAttribute("aria-label", told(text, truth, said ? guess : undefined));
    item.told = {
      text,
      truth,
      guess: said ? guess : undefined,
      place,
      share: truth === null ? null : truth / scale,
    };
    list.append(item);
  });
  return named ? el("div", { class: "line" }, el("span", { class: "line-name" }, line), list) : list;
}

function told(text, truth, guess) {
  const value = truth === null ? "left out" : `activation ${exact(truth)}`;
  return `${visible(text)}, ${value}${guess === undefined ? "" : `, simulated ${exact(guess)}`}`;
}

// The exact value beside the token that the pointer or the keyboard is at.

const tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
document.body.append(tip);

function showTip(item) {
  const { text, truth, guess, place, share } = item.told;
  fill(
    tip,
    el("b", {}, token(text)),
    el("span", {}, truth === null ? "left out" : `activation ${exact(truth)}`),
    guess !== undefined && el("span", {}, `simulated ${exact(guess)}`),
    el("small", {}, `token ${place + 1}${share === null ? "" : `, ${percent(share, 0)} of the scale`}`),
  );
  tip.hidden = false;
  const at = item.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const left = Math.min(Math.max(4, at.left), innerWidth - size.width - 4);
  const above = at.top - size.height - 6;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : at.bottom + 6}px`;
}

const hideTip = () => (tip.hidden = true);
const tokenAt = (target) => (target instanceof Element ? target.closest("[role=option]") : null);

document.addEventListener("pointerover", (event) => {
  const item = tokenAt(event.target);
  if (item) showTip(item);
  else hideTip();
});
document.addEventListener("focusin", (event) => {
  const item = tokenAt(event.target);
  if (item) showTip(item);
  else hideTip();
});
document.addEventListener("scroll", hideTip, { passive: true });

// One tab stop an excerpt; arrows go from token to token, Home and End to its ends, Escape hides the value.
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return hideTip();
  const item = tokenAt(event.target);
  if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
  const next = {
    ArrowRight: item.nextElementSibling,
    ArrowLeft: item.previousElementSibling,
    Home: item.parentElement.firstElementChild,
    End: item.parentElement.lastElementChild,
  }[event.key];
  if (!next) return;
  event.preventDefault();
  item.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});

function scaleLegend({ scale, negative }, both) {
  return el(
    "div",
    { class: "scale" },
    negative && [el("span", {}, exact(-scale)), el("span", { class: "ramp negative" })],
    el("span", {}, "0"),
    el("span", { class: "ramp positive" }),
    el("span", {}, exact(scale)),
    el(
      "span",
      { class: "note" },
      both && "The upper part of a token is true, the lower one simulated. ",
      "Point at a token, or go there by Tab and the arrow keys, for its values.",
    ),
  );
}
