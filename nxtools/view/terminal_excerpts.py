"""A unit's excerpts in the terminal: by kind, beside what was simulated, and what their tokens say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nxtools.stream import Record
from nxtools.view.heat import Value
from nxtools.view.sheet import Sheet
from nxtools.view.visible import readable

if TYPE_CHECKING:
    from rich.text import Text

KINDS = {"top": "Top", "bottom": "Bottom", "spread": "Spread over strengths", "random": "Random"}
STRONGEST = ("top", "bottom")
ROWS = 2  # of an excerpt
TOKENS = 10
TOKEN_COLUMNS = 14


def draw_excerpts(sheet: Sheet, page: Record, count: int) -> None:
    """Of each kind, those of the first set that has any: what explanations are made from comes first."""
    if not page["groups"]:
        return
    sheet.heading("Excerpts")
    sheet.print("  ", sheet.heat.legend())
    first = {group["pick"]: group for group in reversed(page["groups"])}
    for pick, group in reversed(first.items()):
        shown = group["excerpts"][: _wanted(pick, count)]
        _caption(sheet, group, f"{len(shown)} of {len(group['excerpts'])}")
        for excerpt in shown:
            values = excerpt["activations"]
            peak = _peak(page, values, pick)
            sheet.rows([(_short(values, peak), sheet.heat.pieces(excerpt["tokens"], values))], peak, ROWS)


def draw_simulations(sheet: Sheet, page: Record, count: int) -> None:
    """True over simulated activations, on the excerpts that are scored if they were simulated."""
    for place, simulation in enumerate(page["simulations"]):
        number = f", explanation {simulation['explanation'] + 1}" if len(page["explanations"]) > 1 else ""
        title = f"True and simulated by {readable(simulation['by']['name'])}{number}"
        if "failed" in simulation:
            sheet.heading(title)
            sheet.paragraph(f"failed: {simulation['failed']}", "red")
            continue
        found = _simulated(page, str(place))
        if not found:
            continue
        change, how = _to_scale(page["explanations"][simulation["explanation"]], simulation)
        sheet.heading(title, *how)
        for group in found:
            _caption(sheet, group, "")
            for excerpt in group["excerpts"][: _wanted(group["pick"], count)]:
                said = [
                    None if value is None else change(value) for value in excerpt["simulated"][str(place)]
                ]
                _pair(sheet, page, group["pick"], excerpt, said)


def _pair(sheet: Sheet, page: Record, pick: str, excerpt: Record, said: list[Value]) -> None:
    count = min(len(said), len(excerpt["activations"]))
    tokens, true, said = excerpt["tokens"][:count], excerpt["activations"][:count], said[:count]
    peak, expected = _peak(page, true, pick), _peak(page, said, pick)
    parts = [
        (f"true {_short(true, peak)}", sheet.heat.pieces(tokens, true)),
        (f"sim. {_short(said, expected)}", sheet.heat.pieces(tokens, said)),
    ]
    sheet.rows(parts, peak, ROWS)


def _simulated(page: Record, place: str) -> list[Record]:
    """The groups with what was simulated of them: held-out ones, if there are any."""
    groups = [
        {**group, "excerpts": [one for one in group["excerpts"] if one["simulated"].get(place)]}
        for group in page["groups"]
    ]
    found = [group for group in groups if group["excerpts"]]
    return [group for group in found if group["set"] == "held-out"] or found


def _to_scale(told: Record, simulation: Record) -> tuple[Callable[[float], float], list[str]]:
    """How simulated values become activations, and what is said about it."""
    line = simulation["line"] or {}
    slope, intercept = line.get("slope"), line.get("intercept")
    if told["scale"] is not None or slope is None or intercept is None:
        return float, []
    how = f"brought to its scale by {slope:.3g}·x {intercept:+.3g}, fitted on {line['set']}"
    return lambda value: slope * value + intercept, [how]


def draw_token_means(sheet: Sheet, page: Record) -> None:
    tokens = page["tokens"]
    for side in ("highest", "lowest"):
        if tokens[side]:
            where = f"in {tokens['excerpts']} evidence excerpts"
            sheet.heading(f"Tokens of the {side} mean", where, "mean ± 95%, times seen")
            sheet.columns(_token(sheet, row) for row in tokens[side][:TOKENS])


def _token(sheet: Sheet, row: Record) -> Text:
    token = sheet.heat.drawn(sheet.heat.pieces([row["token"]], [row["mean"]], TOKEN_COLUMNS))
    token.append(" " * max(0, TOKEN_COLUMNS - token.cell_len))
    return token.append(f" {row['mean']:6.3g} ±{row['margin']:.2g}").append(f", {row['n']}", "dim")


def _caption(sheet: Sheet, group: Record, count: str) -> None:
    kind = KINDS.get(group["pick"], group["pick"])
    sheet.note(f"{kind}, {group['set']}  {count}".rstrip())


def _wanted(pick: str, count: int) -> int:
    return count if pick in STRONGEST else max(1, count // 2)


def _peak(page: Record, values: Sequence[Value], pick: str) -> int:
    """Where the side that is looked for is strongest."""
    sign = "-" if pick == "bottom" else page["unit"].get("sign", "+")
    height = {"+": 1, "-": -1}.get(sign)
    known = [(abs(v) if height is None else v * height, at) for at, v in enumerate(values) if v is not None]
    return max(known, default=(0.0, 0))[1]


def _short(values: Sequence[Value], place: int) -> str:
    value = values[place] if values else None
    return "–" if value is None else f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"
