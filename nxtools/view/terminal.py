"""A unit in the terminal: what `page` has of it, in as many columns as there are.

Nothing that came from a model or a file reaches the terminal as it is: see `visible`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nxtools.stream import Record
from nxtools.view.bars import Axis, histogram
from nxtools.view.heat import DARK, LIGHT, Heat
from nxtools.view.sheet import Sheet, shortened
from nxtools.view.terminal_excerpts import draw_excerpts, draw_simulations, draw_token_means
from nxtools.view.terminal_weights import draw_connections, draw_effects
from nxtools.view.visible import readable

if TYPE_CHECKING:
    from rich.console import Console

LABEL = 18
EXCERPTS = 4  # of each kind
HISTOGRAM_ROWS = 4


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
        draw_excerpts(self, self.page, self.count)
        draw_simulations(self, self.page, self.count)
        draw_token_means(self, self.page)
        draw_connections(self, self.page)
        draw_effects(self, self.page)
        self._missing()
        self.print()

    def _title(self) -> None:
        from rich.text import Text

        unit, (state, why) = self.page["unit"], self.page["state"]
        about = [str(unit[key]) for key in ("subject", "site") if unit.get(key) not in (None, "")]
        about.append(f"sign {unit.get('sign', '+')}")
        name = Text(f"Unit {readable(self.page['name'])}", "bold")
        said = Text(shortened(readable(" · ".join(about)), self.width - name.cell_len - 2), "dim")
        self.print(("─" * self.width, "dim"))
        self.print(name, " " * max(2, self.width - name.cell_len - said.cell_len), said)
        if state:
            self.paragraph(f"{state}: {why}", "bold red", indent=0)

    def _explanation(self, told: Record, place: int) -> None:
        by = told["by"]
        settings = [f"{key} {value}" for key, value in by["settings"].items() if value]
        count = len(self.page["explanations"])
        number = f" {place + 1} of {count}" if count > 1 else ""
        self.heading(f"Explanation{number} by {readable(by['name'])}", *map(readable, settings))
        if "error" in told:
            self.paragraph(f"failed: {told['error']}", "red")
        else:
            self.paragraph(told["text"])
        if told["pattern"] and told["pattern"] != told["text"]:
            self.note(f"as a pattern: {told['pattern']}")
        for note in told["notes"]:
            self.note(note)
        self._revision(told.get("revision"))
        for score in told["scores"]:
            self._score(score)

    def _score(self, score: Record) -> None:
        by = f", by {score['simulator']}" if score["simulator"] else ""
        self.print()
        self.note(f"{score['method']}{by}")
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
                why = readable(f"      – absent: {figure.get('why', 'no reason given')}")
                self.print(start, (shortened(why, self.width - LABEL - 4), "dim"))
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
            self.note(f"baselines of {method}: {', '.join(filter(None, names))}")
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
        self.note(f"{side} of excerpts, their number on a log scale; the fullest has {max(counts):,}")
        for row in histogram(shown, HISTOGRAM_ROWS):
            self.print("  ", (row, "cyan"))
        # Edges are magnitudes on both sides.
        under, sign = ("below ", "") if side == "maxima" else ("above ", "-")
        edges = [f"{sign}{edge:.3g}" for edge in found["edges"]]
        first, last = under + edges[0] if len(shown) == len(counts) else edges[-len(shown)], edges[-1]
        self.print("  ", (first + last.rjust(2 * len(shown) - len(first)), "dim"))

    def _missing(self) -> None:
        if self.page["missing"]:
            self.heading("Not there")
            for sentence in dict.fromkeys(self.page["missing"].values()):
                self.note(sentence)


def _scale(page: Record) -> float:
    """The strongest activation that is shown or known of: one scale for everything."""
    values = [abs(page["stats"].get(name, 0.0)) for name in ("max", "min")]
    for group in page["groups"]:
        for excerpt in group["excerpts"]:
            values += [abs(value) for value in excerpt["activations"] if value is not None]
    return float(max(values, default=0.0))


def _figures(page: Record) -> Iterator[float]:
    """All scores that are drawn, and where their intervals begin."""
    drawn = [
        figure for told in page["explanations"] for s in told["scores"] for figure in s.get("figures", [])
    ]
    drawn += [
        figure for each in page["baselines"] for s in each["scores"] for figure in s.get("figures", [])[:1]
    ]
    for figure in drawn:
        yield from (value for value in (figure["value"], figure["low"]) if value is not None)


def _number(key: str, value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2%}" if key.startswith("active") else f"{value:.4g}"
