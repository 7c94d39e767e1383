"""The plot of ablation scores against correlations, a point for each unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nxtools.report.plot import save

FORMATS = (".svg", ".png", ".pdf")
LOWEST = -1.0  # scores below it are drawn at the edge


def plot(points: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """points: by series (correlation, ablation score) of each unit, top and random excerpts.

    OutputError when the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, linestyle="--")
    for series, found in points.items():
        x, y = zip(*found, strict=True)
        label = f"{series} ({len(found)})"
        axes.scatter(x, [max(value, LOWEST) for value in y], s=8, alpha=0.5, linewidths=0, label=label)
    axes.set_xlabel("correlation, top and random")
    axes.set_ylabel("ablation score, top and random")
    axes.set_ylim(LOWEST - 0.05, 1.05)
    if points:
        axes.legend()
    save(figure, str(path))
