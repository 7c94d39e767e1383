"""A unit in the terminal: what `page` has of it, in as many columns as there are.

Nothing that came from a model or a file reaches the terminal as it is: see `visible`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nxtools.stream import Record
from nxtools.view.bars import Axis, histogram
from nxtools.view.heat import DARK, LIGHT, Heat, Value
from nxtools.view.sheet import Sheet, shortened
from nxtools.view.visible import readable, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

LABEL = 18
PICKS = {"top": "Top", "bottom": "Bottom", "spread": "Spread over strengths", "random": "Random"}
EXCERPTS = 4  # of each kind
ROWS = 2  # of an excerpt
HISTOGRAM_ROWS = 4
TOKENS = 10


def drawn(page: Record, *, to_file: bool = False, light: bool = False, count: int | None = None) -> str:
    """A unit for standard output. It has no colours under NO_COLOR, and none where that is no terminal.

    light: the terminal's background; count: excerpts of each kind.
    """
    from rich.console import Console

    plain: dict[str, Any] = {"color_system": None, "force_terminal": False} if to_file else {}
    console = Console(highlight=False, markup=False, emoji=False, legacy_windows=False, **plain)
    with console.capture() as captured:
        UnitSheet(page, console, light=light, count=count or EXCERPTS).draw()
    return captured.get()


class UnitSheet(Sheet):
    """One unit on a console."""

    def __init__(self, page: Record, console: Console, *, light: bool, count: int) -> None:
        coloured = console.color_system is not None and not console.no_color
        super().__init__(console, Heat((LIGHT if light else DARK) if coloured else None, _scale(page)))
        self.page = page
        self.count = count
        self.axis = Axis.of_scores(list(_figures(page)), self.width - LABEL - 31)

    def draw(self) -> None:
        self._title()
        for place, told in enumerate(self.page["explanations"]):
            self._explanation(told, place)
        self._baselines()
        self._statistics()
        self._excerpts()
        self._simulations()
        self._tokens()
        self._effects()
        self._missing()
        self.print()

    def _title(self) -> None:
        from rich.text import Text

        unit, (state, why) = self.page["unit"], self.page["state"]
        about = [str(unit[key]) for key in ("subject", "site") if unit.get(key) not in (None, "")]
        about.append(f"sign {unit.get('sign', '+')}")
        name, said = (
            Text(f"Unit {readable(self.page['name'])}", "bold"),
            Text(readable(" · ".join(about)), "dim"),
        )
        self.print(("─" * self.width, "dim"))
        self.print(name, " " * max(2, self.width - name.cell_len - said.cell_len), said)
        if state:
            self.paragraph(f"{state}: {why}", "bold red", indent=0)

    def _explanation(self, told: Record, place: int) -> None:
        by = told["by"]
        settings = [f"{key} {value}" for key, value in by["settings"].items()]
        self.heading(f"Explanation by {readable(by['name'])}", *map(readable, settings))
        if "error" in told:
            self.paragraph(f"failed: {told['error']}", "red")
        else:
            self.paragraph(told["text"])
        if told["pattern"] and told["pattern"] != told["text"]:
            self.paragraph(f"as a pattern: {told['pattern']}", "dim")
        for note in told["notes"]:
            self.paragraph(note, "dim")
        self._revision(told.get("revision"))
        for score in told["scores"]:
            self._score(score)

    def _score(self, score: Record) -> None:
        named = (
            f"{readable(score['method'])}, by {readable(score['simulator'])}" if score["simulator"] else ""
        )
        self.print()
        self.print(("  " + (named or readable(score["method"])), "dim"))
        if "error" in score:
            self.paragraph(f"failed: {score['error']}", "red")
        else:
            self._figures([(figure["name"].replace("_", " "), figure) for figure in score["figures"]])

    def _figures(self, rows: Sequence[tuple[str, Record]]) -> None:
        """Each with its interval, in numbers and on one axis."""
        for label, figure in rows:
            value, low, high = figure["value"], figure["low"], figure["high"]
            start = f"    {shortened(readable(label), LABEL):{LABEL}}"
            if value is None:
                self.print(
                    start, (f"      – absent: {readable(figure.get('why', 'no reason given'))}", "dim")
                )
                continue
            interval = f"{low:6.3f} to {high:.3f}" if low is not None and high is not None else ""
            self.print(
                start, (f"{value:7.3f}", "bold"), f" {interval:16}  ", self.axis.interval(value, low, high)
            )
        if any(figure["value"] is not None for _, figure in rows):
            self.print(" " * (LABEL + 30), (self.axis.labels(), "dim"))

    def _baselines(self) -> None:
        rows = []
        for each in self.page["baselines"]:
            for score in each["scores"]:
                label = f"{each['name']}".replace("-", " ")
                method = score["method"]
                if "error" in score:
                    rows.append(
                        (method, label, {"value": None, "low": None, "high": None, "why": score["error"]})
                    )
                elif score["figures"]:
                    rows.append((method, label, score["figures"][0]))
        for method in dict.fromkeys(method for method, _, _ in rows):
            of_method = [(label, figure) for found, label, figure in rows if found == method]
            names = dict.fromkeys(str(figure.get("name", "")).replace("_", " ") for _, figure in of_method)
            self.print()
            self.print(
                (f"  baselines of {readable(method)}: {readable(', '.join(filter(None, names)))}", "dim")
            )
            self._figures(of_method)

    def _revision(self, revision: Record | None) -> None:
        if revision is None:
            return
        self.print()
        self.paragraph(f"Revised: version {revision['current']} stands. {revision['why']}")
        for place, version in enumerate(revision["versions"]):
            mark = "●" if place == revision["current"] else " "
            made = f"round {version['round']}, {version['made'] or 'the explanation that was revised'}"
            self.print(f"  {mark} ", (f"{place}", "bold"), f" {shortened(readable(made), self.width - 8)}")

    def _statistics(self) -> None:
        stats = self.page["stats"]
        if stats:
            self.heading("Statistics")
            line = ""
            for key, value in stats.items():
                cell = f"{readable(key).replace('_', ' ')} {_number(key, value)}"
                if line and len(line) + 3 + len(cell) > self.width:
                    self.print(line)
                    line = ""
                line += f"{'   ' if line else '  '}{cell}"
            self.print(line)
        for side, found in self.page["histogram"].items():
            self._histogram(side, found)

    def _histogram(self, side: str, found: Record) -> None:
        counts = [found["below"], *found["counts"]]
        shown = counts[-((self.width - 4) // 2) :]
        self.print()
        self.print(
            (f"  {side} of excerpts, their number on a log scale; the fullest has {max(counts):,}", "dim")
        )
        for row in histogram(shown, HISTOGRAM_ROWS):
            self.print("  ", (row, "cyan"))
        first = (
            f"below {found['edges'][0]:.3g}"
            if len(shown) == len(counts)
            else f"{found['edges'][-len(shown)]:.3g}"
        )
        last = f"{found['edges'][-1]:.3g}"
        self.print("  ", (first + last.rjust(2 * len(shown) - len(first)), "dim"))

    def _excerpts(self) -> None:
        if not self.page["groups"]:
            return
        self.print()
        self.print(("Excerpts", "bold"), "  ", self.heat.legend())
        picks = dict.fromkeys(group["pick"] for group in self.page["groups"])
        for pick in picks:
            group = next(group for group in self.page["groups"] if group["pick"] == pick)
            wanted = self.count if pick in ("top", "bottom") else max(1, self.count // 2)
            shown = group["excerpts"][:wanted]
            title = f"{PICKS.get(pick, readable(pick))}, {readable(group['set'])}"
            self.print(("  " + title, "dim"), (f"  {len(shown)} of {len(group['excerpts'])}", "dim"))
            for excerpt in shown:
                self._excerpt(excerpt, pick)

    def _excerpt(self, excerpt: Record, pick: str) -> None:
        values = excerpt["activations"]
        peak = self._peak(values, pick)
        pieces = self.heat.pieces(excerpt["tokens"], values)
        self.rows([(_short(values, peak), pieces)], peak, ROWS)

    def _peak(self, values: Sequence[Value], pick: str) -> int:
        """Where the side that is looked for is strongest."""
        sign = "-" if pick == "bottom" else self.page["unit"].get("sign", "+")
        height = {"+": 1, "-": -1}.get(sign)
        known = [
            (abs(v) if height is None else v * height, at) for at, v in enumerate(values) if v is not None
        ]
        return max(known, default=(0.0, 0))[1]

    def _simulations(self) -> None:
        for place, simulation in enumerate(self.page["simulations"]):
            told = self.page["explanations"][simulation["explanation"]]
            title = f"True and simulated by {readable(simulation['by']['name'])}"
            if "failed" in simulation:
                self.heading(title)
                self.paragraph(f"failed: {simulation['failed']}", "red")
                continue
            found = list(self._simulated(str(place)))
            if not found:
                continue
            change, how = _to_scale(told, simulation, self.heat.scale)
            self.heading(title, *how)
            for group, excerpt in found:
                said = [None if v is None else change(v) for v in excerpt["simulated"][str(place)]]
                count = min(len(said), len(excerpt["activations"]))
                tokens, true, said = excerpt["tokens"][:count], excerpt["activations"][:count], said[:count]
                peak, expected = self._peak(true, group["pick"]), self._peak(said, group["pick"])
                parts = [
                    (f"true {_short(true, peak)}", self.heat.pieces(tokens, true)),
                    (f"sim. {_short(said, expected)}", self.heat.pieces(tokens, said)),
                ]
                self.print((f"  {readable(group['pick'])}, {readable(group['set'])}", "dim"))
                self.rows(parts, peak, ROWS)

    def _simulated(self, place: str) -> Iterator[tuple[Record, Record]]:
        """A few excerpts of each group that were simulated."""
        for group in self.page["groups"]:
            found = [excerpt for excerpt in group["excerpts"] if excerpt["simulated"].get(place)]
            yield from ((group, excerpt) for excerpt in found[: max(1, self.count // 2)])

    def _tokens(self) -> None:
        tokens = self.page["tokens"]
        for side in ("highest", "lowest"):
            if tokens[side]:
                self.heading(
                    f"Tokens of the {side} mean",
                    f"in {tokens['excerpts']} evidence excerpts",
                    "mean ± 95%, times seen",
                )
                self.columns(self._token(row) for row in tokens[side][:TOKENS])

    def _token(self, row: Record) -> Text:
        token = self.heat.drawn(self.heat.pieces([row["token"]], [row["mean"]]))
        token.pad_right(max(0, 14 - token.cell_len))
        return token.append(f" {row['mean']:6.3g} ±{row['margin']:.2g}").append(f", {row['n']}", "dim")

    def _effects(self) -> None:
        effects = self.page["effects"]
        for effect in effects if isinstance(effects, list) else []:
            self.heading(f"What silencing it does (by its {readable(str(effect.get('replaced_by', '?')))})")
            for name in ("raises", "lowers"):
                tokens = effect.get(name)
                if isinstance(tokens, list) and tokens:
                    said = "  ".join(
                        f"{visible(str(t.get('token', '')))} {t.get('logit', 0):+.2g}"
                        for t in tokens[:TOKENS]
                    )
                    self.paragraph(f"{name} {said}")

    def _missing(self) -> None:
        if self.page["missing"]:
            self.heading("Not there")
            for sentence in dict.fromkeys(self.page["missing"].values()):
                self.paragraph(sentence, "dim")


def _scale(page: Record) -> float:
    """The strongest activation that is shown or known of: one scale for everything."""
    values = [abs(page["stats"].get(name, 0.0)) for name in ("max", "min")]
    for group in page["groups"]:
        for excerpt in group["excerpts"]:
            values += [abs(value) for value in excerpt["activations"] if value is not None]
    return float(max(values, default=0.0))


def _figures(page: Record) -> Iterator[float]:
    """All scores, and where their intervals begin."""
    for entry in [*page["explanations"], *page["baselines"]]:
        for score in entry["scores"]:
            for figure in score.get("figures", []):
                yield from (value for value in (figure["value"], figure["low"]) if value is not None)


def _to_scale(told: Record, simulation: Record, scale: float) -> tuple[Any, list[str]]:
    """How simulated values become activations, and what is said about it."""
    line = simulation["line"] or {}
    slope, intercept = line.get("slope"), line.get("intercept")
    if told["scale"] is not None or slope is None:
        return float, []
    how = f"brought to its scale by {slope:.3g}·x {intercept:+.3g}, fitted on {line['set']}"
    return lambda value: slope * value + intercept, [how]


def _short(values: Sequence[Value], place: int) -> str:
    value = values[place] if values else None
    return "–" if value is None else f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"


def _number(key: str, value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2%}" if key.startswith("active") else f"{value:.4g}"
