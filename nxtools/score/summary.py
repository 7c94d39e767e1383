"""How a whole run did: mean scores by layer and overall, the baselines and the null beside them.

Two things are random in a mean over units: which units there are, and which documents they were scored on.
Units share documents, so resampling units alone makes intervals too narrow. Both are reweighted here at once,
each unit and each document by an exponential weight of its own in every draw (Owen and Eckles 2012,
"Bootstrapping data arrays of arbitrary order"; Rubin 1981, "The Bayesian bootstrap"). That is somewhat too
wide where units share little. A weight is a function of the name and the draw: units stream through, and
only the values of each stay.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score.bootstrap import student
from nxtools.score.correlation import correlation_of
from nxtools.score.figures import Scored, parts, short
from nxtools.score.replicates import DRAWS

Floats = NDArray[np.float64]

SUMMARISED = ("top_and_random", "random_only", "bottom_and_random", "pool", "all")
THRESHOLDS = (0.5, 0.7, 0.8, 0.9)
_BANK = 1 << 18
_TOGETHER = 64  # scores that are computed together: 64 x 6 x 200 doubles stay in the second-level cache


def replicates(scored: Sequence[Scored]) -> list[dict[str, Floats]]:
    """What each score would be with its documents reweighted, in every draw: (draws,) by figure.

    Figures without a value are left out. In a draw that has no correlation the value itself stands.
    """
    out: list[dict[str, Floats]] = [{} for _ in scored]
    shapes: dict[tuple[tuple[str, int], ...], list[int]] = defaultdict(list)
    for i, one in enumerate(scored):
        shapes[tuple((pick, len(rows)) for pick, rows in one.sums.items())].append(i)
    for members in shapes.values():
        for start in range(0, len(members), _TOGETHER):
            block = members[start : start + _TOGETHER]
            for i, found in zip(block, _block_replicates([scored[i] for i in block]), strict=True):
                out[i] = found
    return out


def _block_replicates(units: Sequence[Scored]) -> list[dict[str, Floats]]:
    out: list[dict[str, Floats]] = [{} for _ in units]
    sums = {pick: _reweighted(units, pick) for pick in units[0].sums}
    for figure in SUMMARISED:
        picks = parts(figure, sums)
        if picks is None or not all(pick in sums for pick in picks):
            continue
        drawn = correlation_of(*np.moveaxis(np.sum([sums[pick] for pick in picks], axis=0), 1, 0))
        for unit, row, of_unit in zip(units, drawn, out, strict=True):
            value = unit.figures[figure].value
            if value is not None:
                of_unit[figure] = np.where(np.isnan(row), value, row)
    return out


def _reweighted(units: Sequence[Scored], pick: str) -> Floats:
    """The sums of each unit's excerpts of one pick, their documents reweighted: (units, 6, draws)."""
    documents = [unit.documents[pick] for unit in units]
    sums = np.stack([unit.sums[pick].T for unit in units])
    if len(set(documents)) == 1:  # of the pool: one product for all units
        weights = drawn_weights(documents[0], "document")
        return (sums.reshape(len(units) * 6, sums.shape[2]) @ weights).reshape(len(units), 6, DRAWS)
    weights = drawn_weights([name for names in documents for name in names], "document")
    return sums @ weights.reshape(len(units), -1, DRAWS)


class Mean:
    """The mean of one figure over some units, with the 95% interval value ± margin.

    documents: how many the units share.
    """

    def __init__(self, parts: Iterable[Mean] = (), documents: int = 0) -> None:
        self.documents = documents
        self.values = array("d")
        self.absent: Counter[str] = Counter()
        self._weighted = np.zeros(DRAWS)  # Σ weight x replicate over the units, by draw
        self._weight = np.zeros(DRAWS)
        for part in parts:
            self.include(part)

    def include(self, part: Mean) -> None:
        """Takes in the units of another mean."""
        self.values.extend(part.values)
        self.absent.update(part.absent)
        self._weighted += part._weighted
        self._weight += part._weight

    def add(self, values: Iterable[float], weights: Floats, replicates: Floats) -> None:
        """Units' values, and their weights and replicates in every draw: (units, draws) each."""
        self.values.extend(values)
        self._weighted += np.einsum("ud,ud->d", weights, replicates)
        self._weight += weights.sum(0)

    @property
    def value(self) -> float | None:
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def margin(self) -> float | None:
        """None for fewer than two units or two documents."""
        return self._margin(self._weighted / self._weight) if len(self.values) > 1 else None

    def above(self, other: Mean) -> tuple[float, float | None] | None:
        """By how much the mean is higher than another's, and the margin: both were reweighted alike."""
        if self.value is None or other.value is None:
            return None
        drawn = self._weighted / self._weight - other._weighted / other._weight
        return self.value - other.value, self._margin(drawn) if len(other.values) > 1 else None

    def _margin(self, drawn: Floats) -> float | None:
        n = min(len(self.values), self.documents)
        if n < 2:
            return None
        # Exponential weights give the mean of n values (n - 1) / (n + 1) of its variance.
        return student(n - 1) * float(np.std(drawn, ddof=1)) * math.sqrt((n + 1) / (n - 1))

    def over(self, threshold: float) -> float | None:
        """Share of the units above the threshold; absent ones are not above it."""
        units = len(self.values) + self.absent.total()
        return sum(value > threshold for value in self.values) / units if units else None

    def as_dict(self) -> dict[str, Any]:
        value, margin, n = self.value, self.margin, len(self.values)
        out: dict[str, Any] = {"units": n, "mean": None if value is None else short(value)}
        if value is not None and margin is not None:
            out["interval"] = [short(value - margin), short(value + margin)]
        if self.absent:
            out["absent"] = dict(sorted(self.absent.items()))
            out["mean_absent_as_0"] = short(math.fsum(self.values) / (n + self.absent.total()))
        return out


class Summary:
    """Takes scores one by one, in any order; what it says does not depend on the order.

    series: what is compared, the main one first, such as ("pattern", "token-table", "token-list", "null");
    perhaps: further ones, of which nothing is said where there are none.
    """

    def __init__(self, series: Sequence[str], perhaps: Sequence[str] = ()) -> None:
        self.series = (*series, *perhaps)
        self._perhaps = frozenset(perhaps)
        self.failed: Counter[str] = Counter()
        self._means: dict[tuple[str, str], dict[int, Mean]] = {
            (name, figure): defaultdict(Mean) for name in self.series for figure in SUMMARISED
        }
        self._documents: set[str] = set()
        self._pending: dict[tuple[str, str, int], list[tuple[str, float, Floats]]] = defaultdict(list)

    def add(
        self,
        series: str,
        layer: int,
        unit: str,
        score: Mapping[str, Any],
        replicates: Mapping[str, Floats],
        documents: Iterable[str],
    ) -> None:
        """One score of one unit: its record (`figures.as_record`), its `replicates`, its documents."""
        if series not in self.series:
            raise ValueError(f"{series} is none of {', '.join(self.series)}")
        self._documents.update(documents)
        for figure in SUMMARISED:
            if figure not in score:
                continue
            if score[figure] is None:
                self._means[series, figure][layer].absent[score["absent"][figure]] += 1
                continue
            pending = self._pending[series, figure, layer]
            pending.append((unit, score[figure], replicates[figure]))
            if len(pending) >= _TOGETHER:
                self._settle()

    def fail(self, series: str) -> None:
        """A unit that could not be scored at all."""
        self.failed[series] += 1

    def include(self, other: Summary) -> None:
        """Takes in the scores that another summary of the same series has."""
        other._settle()
        self._documents |= other._documents
        self.failed.update(other.failed)
        for name, by_layer in other._means.items():
            for layer, mean in by_layer.items():
                self._means[name][layer].include(mean)

    def settled(self) -> Summary:
        """Itself, with nothing pending: a few numbers for each series, figure and layer."""
        self._settle()
        return self

    def mean(self, series: str, figure: str, layer: int | None = None) -> Mean:
        """The mean of a figure, over one layer or over all."""
        self._settle()
        by_layer = self._means[series, figure]
        parts = (by_layer[number] for number in sorted(by_layer) if layer in (None, number))
        return Mean(parts, len(self._documents))

    def layers(self) -> list[int]:
        """All layers that have a score, or a reason for none."""
        self._settle()
        return sorted(set().union(*self._means.values()))

    def _settle(self) -> None:
        for (series, figure, layer), found in self._pending.items():
            names, values, drawn = zip(*found, strict=True)
            self._means[series, figure][layer].add(values, drawn_weights(names, "unit"), np.stack(drawn))
        self._pending.clear()

    def as_dict(self) -> dict[str, Any]:
        """By series: figures over all units, top-and-random by layer, shares over thresholds, failures."""
        return {series: self._series(series) for series in self.there()}

    def there(self) -> list[str]:
        """The series that something is said of."""
        self._settle()
        return [name for name in self.series if name not in self._perhaps or self._has(name)]

    def _has(self, series: str) -> bool:
        return self.failed[series] > 0 or any(self._means[series, figure] for figure in SUMMARISED)

    def _series(self, series: str) -> dict[str, Any]:
        main = self.mean(series, "top_and_random")
        layers = self._means[series, "top_and_random"]
        return {
            "failed": self.failed[series],
            "over": {str(threshold): _rounded(main.over(threshold)) for threshold in THRESHOLDS},
            **{f: self.mean(series, f).as_dict() for f in SUMMARISED if self._means[series, f]},
            "layers": {str(n): self.mean(series, "top_and_random", n).as_dict() for n in sorted(layers)},
        }

    def lines(self) -> list[str]:
        """For people: a column for each series, means of top-and-random by layer, then of each figure."""
        there = self.there()
        rows = [["mean ± 95% (units)", *there]]

        def row(label: str, cells: Sequence[str]) -> None:
            if any(cells):
                rows.append([label, *cells])

        for layer in self.layers():
            cells = [_cell(self.mean(series, "top_and_random", layer)) for series in there]
            row(f"layer {layer}", cells)
        for figure in SUMMARISED:
            row(figure.replace("_", " "), [_cell(self.mean(series, figure)) for series in there])
        mains = [self.mean(series, "top_and_random") for series in there]
        if "null" in there:
            null = mains[there.index("null")]
            row("above the null", ["" if mean is null else _gain(mean.above(null)) for mean in mains])
        for threshold in THRESHOLDS:
            row(f"over {threshold}", [_percent(mean.over(threshold)) for mean in mains])
        row("absent", [str(mean.absent.total()) for mean in mains])
        row("failed", [str(self.failed[series]) for series in there])
        return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table for people: a line for each row, columns under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _gain(gain: tuple[float, float | None] | None) -> str:
    if gain is None:
        return ""
    return f"{gain[0]:.3f}" if gain[1] is None else f"{gain[0]:.3f} ±{gain[1]:.3f}"


def _cell(mean: Mean) -> str:
    value, margin = mean.value, mean.margin
    if value is None:
        return ""
    spread = "" if margin is None else f" ±{margin:.3f}"
    return f"{value:.3f}{spread} ({len(mean.values)})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def _rounded(share: float | None) -> float | None:
    return None if share is None else short(share)


def drawn_weights(names: Sequence[str], kind: str) -> Floats:
    """Exponential weights of documents or of units in every draw: (names, draws)."""
    starts = np.array([_start(name, kind) for name in names], dtype=np.intp)
    weights: Floats = _bank()[starts[:, None] + np.arange(DRAWS)]
    return weights


@lru_cache(maxsize=1 << 16)
def _start(name: str, kind: str) -> int:
    digest = blake2b(f"{kind} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _BANK


@lru_cache(maxsize=1)
def _bank() -> Floats:
    """Independent exponential numbers. Two names share theirs only if they start at the same place."""
    raw = np.random.PCG64(0).random_raw(_BANK + DRAWS)
    weights: Floats = -np.log(((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
    return weights
