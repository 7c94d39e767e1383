"""How a whole run did by ablation: the pooled ratio, the median and how many units can be told from rounding.

The pooled ratio weighs units by what they do to the output, the median does not. Units and documents are
reweighted at once, as in `summary`, whose weights these are.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score.ablation import FIGURES, IN_NOISE, Ablated, between, reweighted, sums
from nxtools.score.bootstrap import student
from nxtools.score.figures import Figure, short
from nxtools.score.replicates import DRAWS
from nxtools.score.summary import aligned, drawn_weights

Floats = NDArray[np.float64]

MAIN = "top_and_random"
_Z = 1.959964


class Pooled:
    """One figure over some units. documents: how many they share."""

    def __init__(self, parts: Iterable[Pooled] = (), documents: int = 0) -> None:
        self.documents = documents
        self.values = array("d")
        self.absent: Counter[str] = Counter()
        self._sums = np.zeros(2)  # Σ JSD to the simulation and to the mean, over units and excerpts
        self._drawn = np.zeros((2, DRAWS))  # the same with units and documents reweighted
        self._scores: list[NDArray[np.float32]] = []  # (draws,) by unit: with its documents reweighted
        self._weights: list[NDArray[np.float32]] = []  # (draws,) of the units
        for part in parts:
            self.values.extend(part.values)
            self.absent.update(part.absent)
            self._sums += part._sums
            self._drawn += part._drawn
            self._scores += part._scores
            self._weights += part._weights

    def add(self, ablated: Ablated, figure: str, value: float) -> None:
        both, drawn = sums(ablated, figure), reweighted(ablated, figure)
        weights = drawn_weights([ablated.name], "unit")[0]
        self.values.append(value)
        self._sums += both.sum(1)
        self._drawn += weights * drawn
        self._scores.append((1 - drawn[0] / drawn[1]).astype(np.float32))
        self._weights.append(weights.astype(np.float32))

    @property
    def is_there(self) -> bool:
        return bool(self.values or self.absent)

    @property
    def ratio(self) -> float | None:
        """1 - Σ Σ JSD to the simulation / Σ Σ JSD to the mean, over units and excerpts."""
        return 1.0 - float(self._sums[0] / self._sums[1]) if self.values else None

    @property
    def median(self) -> float | None:
        return float(np.median(np.frombuffer(self.values))) if self.values else None

    def _count(self) -> int:
        return min(len(self.values), self.documents)

    @property
    def ratio_interval(self) -> tuple[float, float] | None:
        """95%; None for fewer than two units or two documents, as that of the median."""
        n, ratio = self._count(), self.ratio
        if n < 2 or ratio is None:
            return None
        # Exponential weights give the mean of n values (n - 1) / (n + 1) of its variance.
        widen = math.sqrt((n + 1) / (n - 1))
        low, high = between(1 - ratio, self._drawn[0], self._drawn[1], n - 1)
        lost = 1 - ratio
        if lost <= 0:
            return low, high
        return 1 - lost * ((1 - low) / lost) ** widen, 1 - lost * ((1 - high) / lost) ** widen

    @property
    def median_interval(self) -> tuple[float, float] | None:
        n, median = self._count(), self.median
        if n < 2 or median is None:
            return None
        drawn = _weighted_medians(np.stack(self._scores), np.stack(self._weights))
        half = student(n - 1) * float(np.std(drawn, ddof=1)) * math.sqrt((n + 1) / (n - 1))
        return median - half, median + half

    @property
    def above_noise(self) -> tuple[int, int]:
        """How many units can be told from rounding, out of how many that were ablated."""
        return len(self.values), len(self.values) + self.absent[IN_NOISE]

    def as_dict(self) -> dict[str, Any]:
        above, units = self.above_noise
        out: dict[str, Any] = {
            "units": len(self.values),
            "pooled": _short(self.ratio),
            "median": _short(self.median),
            "above_noise": short(above / units) if units else None,
        }
        if units:
            out["above_noise_interval"] = [short(bound) for bound in share_interval(above, units)]
        for name, interval in (("pooled", self.ratio_interval), ("median", self.median_interval)):
            if interval is not None:
                out[f"{name}_interval"] = [short(bound) for bound in interval]
        if self.absent:
            out["absent"] = dict(sorted(self.absent.items()))
        return out


def _weighted_medians(values: NDArray[np.float32], weights: NDArray[np.float32]) -> Floats:
    """In every draw the value at which half of the weight is reached: (units, draws) twice -> (draws,)."""
    order = np.argsort(values, axis=0)
    running = np.cumsum(np.take_along_axis(weights, order, 0), axis=0)
    place = (running < running[-1] / 2).sum(0)
    found: Floats = np.take_along_axis(values, np.take_along_axis(order, place[None], 0), 0)[0].astype(float)
    return found


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    share, z2 = count / total, _Z**2 / total
    centre = (share + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * math.sqrt(share * (1 - share) / total + z2 / (4 * total))
    return max(0.0, centre - half), min(1.0, centre + half)


class AblationSummary:
    """Takes units one by one, in any order. series: what is compared, the main one first."""

    def __init__(self, series: Sequence[str]) -> None:
        self.series = tuple(series)
        self.failed: Counter[str] = Counter()
        self.points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._documents: set[str] = set()
        self._pooled: dict[tuple[str, str], dict[int, Pooled]] = defaultdict(lambda: defaultdict(Pooled))

    def add(
        self,
        series: str,
        layer: int,
        ablated: Ablated,
        figures: Mapping[str, Figure],
        correlation: float,
    ) -> None:
        """One unit's figures. correlation: over top and random, NaN for none; it is what `points` are for."""
        if series not in self.series:
            raise ValueError(f"{series} is none of {', '.join(self.series)}")
        self._documents.update(ablated.documents)
        for name, figure in figures.items():
            pooled = self._pooled[series, name][layer]
            if figure.value is None:
                pooled.absent[figure.reason or "no reason"] += 1
            else:
                pooled.add(ablated, name, figure.value)
        main = figures[MAIN].value
        if main is not None and not math.isnan(correlation):
            self.points[series].append((correlation, main))

    def fail(self, series: str) -> None:
        """A unit that could not be scored at all."""
        self.failed[series] += 1

    def pooled(self, series: str, figure: str, layer: int | None = None) -> Pooled:
        """A figure over one layer or over all."""
        by_layer = self._pooled[series, figure]
        parts = (by_layer[number] for number in sorted(by_layer) if layer in (None, number))
        return Pooled(parts, len(self._documents))

    def layers(self) -> list[int]:
        return sorted({layer for by_layer in self._pooled.values() for layer in by_layer})

    def as_dict(self) -> dict[str, Any]:
        return {
            series: {
                "failed": self.failed[series],
                **{
                    figure: self.pooled(series, figure).as_dict()
                    for figure in FIGURES
                    if self._pooled[series, figure]
                },
            }
            for series in self.series
        }

    def lines(self) -> list[str]:
        """For people: a column for each series that was there."""
        there = [name for name in self.series if self.failed[name] or self.pooled(name, MAIN).is_there]
        rows = [["ablation, 95% (units)", *there]]
        for layer in self.layers():
            found = [self.pooled(series, MAIN, layer) for series in there]
            rows.append([f"layer {layer}, pooled", *map(_ratio_cell, found)])
        for figure in FIGURES:
            found = [self.pooled(series, figure) for series in there]
            if any(one.is_there for one in found):
                label = figure.replace("_", " ")
                rows.append([f"{label}, pooled", *map(_ratio_cell, found)])
                rows.append([f"{label}, median", *map(_median_cell, found)])
                rows.append([f"{label}, above noise", *map(_share_cell, found)])
        rows.append(["failed", *(str(self.failed[series]) for series in there)])
        return aligned(rows)


def _ratio_cell(pooled: Pooled) -> str:
    return _cell(pooled.ratio, pooled.ratio_interval, len(pooled.values))


def _median_cell(pooled: Pooled) -> str:
    return _cell(pooled.median, pooled.median_interval, len(pooled.values))


def _share_cell(pooled: Pooled) -> str:
    above, units = pooled.above_noise
    return _cell(above / units, share_interval(above, units), units) if units else ""


def _cell(value: float | None, interval: tuple[float, float] | None, units: int) -> str:
    if value is None:
        return ""
    span = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{value:.3f}{span} ({units})"


def _short(value: float | None) -> float | None:
    return None if value is None else short(value)
