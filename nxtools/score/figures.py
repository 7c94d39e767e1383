"""From true and predicted activations to the figures on a unit line.

The papers' figures are `top_and_random` and `random_only`; `all` is an estimate for held-out text as it is,
of which `pool` is a random sample.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score import bootstrap
from nxtools.score.correlation import centred_sums, correlation, correlation_of, reason, shifted
from nxtools.score.whole import CERTAIN, Weights

Floats = NDArray[np.float64]
Activations = NDArray[np.float32]

# Which excerpts a figure pools, by their pick.
FIGURES: dict[str, tuple[str, ...]] = {
    "top_and_random": ("top", "random"),
    "top_only": ("top",),
    "random_only": ("random",),
    "bottom_and_random": ("bottom", "random"),
    "pool": ("pool",),
    "all": ("certain", "spread", "sampled"),
}
_ALWAYS = ("top_and_random", "top_only", "random_only")
_PICKS = ("top", "random", "bottom", "pool")  # each has its own seed, whatever others there are
_FIXED = ("certain",)  # no chance chose them
_WEIGHTED = ("spread", "sampled")  # so do these, which stand for more excerpts than they are

# Computed together, so that the arrays stay in the second-level cache.
_POSITIONS = 12_800
_UNITS = 32


@dataclass(frozen=True, slots=True)
class Pool:
    """A unit's activations (excerpts, tokens) on the held-out random pool; documents: (excerpts,)."""

    truth: Activations
    predicted: Activations
    documents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one explanation of one unit is scored on.

    name: seeds the bootstrap: the unit's full name, the same in every run.
    truth, predicted: (excerpts, tokens); NaN marks a position that is left out, in either.
    picks: (excerpts,) "top", "bottom", "random"; other picks belong to no figure.
    documents: (excerpts,) the document of each, by which `Summary` knows what units share.
    pool: the held-out random pool, where there is one;
    weights: how many held-out excerpts each stands for, where that is known.
    """

    name: str
    truth: Activations
    predicted: Activations
    picks: Sequence[str]
    documents: Sequence[str]
    pool: Pool | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        if not len(self.truth) == len(self.picks) == len(self.documents):
            raise ValueError(
                f"{len(self.truth)} excerpts, {len(self.picks)} picks, {len(self.documents)} documents"
            )


@dataclass(frozen=True, slots=True)
class Figure:
    """A correlation over some excerpts, or the reason why there is none; the same for its interval.

    tokens: of those excerpts; for `all`, how many they stand for.
    """

    value: float | None
    interval: tuple[float, float] | None
    excerpts: int
    tokens: int
    reason: str | None = None
    no_interval: str | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """The figures of one sample and what they came from, by pick and for the "pool".

    sums: (excerpts, 6), documents: (excerpts,), without the excerpts that have no tokens.
    """

    name: str
    figures: dict[str, Figure]
    sums: dict[str, Floats] = field(repr=False)
    documents: dict[str, tuple[str, ...]] = field(repr=False)


def score(sample: Sample, draws: int = bootstrap.DRAWS) -> Scored:
    """`score_block` of one sample."""
    return score_block([sample], draws)[0]


def score_block(samples: Sequence[Sample], draws: int = bootstrap.DRAWS) -> list[Scored]:
    """All figures of each sample, in order; draws=0 leaves the intervals out. Far faster than one by one."""
    strata = _strata(samples)
    by_shape: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for i, (sums, _) in enumerate(strata):
        by_shape.setdefault(tuple((pick, len(rows)) for pick, rows in sums.items()), []).append(i)
    scored: dict[int, Scored] = {}
    for members in by_shape.values():
        for start in range(0, len(members), _UNITS):
            block = members[start : start + _UNITS]
            stacks = {pick: np.stack([strata[i][0][pick] for i in block]) for pick in strata[block[0]][0]}
            figures = _figures(stacks, [samples[i].name for i in block], draws)
            for i, found in zip(block, figures, strict=True):
                scored[i] = Scored(samples[i].name, found, *strata[i])
    return [scored[i] for i in range(len(samples))]


_Strata = tuple[dict[str, Floats], dict[str, tuple[str, ...]]]


def _strata(samples: Sequence[Sample]) -> list[_Strata]:
    """Sums and documents of each sample's excerpts that have tokens, by pick."""
    out: list[_Strata] = [({}, {}) for _ in samples]

    def put(i: int, pick: str, sums: Floats, documents: tuple[str, ...]) -> None:
        present = sums[:, 0] > 0
        if not present.all():
            sums, documents = sums[present], tuple(compress(documents, present))
        out[i][0][pick], out[i][1][pick] = sums, documents

    lines: dict[int, _Centred] = {}
    for i, centred in _each([(s.truth, s.predicted) for s in samples]):
        lines[i] = centred
        for pick, rows in _rows(tuple(samples[i].picks)).items():
            put(i, pick, centred[0][rows], tuple(samples[i].documents[row] for row in rows))
    pools = [(i, s.pool) for i, s in enumerate(samples) if s.pool is not None]
    for k, centred in _each([(pool.truth, pool.predicted) for _, pool in pools]):
        i, pool = pools[k]
        put(i, "pool", centred[0], pool.documents)
        weights = samples[i].weights
        if weights is None:
            continue
        (there, *means), (drawn, *other_means) = lines[i], centred
        moved = shifted(there, *(mean - other for mean, other in zip(means, other_means, strict=True)))
        moved *= weights.line[:, None]
        for name, picks in (("certain", CERTAIN), ("spread", ("spread",))):
            chosen = [row for row, pick in enumerate(samples[i].picks) if pick in picks and moved[row, 0]]
            if chosen:
                put(i, name, moved[chosen], tuple(samples[i].documents[row] for row in chosen))
        present = drawn[:, 0] > 0  # the same for all units: what stands for nothing stays
        documents = tuple(compress(pool.documents, present))
        out[i][0]["sampled"] = (drawn * weights.pool[:, None])[present]
        out[i][1]["sampled"] = documents
    return out


_Centred = tuple[Floats, Floats, Floats]  # sums by excerpt, and the means that were taken off


def _each(pairs: Sequence[tuple[Activations, Activations]]) -> Iterator[tuple[int, _Centred]]:
    """The number of each pair of arrays and its `centred_sums`; those of one shape are computed together."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, (truth, _) in enumerate(pairs):
        shapes.setdefault(truth.shape, []).append(i)
    for shape, members in shapes.items():
        step = max(1, _POSITIONS // max(1, shape[0] * shape[1]))
        for start in range(0, len(members), step):
            block = members[start : start + step]
            truth, predicted = (np.stack([pairs[i][side] for i in block]) for side in (0, 1))
            yield from zip(block, zip(*centred_sums(truth, predicted), strict=True), strict=True)


@lru_cache(maxsize=256)
def _rows(picks: tuple[str, ...]) -> Mapping[str, NDArray[np.intp]]:
    """Where the excerpts of each pick stand."""
    return {pick: np.flatnonzero([p == pick for p in picks]) for pick in _PICKS if pick in picks}


def _figures(strata: dict[str, Floats], names: Sequence[str], draws: int) -> list[dict[str, Figure]]:
    """Figures of units whose strata have the same sizes. strata: (units, excerpts, 6) by pick."""
    drawn: dict[str, Floats] | None = None
    if draws:
        drawn = {}
        for sampled, what in ((_PICKS, ""), (_WEIGHTED, " weighted")):
            seeds = np.array([bootstrap.seeds(name + what, len(sampled)) for name in names])
            for place, pick in enumerate(sampled):
                if pick in strata and strata[pick].shape[1] > 1:
                    drawn[pick] = bootstrap.resample(strata[pick], seeds[:, place].tolist(), draws)
    columns = {
        name: _figure(picks, strata, drawn, len(names))
        for name in FIGURES
        if (picks := parts(name, strata)) is not None
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def parts(figure: str, present: Collection[str]) -> Sequence[str] | None:
    """The strata that a figure pools, out of those that are there; None where nothing is said of it."""
    picks = FIGURES[figure]
    if figure == "all":
        return [pick for pick in picks if pick in present] if "sampled" in present else None
    return picks if figure in _ALWAYS or all(pick in present for pick in picks) else None


def _figure(
    picks: Sequence[str], strata: dict[str, Floats], drawn: dict[str, Floats] | None, units: int
) -> list[Figure]:
    """One figure of each unit. drawn: resampled sums (units, 6, draws) by pick, or None for no intervals."""
    missing = [pick for pick in picks if pick not in strata or not strata[pick].shape[1]]
    if missing:
        return [Figure(None, None, 0, 0, f"no {' and no '.join(missing)} excerpts")] * units
    totals = {pick: strata[pick].sum(1) for pick in picks}
    by_chance = [strata[pick].shape[1] for pick in picks if pick not in _FIXED]
    pooled = np.sum(list(totals.values()), axis=0)
    values = correlation(pooled)
    bounds, unsure = np.full((units, 2), np.nan), None
    if drawn is not None and min(by_chance) < 2 and "sampled" not in picks:
        unsure = "fewer than 2 excerpts of a kind"
    elif drawn is not None:
        unsure = "one excerpt carries the correlation"
        fixed = {pick: total[:, :, None] for pick, total in totals.items()}
        resampled = np.moveaxis(sum(drawn.get(pick, fixed[pick]) for pick in picks), 1, 0)
        freedom = max(by_chance) if "sampled" in picks else min(by_chance)
        bounds = bootstrap.interval(values, correlation_of(*resampled), freedom - 1)
    excerpts = np.sum([(strata[pick][:, :, 0] > 0).sum(1) for pick in picks], axis=0)
    found = []
    for sums, value, count, (low, high) in zip(
        pooled, values.tolist(), excerpts.tolist(), bounds.tolist(), strict=True
    ):
        extent = count, round(float(sums[0]))
        if math.isnan(value):
            found.append(Figure(None, None, *extent, reason(sums)))
        elif math.isnan(low):
            found.append(Figure(value, None, *extent, no_interval=unsure))
        else:
            found.append(Figure(value, (low, high), *extent))
    return found


def as_record(scored: Scored) -> dict[str, Any]:
    """The entry for `scores` on a unit line; numbers at four significant digits.

    `interval`, `excerpts` and `tokens` belong to `top_and_random`; those of the other figures stand under
    `intervals` and `counts`. `absent` says why a figure or its interval is missing.
    """
    main = scored.figures["top_and_random"]
    record: dict[str, Any] = {"method": "correlation"}
    for name, figure in scored.figures.items():
        record[name] = None if figure.value is None else short(figure.value)
        if name == "top_and_random":
            record["interval"] = _short_pair(main.interval)
    others = {name: figure for name, figure in scored.figures.items() if name != "top_and_random"}
    record["intervals"] = {name: _short_pair(f.interval) for name, f in others.items() if f.interval}
    record["excerpts"], record["tokens"] = main.excerpts, main.tokens
    record["counts"] = {
        name: {"excerpts": figure.excerpts, "tokens": figure.tokens} for name, figure in others.items()
    }
    absent = {name: figure.reason for name, figure in scored.figures.items() if figure.reason}
    for name, figure in scored.figures.items():
        if figure.no_interval:
            absent["interval" if figure is main else f"intervals.{name}"] = figure.no_interval
    if absent:
        record["absent"] = absent
    return record


def _short_pair(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [short(interval[0]), short(interval[1])]


def short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}") + 0.0  # no -0.0
