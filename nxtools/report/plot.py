"""Plots of summaries and comparisons: the same rows give the same bytes of SVG.

matplotlib is imported here, when a plot is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nxtools.errors import UsageError
from nxtools.report.estimate import Estimate, Floats
from nxtools.stream import Writer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by all kinds of eyes (Wong 2011, "Points of view: Color blindness"), and by dashes in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
_STEPS = 200  # points of a curve: finer than a line is wide
_UNDATED = {"CreationDate": None, "Creator": None, "Producer": None}
_LEGEND, _HANDLE = 140, 9  # characters beside each other under a plot, and what a line before them takes

Layers = Mapping[int, Estimate]


def draw(
    path: str, *, values: Mapping[str, Floats], layers: Mapping[str, Layers], named: str, share: str
) -> None:
    """Writes a plot of two panels: the share of units above each value, and means by layer.

    values: (units,) of each curve by its label; layers: its means. named: what the values are; share: the
    title of the first panel. OutputError when the file cannot be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot needs matplotlib", hint="pip install 'nxtools[plot]'") from error
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _shares(left, values, named, share)
        _by_layer(right, layers, named)
        handles, names = left.get_legend_handles_labels()
        columns = max(1, min(4, len(names), _LEGEND // (max(map(len, names), default=0) + _HANDLE)))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
        figure.set_figheight(3.6 + 0.17 * (-(-len(names) // columns) - 1))
        save(figure, path)


def _shares(axes: Axes, values: Mapping[str, Floats], named: str, title: str) -> None:
    known = [of_one for of_one in values.values() if len(of_one)]
    if known:
        low, high = min(map(np.min, known)), max(map(np.max, known))
        grid = np.linspace(low, high, _STEPS)
        for place, (label, of_one) in enumerate(values.items()):
            if len(of_one):
                above = 1 - np.searchsorted(np.sort(of_one), grid, side="right") / len(of_one)
                axes.plot(grid, above, label=_plain(f"{label} (n = {len(of_one)})"), **_style(place))
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set(xlabel=_plain(named), ylabel="share of units above", title=title, ylim=(0, 1))
    axes.grid(alpha=0.3)


def _by_layer(axes: Axes, layers: Mapping[str, Layers], named: str) -> None:
    """Series beside each other in a layer, so that their intervals do not hide one another."""
    for place, of_one in enumerate(layers.values()):
        shown = [(layer, one.value, one.margin) for layer, one in of_one.items() if one.value is not None]
        if shown:
            at = [layer + 0.06 * (place - (len(layers) - 1) / 2) for layer, _, _ in shown]
            means = [value for _, value, _ in shown]
            margins = [margin or 0.0 for _, _, margin in shown]
            axes.errorbar(at, means, yerr=margins, marker="o", markersize=3, capsize=2, **_style(place))
    numbers = sorted({layer for of_one in layers.values() for layer in of_one})
    if 0 < len(numbers) <= 12:
        axes.set_xticks(numbers)
        axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set(xlabel="layer", ylabel=_plain(f"mean {named}"), title="by layer, with 95% intervals")
    axes.grid(alpha=0.3)


def _style(place: int) -> dict[str, Any]:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": DASHES[place // len(COLOURS) % len(DASHES)],
        "linewidth": 1.4,
    }


def _plain(text: str) -> str:
    """matplotlib reads mathematics between dollar signs, and hides labels that begin with a low line."""
    return " " * text.startswith("_") + text.replace("$", r"\$")


def save(figure: Figure, path: str) -> None:
    """Without the date and the program's name, which would make each drawing another. OutputError."""
    from matplotlib import rc_context

    kind = Path(path).suffix.lstrip(".")
    nameless = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}, "pdf": _UNDATED}[kind]
    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "nxtools", "svg.fonttype": "none"}):
        figure.savefig(drawn, format=kind, metadata=nameless, dpi=150)
    with Writer(path) as out:
        out.write_line(drawn.getvalue())
