"""How near calibrated simulations come to the true activations, and whether they say when the unit fires.

With true values t and calibrated predictions c, over all tokens of the excerpts of a figure:

* explained variance: 1 - Σ(t - c)² / Σ(t - mean t)²;
* r2: 1 - Σ(t - c)² / Σt², not about the mean, as in the reference code of Bills et al. 2023;
* absolute deviation: 1 - Σ|t - c| / Σ|t|, from the same code;
* precision, recall and F1 of the tokens at which the unit fires: t above a share of its evidence maximum.

And the correlation of each excerpt by itself, which no difference between excerpts can raise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score import bootstrap
from nxtools.score.calibration import Calibration, described, fitted
from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.score.figures import FIGURES, Sample, short
from nxtools.score.whole import CERTAIN

Floats = NDArray[np.float64]
Activations = NDArray[np.float32]

FIRES_ABOVE = 0.1  # of the unit's evidence maximum: GELU and gated units are never exactly 0

_COLUMNS = ("n", "t", "tt", "ee", "abs_t", "abs_e", "hits", "fires", "said")


@dataclass(frozen=True, eq=False)
class Paired:
    """Simulated and true activations of one set: on the line's excerpts and on the random pool (excerpts,
    tokens), the latter where there is one that the simulator could run on.
    """

    simulated: Activations
    truth: Activations
    picks: Sequence[str]
    pool: tuple[Activations, Activations] | None = None  # simulated, true

    def tokens(self, figure: str) -> tuple[Activations, Activations]:
        """Simulated and true values of the same kind as those that the figure is over."""
        if figure in _OF_POOL and self.pool is not None:
            return self.pool
        picks = ("random",) if figure in _OF_POOL else FIGURES[figure]
        rows = [pick in picks for pick in self.picks]
        return self.simulated[rows], self.truth[rows]


_OF_POOL = ("random_only", "pool", "all")


def fits(sample: Sample, validation: Paired | None, kind: str, peak: float) -> dict[str, Any]:
    """What goes on the unit line. peak: the unit's largest magnitude in the evidence, on its side, with its
    sign; validation: None where it has no simulation.
    """
    found: dict[str, Any] = {}
    for figure in FIGURES:
        kept = _Kept.of(sample, figure)
        if kept is None:
            continue
        if kind == "scored":
            calibration = fitted(kind, kept.simulated, kept.truth)
        else:
            calibration = None if validation is None else fitted(kind, *validation.tokens(figure))
        if calibration is None:
            reason = "no simulation of validation: nx-simulate --sets held-out,validation"
            found[figure] = {"absent": reason if validation is None else "validation has too few tokens"}
        else:
            found[figure] = _fit(kept, calibration, FIRES_ABOVE * peak)
    return {
        "calibration": kind,
        "calibrated": found,
        "fires_above": short(FIRES_ABOVE * peak),
        "per_excerpt": per_excerpt(sample),
    }


@dataclass(frozen=True, eq=False)
class _Kept:
    """The excerpts of a figure: values (n, tokens), weights (n,), and strata for the bootstrap (n,), where
    "certain" is no chance.
    """

    name: str
    simulated: Activations
    truth: Activations
    weights: Floats
    strata: list[str]

    @classmethod
    def of(cls, sample: Sample, figure: str) -> _Kept | None:
        if figure in ("pool", "all"):
            return cls._whole(sample, figure)
        rows = [row for row, pick in enumerate(sample.picks) if pick in FIGURES[figure]]
        if not set(FIGURES[figure]) <= set(sample.picks):
            return None
        strata = [sample.picks[row] for row in rows]
        return cls(sample.name, sample.predicted[rows], sample.truth[rows], np.ones(len(rows)), strata)

    @classmethod
    def _whole(cls, sample: Sample, figure: str) -> _Kept | None:
        pool = sample.pool
        if pool is None or (figure == "all" and sample.weights is None):
            return None
        if figure == "pool":
            count = len(pool.truth)
            return cls(sample.name, pool.predicted, pool.truth, np.ones(count), ["pool"] * count)
        assert sample.weights is not None
        rows = np.flatnonzero(sample.weights.line)
        width = max(sample.truth.shape[1], pool.truth.shape[1])
        strata = ["certain" if sample.picks[row] in CERTAIN else "spread" for row in rows.tolist()]
        return cls(
            sample.name,
            np.concatenate([_wide(sample.predicted[rows], width), _wide(pool.predicted, width)]),
            np.concatenate([_wide(sample.truth[rows], width), _wide(pool.truth, width)]),
            np.concatenate([sample.weights.line[rows], sample.weights.pool]),
            [*strata, *["pool"] * len(pool.truth)],
        )


def _wide(values: Activations, width: int) -> Activations:
    missing = width - values.shape[1]
    return values if not missing else np.pad(values, ((0, 0), (0, missing)), constant_values=np.nan)


def _fit(kept: _Kept, calibration: Calibration, threshold: float) -> dict[str, Any]:
    sums = error_sums(kept.truth, calibration(kept.simulated), threshold) * kept.weights[:, None]
    total = dict(zip(_COLUMNS, sums.sum(0).tolist(), strict=True))
    record: dict[str, Any] = {}
    spread = total["tt"] - total["t"] ** 2 / max(total["n"], 1.0)
    for name, lost, all_lost in (
        ("explained_variance", total["ee"], spread),
        ("r2", total["ee"], total["tt"]),
        ("absolute_deviation", total["abs_e"], total["abs_t"]),
    ):
        nothing = all_lost <= 1e-12 * total["tt"] if name == "explained_variance" else all_lost <= 0
        record[name] = None if nothing else short(1.0 - lost / all_lost)
    record["interval"] = _interval(kept, sums, record["explained_variance"])
    fires, said, hits = total["fires"], total["said"], total["hits"]
    record["precision"] = short(hits / said) if said else None
    record["recall"] = short(hits / fires) if fires else None
    record["f1"] = short(2 * hits / (fires + said)) if fires + said else None
    record["fires"] = round(fires)
    record.update(described(calibration))
    return record


def error_sums(truth: NDArray[Any], calibrated: NDArray[Any], threshold: float) -> Floats:
    """By excerpt: tokens, Σt, Σt², Σ(t - c)², Σ|t|, Σ|t - c|, tokens that fire and are said to, that fire,
    that are said to. (excerpts, tokens) twice -> (excerpts, 9); NaN on either side is left out.
    """
    t, c = truth.astype(np.float64), calibrated.astype(np.float64)
    there = ~(np.isnan(t) | np.isnan(c))
    t, c = np.where(there, t, 0.0), np.where(there, c, 0.0)
    sign = -1.0 if threshold < 0 else 1.0
    fires, said = ((sign * side > abs(threshold)) & there for side in (t, c))
    error = t - c
    columns = (there, t, t * t, error * error, abs(t), abs(error), fires & said, fires, said)
    return np.stack([np.sum(column, axis=1, dtype=np.float64) for column in columns], axis=1)


def _interval(kept: _Kept, sums: Floats, value: float | None) -> list[float] | None:
    """95%, of the explained variance: excerpts drawn anew by stratum, the spread of the unexplained share
    taken on a logarithmic scale. See `bootstrap`.
    """
    if value is None:
        return None
    strata = sorted(set(kept.strata))
    seeds = bootstrap.seeds(f"{kept.name} fit", len(strata))
    drawn = np.zeros((4, bootstrap.DRAWS))
    freedom = []
    for stratum, seed in zip(strata, seeds, strict=True):
        rows = sums[[one == stratum for one in kept.strata]][:, :4]
        if stratum == "certain" or (len(rows) < 2 and stratum == "spread"):
            drawn += rows.sum(0)[:, None]
        elif len(rows) < 2:
            return None
        else:
            drawn += bootstrap.resample(rows[None], [seed])[0]
            freedom.append(len(rows) - 1)
    n, t, tt, ee = drawn
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(ee / (tt - t * t / n))
    logs = logs[np.isfinite(logs)]
    unexplained = 1.0 - value
    if unexplained <= 0 or len(logs) < (1 - bootstrap.MAX_UNDEFINED) * bootstrap.DRAWS:
        return None
    degrees = max(freedom) if "pool" in strata else min(freedom)
    half = bootstrap.student(degrees) * float(np.std(logs, ddof=1))
    return [short(1.0 - unexplained * math.exp(half)), short(1.0 - unexplained * math.exp(-half))]


def per_excerpt(sample: Sample) -> dict[str, Any]:
    """The mean correlation within an excerpt over those of top-and-random, with its standard 95% interval;
    absent: how many have none, since their truth or prediction is constant.
    """
    rows = [row for row, pick in enumerate(sample.picks) if pick in FIGURES["top_and_random"]]
    each = [float(correlation(excerpt_sums(sample.truth[[row]], sample.predicted[[row]])[0])) for row in rows]
    there = [value for value in each if not math.isnan(value)]
    record: dict[str, Any] = {"mean": None, "excerpts": len(there), "absent": len(each) - len(there)}
    if there:
        mean = math.fsum(there) / len(there)
        record["mean"] = short(mean)
        if len(there) > 1:
            half = bootstrap.student(len(there) - 1) * float(np.std(there, ddof=1)) / math.sqrt(len(there))
            record["interval"] = [short(mean - half), short(mean + half)]
    return record
