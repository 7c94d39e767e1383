"""What weights and ablation say of a unit, in the terminal: a line for each list, as much of it as fits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nxtools.stream import Record
from nxtools.view.scores import reason
from nxtools.view.sheet import Sheet
from nxtools.view.visible import readable, visible

LABEL = 15
SIGNS = ("positive", "negative")
TOKEN_LISTS = {"output_tokens": ("promotes", "suppresses"), "input_tokens": ("driven by", "held down by")}
UNIT_LISTS = ("upstream", "downstream")
FIGURES = ("loss", "kl", "jsd")


def draw_connections(sheet: Sheet, page: Record) -> None:
    found = page["connections"]
    if not isinstance(found, dict):
        return
    sheet.heading("Connections", "by the subject's weights alone")
    if "error" in found:
        sheet.paragraph(f"failed: {reason(found['error'])}", "red")
    for name, labels in TOKEN_LISTS.items():
        for sign, label in zip(SIGNS, labels, strict=True):
            _list(sheet, label, _weights(_under(_under(found, name), sign), "token"))
    for name in UNIT_LISTS:
        inputs = _under(found, name)
        for place, sides in inputs.items() if isinstance(inputs, dict) else ():
            for sign in SIGNS:
                which = name if len(inputs) == 1 else f"{name}, {place}"
                _list(sheet, f"{which}" if sign == SIGNS[0] else "", _weights(_under(sides, sign), "unit"))
    absent = found.get("absent")
    for name, why in absent.items() if isinstance(absent, dict) else ():
        sheet.paragraph(f"{name.replace('_', ' ')}: absent, {why}", "dim")


def draw_effects(sheet: Sheet, page: Record) -> None:
    found = page["effects"]
    for effect in found if isinstance(found, list) else []:
        if not isinstance(effect, dict):
            continue
        by = readable(str(effect.get("replaced_by", "?")))
        sheet.heading(
            "Silenced", f"replaced by its {by}" if by == "mean" else f"replaced by {by}", "per token"
        )
        if "error" in effect:
            sheet.paragraph(f"failed: {reason(effect['error'])}", "red")
        for figures in ("top_and_random", "random_only"):
            said = [_figure(_under(effect, figures), name) for name in FIGURES]
            _list(sheet, figures.replace("_", " "), filter(None, said))
        for name in ("raises", "lowers"):
            _list(sheet, name, _weights(effect.get(name), "token", "logit"))


def _figure(found: Any, name: str) -> str:
    value, pair = _under(found, name), _under(found, f"{name}_interval")
    if not isinstance(value, int | float):
        return ""
    low, high = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
    known = isinstance(low, int | float) and isinstance(high, int | float)
    interval = f" ({low:.2g} to {high:.2g})" if known else ""
    return f"{name} {value:.3g}{interval}"


def _weights(rows: Any, name: str, number: str = "weight") -> Iterable[str]:
    for row in rows if isinstance(rows, list) else []:
        value = _under(row, number)
        if isinstance(value, int | float):
            yield f"{visible(str(_under(row, name)))} {value:+.2g}"


def _list(sheet: Sheet, label: str, cells: Iterable[str]) -> None:
    """A line; cells that no longer fit are left out. Nothing where there are none."""
    from rich.cells import cell_len

    line, used = "", LABEL + 4
    for cell in cells:
        used += cell_len(cell) + 3
        if line and used > sheet.width:
            break
        line += cell + "   "
    if line:
        sheet.print(("  " + f"{label:{LABEL}}  ", "dim"), line)


def _under(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
