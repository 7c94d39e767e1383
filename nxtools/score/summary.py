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
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score.bootstrap import student
from nxtools.score.correlation import correlation_of
from nxtools.score.figures import FIGURES, Scored, short

Floats = NDArray[np.float64]

SUMMARISED = ("top_and_random", "random_only", "bottom_and_random", "pool")
THRESHOLDS = (0.5, 0.7, 0.8, 0.9)
DRAWS = 200
_BANK = 1 << 18
_PENDING = 64  # scores that are reweighted together: 64 x 6 x 200 doubles stay in the second-level cache


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
            self.values.extend(part.values)
            self.absent.update(part.absent)
            self._weighted += part._weighted
            self._weight += part._weight

    def add(self, values: Iterable[float], weights: Floats, replicates: Floats) -> None:
        """Units' values, and their weights and replicates by draw: (units, draws), NaN for no replicate."""
        self.values.extend(values)
        defined = ~np.isnan(replicates)
        self._weighted += np.einsum("ud,ud->d", weights, np.where(defined, replicates, 0.0))
        self._weight += np.einsum("ud,ud->d", weights, defined)

    @property
    def value(self) -> float | None:
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def margin(self) -> float | None:
        """None for fewer than two units or two documents."""
        n = min(len(self.values), self.documents)
        if n < 2:
            return None
        spread = float(np.std(self._weighted / self._weight, ddof=1))
        # Exponential weights give the mean of n values (n - 1) / (n + 1) of its variance.
        return student(min(n - 1, 1000)) * spread * math.sqrt((n + 1) / (n - 1))

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

    series: what is compared, the main one first, such as ("pattern", "token-table", "token-list", "null").
    """

    def __init__(self, series: Sequence[str]) -> None:
        self.series = tuple(series)
        self.failed: Counter[str] = Counter()
        self._means: dict[tuple[str, str], dict[int, Mean]] = {
            (name, figure): defaultdict(Mean) for name in series for figure in SUMMARISED
        }
        self._documents: set[str] = set()
        self._pending: list[tuple[str, int, Scored]] = []

    def add(self, series: str, layer: int, scored: Scored) -> None:
        """One score of one unit."""
        if series not in self.series:
            raise ValueError(f"{series} is none of {', '.join(self.series)}")
        self._pending.append((series, layer, scored))
        if len(self._pending) >= _PENDING:
            self._settle()

    def fail(self, series: str) -> None:
        """A unit that could not be scored at all."""
        self.failed[series] += 1

    def mean(self, series: str, figure: str, layer: int | None = None) -> Mean:
        """The mean of a figure, over one layer or over all."""
        self._settle()
        by_layer = self._means[series, figure]
        parts = (by_layer[number] for number in sorted(by_layer) if layer in (None, number))
        return Mean(parts, len(self._documents))

    def layers(self) -> list[int]:
        self._settle()
        return sorted(set().union(*self._means.values()))

    def _settle(self) -> None:
        """Reweights the pending scores, those of one shape together."""
        shapes: dict[tuple[tuple[str, int], ...], list[tuple[str, int, Scored]]] = defaultdict(list)
        for series, layer, scored in self._pending:
            sizes = tuple((pick, len(rows)) for pick, rows in scored.sums.items())
            shapes[sizes].append((series, layer, scored))
            self._documents.update(*scored.documents.values())
        self._pending.clear()
        for members in shapes.values():
            self._settle_block(members)

    def _settle_block(self, members: Sequence[tuple[str, int, Scored]]) -> None:
        units = [scored for _, _, scored in members]
        resampled = {pick: _resampled(units, pick) for pick in units[0].sums}
        weights = _weights([unit.name for unit in units], "unit")
        places: dict[tuple[str, int], list[int]] = defaultdict(list)
        for i, (series, layer, _) in enumerate(members):
            places[series, layer].append(i)
        for figure in SUMMARISED:
            picks = [pick for pick in FIGURES[figure] if pick in resampled]
            total = np.sum([resampled[pick] for pick in picks], axis=0) if picks else None
            for (series, layer), rows in places.items():
                found = [(i, units[i].figures[figure]) for i in rows if figure in units[i].figures]
                present = [(i, one.value) for i, one in found if one.value is not None]
                absent = [one.reason or "" for _, one in found if one.value is None]
                if not found:
                    continue
                mean = self._means[series, figure][layer]
                mean.absent.update(absent)
                if present and total is not None:
                    kept = [i for i, _ in present]
                    replicates = correlation_of(*np.moveaxis(total[kept], 1, 0))
                    mean.add([value for _, value in present], weights[kept], replicates)

    def as_dict(self) -> dict[str, Any]:
        """By series: figures over all units, top-and-random by layer, shares over thresholds, failures."""
        return {series: self._series(series) for series in self.series}

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
        rows = [["mean ± 95% (units)", *self.series]]

        def row(label: str, cells: Sequence[str]) -> None:
            if any(cells):
                rows.append([label, *cells])

        for layer in self.layers():
            cells = [_cell(self.mean(series, "top_and_random", layer)) for series in self.series]
            row(f"layer {layer}", cells)
        for figure in SUMMARISED:
            row(figure.replace("_", " "), [_cell(self.mean(series, figure)) for series in self.series])
        mains = [self.mean(series, "top_and_random") for series in self.series]
        for threshold in THRESHOLDS:
            row(f"over {threshold}", [_percent(mean.over(threshold)) for mean in mains])
        row("absent", [str(mean.absent.total()) for mean in mains])
        row("failed", [str(self.failed[series]) for series in self.series])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]


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


def _resampled(units: Sequence[Scored], pick: str) -> Floats:
    """The sums of each unit's excerpts of one pick, their documents reweighted: (units, 6, draws)."""
    documents = [unit.documents[pick] for unit in units]
    sums = np.stack([unit.sums[pick].T for unit in units])
    if len(set(documents)) == 1:  # the pool: one product for all units
        weights = _weights(documents[0], "document")
        return (sums.reshape(-1, sums.shape[2]) @ weights).reshape(len(units), 6, DRAWS)
    weights = _weights([name for names in documents for name in names], "document")
    return sums @ weights.reshape(len(units), -1, DRAWS)


def _weights(names: Sequence[str], kind: str) -> Floats:
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
