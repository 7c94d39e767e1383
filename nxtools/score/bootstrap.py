"""How sure one score is: a bootstrap over excerpts, stratified by how the excerpts were chosen.

Tokens of one excerpt hang together, so whole excerpts are drawn, top ones among the top ones and random ones
among the random ones. With the usual five excerpts of each the percentile interval holds the true correlation
in 80 to 86% of cases, with five excerpts in all in 63 to 82% (real activations and token tables). Instead:

* n - 1 of n excerpts are drawn and weigh n / (n - 1) each, which makes the variance unbiased for small n
  (Rao and Wu 1988, "Resampling inference with complex survey data");
* the spread of the draws is taken on Fisher's scale, z = artanh(r), where it hardly depends on r;
* it is multiplied by Student's t with the degrees of freedom of the smallest stratum.

This holds it in 91 to 96% and in 87 to 95% of those cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 200  # the standard deviation of 200 draws is known to 5%, well below what five excerpts can tell
MAX_FREEDOM = 1000  # beyond, Student's t changes in the fourth digit
MAX_UNDEFINED = 0.2  # of the draws; above it one excerpt alone carries the correlation
_CLIP = 1 - 1e-6  # a draw that correlates perfectly would lie at infinity on Fisher's scale


def _starts(size: int) -> int:
    """Places in the bank at which a unit can start: 4,096, fewer for large strata to keep it below 10 MB."""
    return max(1, min(4096, (1 << 20) // size))


@lru_cache(maxsize=64)
def _bank(size: int, draws: int) -> Floats:
    """Weights of `size` excerpts in independent draws: (size, starts + draws); each column sums to size.

    Made of raw generator output, which unlike numpy's distributions is the same in every version of numpy.
    """
    columns = _starts(size) + draws
    raw = np.random.PCG64(size).random_raw(columns * (size - 1)).reshape(columns, size - 1)
    chosen = ((raw >> np.uint64(11)).astype(np.float64) * (2.0**-53 * size)).astype(np.int64)
    flat = (np.arange(columns)[:, None] * size + chosen).ravel()
    counts = np.bincount(flat, minlength=columns * size).reshape(columns, size)
    return counts.T.astype(np.float64, order="C") * np.float64(size / (size - 1))


def seeds(name: str, strata: int) -> list[int]:
    """One 32-bit number for each stratum of the unit called `name`."""
    digest = blake2b(name.encode(), digest_size=4 * strata).digest()
    return [int(number) for number in np.frombuffer(digest, dtype="<u4")]


def resample(sums: Floats, seed: Sequence[int], draws: int = DRAWS) -> Floats:
    """Sums of `draws` samples drawn with replacement from one stratum, for many units: (units, 6, draws).

    sums: (units, excerpts, 6), at least two excerpts; seed: a number for each unit. One matrix product a
    unit. Units share a bank of independent draws, in which each starts where its seed says, and so does each
    stratum of a unit. Units that overlap there share some of the chance in their intervals, nothing else.
    """
    units, size, columns = sums.shape
    out = np.empty((units, columns, draws))
    for unit, number in enumerate(seed):
        np.matmul(sums[unit].T, weights(size, number, draws), out=out[unit])
    return out


def weights(size: int, seed: int, draws: int = DRAWS) -> Floats:
    """What each of `size` things, at least two, weighs in every draw: (size, draws)."""
    start = seed % _starts(size)
    return _bank(size, draws)[:, start : start + draws]


def interval(value: Floats, drawn: Floats, freedom: int) -> Floats:
    """The 95% interval of each correlation: (..., 2), NaN where more than a fifth of its draws have none.

    value: (...), drawn: (..., draws), correlations, NaN where there is none; freedom: one less than the
    excerpts in the smallest stratum.
    """
    defined = ~np.isnan(drawn)
    count = defined.sum(-1)
    z = np.arctanh(np.clip(np.where(defined, drawn, 0.0), -_CLIP, _CLIP))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = z.sum(-1) / count
        variance = (np.einsum("...d,...d->...", z, z) - count * mean**2) / (count - 1)
        half = student(freedom) * np.sqrt(np.maximum(variance, 0.0))
    half = np.where(count >= (1 - MAX_UNDEFINED) * drawn.shape[-1], half, np.nan)
    centre = np.arctanh(np.clip(value, -_CLIP, _CLIP))
    low = np.minimum(np.tanh(centre - half), value)
    high = np.maximum(np.tanh(centre + half), value)
    bounds: Floats = np.stack([low, high], axis=-1)
    return bounds


@lru_cache(maxsize=1024)
def student(freedom: int) -> float:
    """The 97.5% quantile of Student's t with a whole number of degrees of freedom.

    Bisects the finite sums for P(|t| < x) of Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    freedom = min(freedom, MAX_FREEDOM)
    if freedom < 1:
        raise ValueError(f"Student's t needs at least one degree of freedom, not {freedom}")
    low, high = 1.9, 13.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < 0.95 else (low, middle)
    return low


def student_between(freedom: float) -> float:
    """`student` for any number of degrees of freedom from 1: between whole numbers its logarithm is nearly
    straight over 1 / freedom. At most 3% more than it is below 2, 0.5% above.
    """
    below = math.floor(freedom)
    if below == freedom or below >= MAX_FREEDOM:
        return student(below)
    share = (1 / freedom - 1 / (below + 1)) / (1 / below - 1 / (below + 1))
    return float(student(below) ** share * student(below + 1) ** (1 - share))


def effective(weights: Floats) -> float:
    """As how many equal ones these weights (n,) count, not all 0: (Σw)² / Σw² (Kish 1965, "Survey
    sampling").
    """
    return float(weights.sum() ** 2 / (weights @ weights))


def within(x: float, freedom: int) -> float:
    """P(|t| < x)."""
    angle = math.atan2(x, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
