"""How a whole run was judged: mean figures by series, with intervals from reweighted units and documents."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.judge.figures import DECILES
from nxtools.score.summary import Mean, aligned, drawn_weights

Floats = NDArray[np.float64]


class JudgeSummary:
    """Takes scores one by one, in any order. chance: what a judge that guesses reaches, by figure."""

    def __init__(
        self, method: str, figures: Sequence[str], series: Sequence[str], chance: Mapping[str, float]
    ) -> None:
        self.method, self.figures, self.series, self.chance = method, figures, series, chance
        self.failed: Counter[str] = Counter()
        self.judged: Counter[str] = Counter()
        self.unjudged: Counter[str] = Counter()
        self._means: dict[tuple[str, str], Mean] = defaultdict(Mean)
        self._documents: dict[str, set[str]] = defaultdict(set)

    def add(
        self,
        series: str,
        unit: str,
        values: Mapping[str, float],
        replicates: Mapping[str, Floats],
        documents: Iterable[str],
        judged: int,
        unjudged: int,
    ) -> None:
        """One unit. judged, unjudged: of its excerpts."""
        weights = drawn_weights([unit], "unit")
        for name, value in values.items():
            self._means[series, name].add([value], weights, replicates[name][None, :])
        self._documents[series].update(documents)
        self.judged[series] += judged
        self.unjudged[series] += unjudged

    def fail(self, series: str, unjudged: int = 0) -> None:
        """A unit that could not be judged at all."""
        self.failed[series] += 1
        self.unjudged[series] += unjudged

    def mean(self, series: str, figure: str) -> Mean:
        return Mean([self._means[series, figure]], len(self._documents[series]))

    def as_dict(self) -> dict[str, Any]:
        return {
            series: {
                **{figure: self.mean(series, figure).as_dict() for figure in self.figures},
                **{name: mean.as_dict() for name in DECILES if (mean := self.mean(series, name)).values},
                "failed": self.failed[series],
                "excerpts": self.judged[series],
                "failed_excerpts": self.unjudged[series],
            }
            for series in self._there()
        }

    def _there(self) -> list[str]:
        return [one for one in self.series if self.judged[one] or self.failed[one]]

    def lines(self) -> list[str]:
        """For people: a column for each series that was there."""
        there = self._there()
        if not there:
            return []
        rows = [[f"{self.method}, mean ± 95% (units)", *there]]
        for figure in self.figures:
            chance = f" (chance {self.chance[figure]:.2g})" if figure in self.chance else ""
            cells = [_cell(self.mean(series, figure)) for series in there]
            rows.append([figure.replace("_", " ").replace("auroc", "AUROC") + chance, *cells])
        for decile, name in enumerate(DECILES, start=1):
            means = [self.mean(series, name) for series in there]
            if any(len(mean.values) for mean in means):
                weakest = {1: ", the weakest", 10: ", the strongest"}.get(decile, "")
                rows.append([f"recall, decile {decile}{weakest}", *map(_cell, means)])
        rows.append(["excerpts judged", *(f"{self.judged[one]:,}" for one in there)])
        rows.append(["excerpts failed", *(f"{self.unjudged[one]:,}" for one in there)])
        rows.append(["units failed", *(f"{self.failed[one]:,}" for one in there)])
        return aligned(rows)


def _cell(mean: Mean) -> str:
    value, margin = mean.value, mean.margin
    if value is None:
        return "absent"
    spread = "" if margin is None else f" ±{margin:.3f}"
    return f"{value:.3f}{spread} ({len(mean.values)})"
