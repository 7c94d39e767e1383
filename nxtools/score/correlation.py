"""The score of the papers: correlation of predicted and true activations, all tokens of all excerpts pooled.

Everything is computed from six sums per excerpt: n, Σt, Σp, Σt², Σp², Σtp. The correlation over any multiset
of excerpts is a function of the sum of their rows: choosing, resampling and reweighting are matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score import bootstrap

Floats = NDArray[np.float64]
Activations = NDArray[np.float32]

# Which excerpts a figure pools, by their pick.
FIGURES: dict[str, tuple[str, ...]] = {
    "top_and_random": ("top", "random"),
    "top_only": ("top",),
    "random_only": ("random",),
    "bottom_and_random": ("bottom", "random"),
    "pool": ("pool",),
}
_ALWAYS = ("top_and_random", "top_only", "random_only")

# Variance below this share of the mean square is rounding: a relative spread of 1e-6; float32 keeps 6e-8.
_ROUNDING = 1e-12
# Units computed together: their arrays (32 x 15 x 64 doubles) stay in the second-level cache.
_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """What one explanation of one unit is scored on.

    name: seeds the bootstrap: the unit's full name, the same in every run.
    truth, predicted: (excerpts, tokens); NaN marks a position that is left out, in either.
    picks: (excerpts,) "top", "bottom", "random"; other picks belong to no figure.
    pool: true and predicted activations of the held-out random pool, (excerpts, tokens) each.
    """

    name: str
    truth: Activations
    predicted: Activations
    picks: Sequence[str]
    pool: tuple[Activations, Activations] | None = None

    def __post_init__(self) -> None:
        if len(self.picks) != len(self.truth):
            raise ValueError(f"{len(self.truth)} excerpts, but {len(self.picks)} picks")


@dataclass(frozen=True, slots=True)
class Figure:
    """A correlation over some excerpts, or the reason why there is none."""

    value: float | None
    interval: tuple[float, float] | None
    excerpts: int
    tokens: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """The figures of one sample, and the sums they came from: (excerpts, 6) by pick, "pool" included."""

    figures: dict[str, Figure]
    sums: dict[str, Floats] = field(repr=False)


def stacked(rows: Iterable[Sequence[float | None]]) -> Activations:
    """Lists of activations as JSON has them, None where left out: (excerpts, longest), NaN in the gaps."""
    rows = list(rows)
    longest = max(map(len, rows), default=0)
    if all(len(row) == longest for row in rows):
        return np.array(rows, dtype=np.float32).reshape(len(rows), longest)
    out = np.full((len(rows), longest), np.nan, dtype=np.float32)
    for place, row in zip(out, rows, strict=True):
        place[: len(row)] = row
    return out


def excerpt_sums(truth: NDArray[Any], predicted: NDArray[Any]) -> Floats:
    """Sums n, Σt, Σp, Σt², Σp², Σtp of each excerpt: (..., excerpts, tokens) twice -> (..., excerpts, 6).

    Values are centred by their mean over all excerpts first: correlation does not see it, and squares keep
    their digits. Values that are constant but for rounding become exactly constant. Positions with NaN on
    either side are left out.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"true activations have shape {truth.shape}, predicted ones {predicted.shape}")
    left_out = np.flatnonzero(np.isnan(truth) | np.isnan(predicted))
    out = np.empty((*truth.shape[:-1], 6))
    present = np.full(truth.shape[:-1], truth.shape[-1], dtype=np.float64)
    if left_out.size:
        present -= np.bincount(left_out // truth.shape[-1], minlength=present.size).reshape(present.shape)
    out[..., 0] = present
    with np.errstate(invalid="ignore"):  # infinities become NaN here and an absent score later
        t = _centred(truth, left_out, present)
        p = _centred(predicted, left_out, present)
        out[..., 1] = t.sum(-1)
        out[..., 2] = p.sum(-1)
        np.einsum("...t,...t->...", t, t, out=out[..., 3])
        np.einsum("...t,...t->...", p, p, out=out[..., 4])
        np.einsum("...t,...t->...", t, p, out=out[..., 5])
    return out


def _centred(values: NDArray[Any], left_out: NDArray[np.intp], present: Floats) -> Floats:
    """Values less their mean over the last two axes; 0 where left out, all 0 where only rounding is left."""
    out: Floats = values.astype(np.float64, order="C")
    flat = out.reshape(-1)
    flat[left_out] = 0.0
    count = np.maximum(present.sum(-1), 1.0)
    mean = out.reshape(*count.shape, -1).sum(-1) / count
    out -= mean[..., None, None]
    flat[left_out] = 0.0
    square = np.einsum("...et,...et->...", out, out)
    rounding = square <= _ROUNDING * count * mean**2
    if rounding.any():
        out[rounding] = 0.0
    return out


def correlation(sums: Floats) -> Floats:
    """Pearson correlation from sums over excerpts: (..., 6) -> (...) in [-1, 1]; NaN where none, see `reason`."""
    return correlation_of(*np.moveaxis(sums, -1, 0))


def correlation_of(n: Floats, t: Floats, p: Floats, tt: Floats, pp: Floats, tp: Floats) -> Floats:
    """`correlation` from the six sums as six arrays."""
    var_t, var_p = n * tt - t * t, n * pp - p * p
    defined = (n >= 2) & (var_t > _ROUNDING * n * tt) & (var_p > _ROUNDING * n * pp)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (n * tp - t * p) / (np.sqrt(var_t) * np.sqrt(var_p))
    out: Floats = np.where(defined, np.clip(r, -1.0, 1.0), np.nan)
    return out


def reason(sums: Floats) -> str | None:
    """Why there is no correlation for these sums (6,), or None when there is one."""
    n, t, p, tt, pp, _ = (float(value) for value in sums)
    if n < 2:
        return "fewer than 2 tokens"
    if not np.isfinite(sums).all():
        return "non-finite values"
    if n * tt - t * t <= _ROUNDING * n * tt:
        return "constant truth"
    if n * pp - p * p <= _ROUNDING * n * pp:
        return "constant prediction"
    return None


def score(sample: Sample, draws: int = bootstrap.DRAWS) -> Scored:
    """`score_block` of one sample."""
    return score_block([sample], draws)[0]


def score_block(samples: Sequence[Sample], draws: int = bootstrap.DRAWS) -> list[Scored]:
    """All figures of each sample, in order; draws=0 leaves the intervals out. Far faster than one by one."""
    sums = _sums_by_pick(samples)
    by_shape: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for i, strata in enumerate(sums):
        by_shape.setdefault(tuple((pick, len(rows)) for pick, rows in strata.items()), []).append(i)
    scored: dict[int, Scored] = {}
    for members in by_shape.values():
        for start in range(0, len(members), _BLOCK):
            block = members[start : start + _BLOCK]
            strata = {pick: np.stack([sums[i][pick] for i in block]) for pick in sums[block[0]]}
            figures = _figures(strata, [samples[i].name for i in block], draws)
            for i, found in zip(block, figures, strict=True):
                scored[i] = Scored(found, sums[i])
    return [scored[i] for i in range(len(samples))]


def _sums_by_pick(samples: Sequence[Sample]) -> list[dict[str, Floats]]:
    """Sums of each sample's excerpts that have tokens, by pick: {"top": (5, 6), …, "pool": (200, 6)}."""
    out: list[dict[str, Floats]] = [{} for _ in samples]

    def place(i: int, sums: Floats) -> None:
        for pick, rows in _rows(tuple(samples[i].picks)).items():
            out[i][pick] = _with_tokens(sums[rows])

    _each([(s.truth, s.predicted) for s in samples], place)
    pools = [(i, s.pool) for i, s in enumerate(samples) if s.pool is not None]

    def place_pool(k: int, sums: Floats) -> None:
        out[pools[k][0]]["pool"] = _with_tokens(sums)

    _each([pair for _, pair in pools], place_pool)
    return out


def _each(pairs: Sequence[tuple[Activations, Activations]], place: Callable[[int, Floats], None]) -> None:
    """Computes the sums of each pair of arrays, those of one shape together, and hands them to `place`."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, (truth, _) in enumerate(pairs):
        shapes.setdefault(truth.shape, []).append(i)
    for shape, members in shapes.items():
        step = max(1, _BLOCK * 960 // max(1, shape[0] * shape[1]))
        for start in range(0, len(members), step):
            block = members[start : start + step]
            truth, predicted = (np.stack([pairs[i][side] for i in block]) for side in (0, 1))
            sums = excerpt_sums(truth, predicted)
            for i, rows in zip(block, sums, strict=True):
                place(i, rows)


def _with_tokens(sums: Floats) -> Floats:
    return sums if sums[:, 0].all() else sums[sums[:, 0] > 0]


@lru_cache(maxsize=256)
def _rows(picks: tuple[str, ...]) -> Mapping[str, NDArray[np.intp]]:
    """Where the excerpts of each pick stand."""
    return {
        pick: np.flatnonzero([p == pick for p in picks])
        for pick in ("top", "random", "bottom")
        if pick in picks
    }


def _figures(strata: dict[str, Floats], names: Sequence[str], draws: int) -> list[dict[str, Figure]]:
    """Figures of units whose strata have the same sizes. strata: (units, excerpts, 6) by pick."""
    units = len(names)
    totals = {pick: sums.sum(1) for pick, sums in strata.items()}
    drawn: dict[str, Floats] = {}
    if draws:
        order = list(strata)
        seeds = [bootstrap.seeds(name, len(order)) for name in names]
        for k, pick in enumerate(order):
            if strata[pick].shape[1] > 1:
                drawn[pick] = bootstrap.resample(strata[pick], [seed[k] for seed in seeds], draws)
    out: list[dict[str, Figure]] = [{} for _ in range(units)]
    for name, picks in FIGURES.items():
        if name not in _ALWAYS and any(pick not in strata for pick in picks):
            continue
        missing = [pick for pick in picks if pick not in strata or not strata[pick].shape[1]]
        if missing:
            nothing = Figure(None, None, 0, 0, f"no {' and no '.join(missing)} excerpts")
            for figures in out:
                figures[name] = nothing
            continue
        sizes = [strata[pick].shape[1] for pick in picks]
        pooled = np.sum([totals[pick] for pick in picks], axis=0)
        values = correlation(pooled)
        bounds = np.full((units, 2), np.nan)
        if draws and min(sizes) > 1:
            resampled = np.sum([drawn[pick] for pick in picks], axis=0)
            bounds = bootstrap.interval(values, correlation_of(*np.moveaxis(resampled, 1, 0)), min(sizes) - 1)
        for figures, sums, value, bound in zip(out, pooled, values.tolist(), bounds.tolist(), strict=True):
            present = value == value
            figures[name] = Figure(
                value if present else None,
                (bound[0], bound[1]) if present and bound[0] == bound[0] else None,
                sum(sizes),
                int(sums[0]),
                None if present else reason(sums),
            )
    return out


def as_record(scored: Scored) -> dict[str, Any]:
    """The entry for `scores` on a unit line; numbers at four significant digits.

    `interval`, `excerpts` and `tokens` belong to `top_and_random`; those of the other figures stand under
    `intervals` and `counts`. `absent` says why a figure is null.
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
    if absent:
        record["absent"] = absent
    return record


def _short_pair(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [short(interval[0]), short(interval[1])]


def short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")
