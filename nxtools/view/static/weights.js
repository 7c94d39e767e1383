// What the weights connect a unit with, and what silencing it does.

const FIGURES = ["loss", "kl", "jsd"];

const LISTS = {
  output_tokens: ["Tokens it promotes", "Tokens it suppresses"],
  input_tokens: ["Tokens that excite it", "Tokens that inhibit it"],
  upstream: ["Upstream, exciting it", "Upstream, inhibiting it"],
  downstream: ["Downstream, excited", "Downstream, inhibited"],
};

function connectionSection({ page, rows }) {
  const found = page.connections;
  if (!found)
    return section("Connections by weights", { id: "connections", missing: page.missing.connections });
  if (found.error)
    return section("Connections by weights", {
      id: "connections",
      missing: `${found.error.message ?? found.error.kind}.`,
    });
  const known = new Map(rows.map(({ name, address }) => [name, address]));
  const named = (one) =>
    one.token === undefined
      ? unitLink(one.unit, known)
      : [
          token(one.token),
          one.token.includes("\ufffd") && el("small", {}, ` ${one.id}`),
          one.alike &&
            el(
              "small",
              { title: "tokens that the weights cannot tell from it" },
              ` and ${count(one.alike)} alike`,
            ),
        ];
  const pair = ([highest, lowest], lists, part) =>
    [
      [highest, lists.positive],
      [lowest, lists.negative],
    ].map(([title, some]) =>
      el(
        "div",
        {},
        el("h3", {}, title, part && el("small", {}, ` ${part}`)),
        some?.length
          ? bars(
              some.map((one) => ({ name: named(one), value: one.weight, note: exact(one.weight) })),
              title,
            )
          : el("p", { class: "missing" }, "None."),
      ),
    );
  const spread = ({ sd, of, through }) =>
    typeof sd === "number" &&
    el(
      "p",
      { class: "note" },
      `Standard deviation ${exact(sd)} over ${many(of, "weight")}.`,
      through === "mlp" && " The unit's value where the residual stream holds the token alone.",
    );
  const parts = (name, of) =>
    (of.positive ? [[null, of]] : Object.entries(of)).map(([part, lists]) => [
      pair(LISTS[name], lists, part === "input" ? null : part),
      spread(lists),
    ]);
  return section(
    "Connections by weights",
    { id: "connections", note: "What the weights alone say, whatever the text." },
    Object.keys(LISTS).map((name) =>
      found[name]
        ? el("div", { class: "pair" }, parts(name, found[name]))
        : el(
            "p",
            { class: "missing" },
            `${LISTS[name][0]}: ${readable(found.absent?.[name] ?? "not asked for")}.`,
          ),
    ),
  );
}

const unitLink = (name, known) =>
  known.has(name)
    ? el("a", { href: link(known.get(name)) }, name)
    : el("span", { title: "not in this report" }, name);

function effectSection({ page }) {
  const { effects } = page;
  if (!Array.isArray(effects))
    return section("Effects of silencing it", { id: "effects", missing: page.missing.effects });
  return section(
    "Effects of silencing it",
    { id: "effects", note: "Changes of the subject's output per token, in nats, with 95% intervals." },
    effects.map(effectOf),
  );
}

function effectOf(effect) {
  const { replaced_by: by } = effect;
  const rows = Object.entries(effect).filter(([, of]) => of && typeof of === "object" && "loss" in of);
  const nats = (of, name) => {
    const [low, high] = of[`${name}_interval`] ?? [];
    return el(
      "div",
      {},
      el("dt", {}, { loss: "loss", kl: "KL", jsd: "JSD" }[name]),
      el(
        "dd",
        {},
        exact(of[name]),
        typeof low === "number" && el("small", {}, ` [${exact(low)}, ${exact(high)}]`),
      ),
    );
  };
  const moved = (title, tokens) =>
    tokens?.length > 0 &&
    el(
      "div",
      {},
      el("h4", {}, title),
      bars(
        tokens.map((one) => ({ name: token(one.token), value: one.logit, note: exact(one.logit) })),
        title,
      ),
    );
  return [
    el(
      "h3",
      {},
      `With ${by === "zero" ? "zero" : `its ${words(by)}`} in its place`,
      typeof effect.value === "number" && el("small", {}, ` ${exact(effect.value)}`),
    ),
    rows.map(([name, of]) =>
      el(
        "div",
        {},
        el("h4", {}, words(name), el("small", {}, sizeOf(of))),
        el(
          "dl",
          { class: "nats" },
          FIGURES.map((figure) => nats(of, figure)),
        ),
      ),
    ),
    el(
      "div",
      { class: "pair" },
      moved("Logits that rise", effect.raises),
      moved("Logits that fall", effect.lowers),
    ),
  ];
}
