"""How far two orders of explanations agree: by score and by people, or by one person and another.

Rows hang together where they are about the same unit, so whole units are drawn for the intervals, as excerpts
are in `nxtools.score.bootstrap`. All formulas take the weights of the rows in every draw: a row that weighs 2
counts as two rows that are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nxtools.score import bootstrap

Floats = NDArray[np.float64]

FEWEST = 5  # units, below which an interval would say nothing
_ROWS = 512  # that are compared with all others at a time


@dataclass(frozen=True)
class Agreed:
    """value: None where there is none; n: rows, or pairs, of so many units."""

    value: float | None
    interval: tuple[float, float] | None
    n: int
    units: int


def spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Correlation of ranks, equal values having their mean rank: (draws,), NaN where all x or y are equal.

    x, y: (n,); weights: (n, draws).
    """
    a, b = _ranks(x, weights), _ranks(y, weights)
    total = weights.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = a - (weights * a).sum(0) / total
        b = b - (weights * b).sum(0) / total
        spread = np.sqrt((weights * a * a).sum(0) * (weights * b * b).sum(0))
        found: Floats = np.clip((weights * a * b).sum(0) / spread, -1, 1)
    return found


def _ranks(values: Floats, weights: Floats) -> Floats:
    """Up to a constant that is the same for all: what weighs less, and half of what is equal."""
    found = np.empty(weights.shape)
    for start in range(0, len(values), _ROWS):
        some = values[start : start + _ROWS, None]
        below = (values < some) + (values == some) / 2
        found[start : start + _ROWS] = below @ weights
    return found


def kendall(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Kendall's tau-b: (pairs in the same order - pairs in the other) / √(pairs apart in x · in y): (draws,).

    x, y: (n,); weights: (n, draws). NaN where all x or y are equal.
    """
    same, apart_x, apart_y = (np.zeros(weights.shape[1]) for _ in range(3))
    for start in range(0, len(x), _ROWS):
        some = slice(start, start + _ROWS)
        in_x, in_y = np.sign(x[some, None] - x), np.sign(y[some, None] - y)
        for total, signs in ((same, in_x * in_y), (apart_x, np.abs(in_x)), (apart_y, np.abs(in_y))):
            total += np.einsum("nd,nd->d", weights[some], signs @ weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(same / np.sqrt(apart_x * apart_y))


def share(right: Floats, weights: Floats) -> Floats:
    """Of rows that are right (1), wrong (0) or neither (½): (draws,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(right @ weights / weights.sum(0))


def alpha(ratings: Sequence[Sequence[int]], scale: Sequence[int], weights: Floats) -> Floats:
    """Krippendorff's alpha for ordinal ratings: 1 if raters agree, 0 if they do as by chance: (draws,).

    1 - Σ o δ² / Σ e δ², over pairs of ratings of the same thing by two raters (o) and of any two (e); δ is
    how many ratings lie between two (Krippendorff 2011, "Computing Krippendorff's alpha-reliability").
    ratings: of each thing, by its raters; things with one rating say nothing. weights: (things, draws).
    """
    place = {value: number for number, value in enumerate(scale)}
    together = np.zeros((len(ratings), len(scale), len(scale)))
    for number, of_one in enumerate(ratings):
        if len(of_one) > 1:
            counts = np.bincount([place[value] for value in of_one], minlength=len(scale)).astype(float)
            together[number] = (np.outer(counts, counts) - np.diag(counts)) / (len(of_one) - 1)
    observed = np.einsum("nck,nd->dck", together, weights)
    marginal = observed.sum(2)
    up_to = np.cumsum(marginal, 1) - marginal / 2
    distance = (up_to[:, :, None] - up_to[:, None, :]) ** 2
    total = marginal.sum(1)
    expected = marginal[:, :, None] * marginal[:, None, :]  # the diagonal is at distance 0
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = (expected * distance).sum((1, 2))
        return np.asarray(1 - (total - 1) * (observed * distance).sum((1, 2)) / apart)


Formula = Callable[[Floats], Floats]  # of the weights of the rows


def measured(formula: Formula, units: Sequence[str]) -> Agreed:
    """A figure from -1 to 1 over rows, each of a unit, with its 95% interval."""
    n, names = len(units), sorted(set(units))
    value = float(formula(np.ones((n, 1)))[0]) if n else np.nan
    if np.isnan(value):
        return Agreed(None, None, n, len(names))
    interval = None
    if len(names) >= FEWEST:
        drawn = formula(_drawn(names)[np.searchsorted(names, list(units))])
        low, high = bootstrap.interval(np.array(value), drawn, len(names) - 1)
        interval = None if np.isnan(low) else (float(low), float(high))
    return Agreed(value, interval, n, len(names))


def measured_share(right: Floats, units: Sequence[str]) -> Agreed:
    """The share of right rows. Units are drawn together with one more that is right and one that is wrong
    throughout, so that a few that are all right are not taken for certainty.
    """
    n, names = len(right), sorted(set(units))
    if not n:
        return Agreed(None, None, 0, 0)
    value = float(right.mean())
    interval = None
    if len(names) >= FEWEST:
        usual = max(1, round(n / len(names)))
        made = np.r_[right, np.ones(usual), np.zeros(usual)]
        places = np.r_[np.searchsorted(names, list(units)), np.repeat(len(names) + np.arange(2), usual)]
        drawn = share(made, _drawn([*names, "right", "wrong"])[places])
        half = bootstrap.student(len(names) - 1) * float(np.std(drawn, ddof=1))
        centre = float(made.mean())
        interval = max(0.0, min(centre - half, value)), min(1.0, max(centre + half, value))
    return Agreed(value, interval, n, len(names))


def _drawn(names: Sequence[str]) -> Floats:
    return bootstrap.weights(len(names), bootstrap.seeds(" ".join(names), 1)[0])
