"""Simulations brought to the scale of the unit, by what is known on validation's excerpts.

* none: as they are;
* linear: the least squares line, never a falling one;
* isotonic: the best function that nowhere falls (Ayer et al. 1955, pool adjacent violators);
* quantile: each simulated value becomes the true value at the same place in the order;
* scored: a line fitted on the scored excerpts themselves. Bills et al. 2023 did so; it flatters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score.figures import short

Floats = NDArray[np.float64]
Activations = NDArray[np.float32]

KINDS = ("none", "linear", "isotonic", "quantile", "scored")


@dataclass(frozen=True)
class Line:
    """A calibration: true activation ≈ slope · simulated + intercept."""

    slope: float
    intercept: float

    def __call__(self, simulated: NDArray[Any]) -> Activations:
        return (self.slope * simulated.astype(np.float64) + self.intercept).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Curve:
    """A calibration that is straight between points and level outside: x rising, y nowhere falling."""

    x: Floats
    y: Floats

    def __call__(self, simulated: NDArray[Any]) -> Activations:
        found = np.interp(simulated.astype(np.float64), self.x, self.y)
        return np.where(np.isnan(simulated), np.nan, found).astype(np.float32)


Calibration = Line | Curve


def described(calibration: Calibration) -> dict[str, float]:
    """What a score says of its calibration."""
    if isinstance(calibration, Curve):
        return {"points": len(calibration.x)}
    return {"slope": short(calibration.slope), "intercept": short(calibration.intercept)}


def calibrate(simulated: NDArray[Any], truth: NDArray[Any]) -> Line | None:
    """The least squares line through validation's tokens (any shape; NaN is left out), None where there are
    fewer than two. A constant simulation gets the mean, and so does one that falls where the unit rises: to
    turn it round would be to make another explanation of it.
    """
    both = ~np.isnan(simulated) & ~np.isnan(truth)
    if both.sum() < 2:
        return None
    x, y = simulated[both].astype(np.float64), truth[both].astype(np.float64)
    centred = x - x.mean()
    square = float(centred @ centred)
    slope = 0.0 if square <= 1e-12 * float(x @ x) else max(float(centred @ y) / square, 0.0)
    return Line(slope, float(y.mean() - slope * x.mean()))


def fitted(kind: str, simulated: NDArray[Any], truth: NDArray[Any]) -> Calibration | None:
    """A calibration of a kind from tokens (any shape; NaN is left out); None for fewer than two."""
    both = ~np.isnan(simulated) & ~np.isnan(truth)
    if both.sum() < 2:
        return None
    if kind == "none":
        return Line(1.0, 0.0)
    if kind in ("linear", "scored"):
        return calibrate(simulated, truth)
    make: Callable[[Floats, Floats], Curve] = isotonic if kind == "isotonic" else quantile
    return make(simulated[both].astype(np.float64), truth[both].astype(np.float64))


def isotonic(x: Floats, y: Floats) -> Curve:
    """The least squares fit that nowhere falls: (n,) twice."""
    points, place, count = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(place, y) / count
    levels: list[tuple[float, int, int]] = []  # mean, tokens, points
    for mean, tokens in zip(means.tolist(), count.tolist(), strict=True):
        members = 1
        while levels and levels[-1][0] >= mean:
            other, more, others = levels.pop()
            mean = (mean * tokens + other * more) / (tokens + more)
            tokens, members = tokens + more, members + others
        levels.append((mean, tokens, members))
    fit = np.repeat([level[0] for level in levels], [level[2] for level in levels])
    return Curve(points, fit)


def quantile(x: Floats, y: Floats) -> Curve:
    """Each value of x to the mean of the y that stand where it stands in the order: (n,) twice."""
    points, first, count = np.unique(np.sort(x), return_index=True, return_counts=True)
    sums = np.add.reduceat(np.sort(y), first)
    return Curve(points, sums / count)
