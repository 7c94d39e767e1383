"""Texts in the terminal: under each token the units that fire most, and a unit on many sentences."""

from __future__ import annotations

from typing import Any

from nxtools.stream import Record
from nxtools.view.heat import DARK, LIGHT, Heat, Piece
from nxtools.view.sheet import Sheet, shortened
from nxtools.view.visible import readable, visible

TOKEN, UNIT = 16, 10  # columns
SHOWN = 10  # units that fire most in the whole text
ROWS = 2  # of a text beside a unit
LINES = 40  # of a sentence


def drawn(found: Record, *, to_file: bool = False, light: bool = False) -> str:
    """What `Watch.step` or `trying` found, for standard output: see `terminal.drawn`."""
    from rich.console import Console

    plain: dict[str, Any] = {"color_system": None, "force_terminal": False} if to_file else {}
    console = Console(highlight=False, markup=False, emoji=False, legacy_windows=False, **plain)
    coloured = console.color_system is not None and not console.no_color
    palette = (LIGHT if light else DARK) if coloured else None
    with console.capture() as captured:
        sheet = Sheet(console, Heat(palette, 1.0))
        sheet.print(("─" * sheet.width, "dim"))
        (_text if "text" in found else _sentences)(sheet, found)
        sheet.print()
    return captured.get()


def _text(sheet: Sheet, found: Record) -> None:
    sheet.paragraph(found["text"], "bold", indent=0)
    if "error" in found:
        sheet.paragraph(f"failed: {found['error']['message']}", "red")
        return
    units, tokens = found["units"], found["tokens"]
    sheet.print((f"{len(tokens)} tokens, {found['of']:,} units that ever fired", "dim"))
    sheet.print()
    sheet.print(("Shares of each unit's recorded maximum", "dim"))
    sheet.print(sheet.heat.legend())
    sheet.print()
    head = f"{'token':{TOKEN}}{'unit':{UNIT}} share  score  explanation"
    sheet.print((head, "dim"))
    for place, (token, listed) in enumerate(zip(tokens, found["under"], strict=True)):
        strongest = units[listed[0]]["shares"][place] if listed else None
        (piece,) = sheet.heat.pieces([token], [strongest])
        _under(sheet, piece, [(units[unit], units[unit]["shares"][place]) for unit in listed])
    sheet.heading("Units that fire most", f"of {found['of']:,}")
    for place in found["strongest"][:SHOWN]:
        unit = units[place]
        at = _peak(unit, unit["sign"])
        sheet.print()
        _unit(sheet, unit, unit["shares"][at], 2)
        sheet.rows([(f"{unit['values'][at]:.2f}", sheet.heat.pieces(tokens, unit["shares"]))], at, ROWS)


def _under(sheet: Sheet, token: Piece, listed: list[tuple[Record, float]]) -> None:
    """A token, and beside it its units."""
    from rich.text import Text

    for place, (unit, share) in enumerate(listed or [({}, 0.0)]):
        first = sheet.heat.drawn([token]) if place == 0 else Text()
        first.truncate(TOKEN - 1, overflow="ellipsis")
        first.pad_right(TOKEN - first.cell_len)
        if unit:
            sheet.print(first, *_facts(unit, share, sheet.width - TOKEN))
        else:
            sheet.print(first, ("no unit fires, or the position is left out", "dim"))


def _unit(sheet: Sheet, unit: Record, share: float, indent: int) -> None:
    sheet.print(" " * indent, *_facts(unit, share, sheet.width - indent))


def _facts(unit: Record, share: float, width: int) -> list[Any]:
    """Name, share of the maximum, score, and as much of the explanation as fits."""
    score = unit["score"]
    said = "  –  " if score is None else f"{score['value']:5.2f}"
    name = f"{readable(unit['address']):{UNIT}}"
    start = f"{name}{share:6.2f}  {said}  "
    text = "no explanation" if unit["text"] is None else readable(unit["text"])
    rest = shortened(text, max(10, width - len(start)))
    return [(name, "bold"), start[len(name) :], (rest, "dim" if unit["text"] is None else "")]


def _sentences(sheet: Sheet, found: Record) -> None:
    if "error" in found:
        sheet.paragraph(f"failed: {found['error']['message']}", "red")
        return
    unit = found["unit"]
    score = unit["score"]
    said = "" if score is None else f", {score['name'].replace('_', ' ')} {score['value']:.3f}"
    sheet.print((f"Unit {readable(unit['address'])}", "bold"), (f"  sign {unit['sign']}{said}", "dim"))
    sheet.paragraph(unit["text"] or "It has no explanation.")
    if "unsaid" in found:
        sheet.paragraph(f"What is expected cannot be shown: {found['unsaid']}.", "dim")
    sheet.print()
    sheet.print((f"Shares of its recorded maximum, {unit['max']:.4g}", "dim"))
    sheet.print(sheet.heat.legend())
    strongest = abs(unit["max"])
    for sentence in found["sentences"]:
        sheet.print()
        peak = _peak(sentence, unit["sign"])
        sheet.print(("  " + _strongest(sentence, peak), "dim"))
        parts = [("true", sheet.heat.pieces(sentence["tokens"], sentence["shares"]))]
        if "expected" in sentence:
            shares = [None if v is None else v / strongest for v in sentence["expected"]]
            parts.append(("said", sheet.heat.pieces(sentence["tokens"], shares)))
        sheet.rows(parts, peak, LINES)


def _strongest(sentence: Record, peak: int) -> str:
    value = sentence["values"][peak]
    if value is None:
        return "its only token is left out"
    start = f"strongest {value:.3g} ({sentence['shares'][peak]:.2f}) at {visible(sentence['tokens'][peak])}"
    return f"{start}, said {sentence['expected'][peak]:.3g}" if "expected" in sentence else start


def _peak(found: Record, sign: str) -> int:
    """Where a unit is strongest on the side that counts."""
    turned = {"+": 1, "-": -1}.get(sign)
    known = [
        (abs(share) if turned is None else turned * share, -place)
        for place, share in enumerate(found["shares"])
        if share is not None
    ]
    return -max(known, default=(0.0, 0))[1]
