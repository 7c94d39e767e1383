"""The ceiling of simulators that answer in whole numbers from 0 to 10."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import UsageError
from nxtools.score.correlation import correlation, excerpt_sums

Activations = NDArray[np.float32]

LEVELS = 10


def rounded(activations: Activations, sign: str) -> Activations:
    """Activations as an explainer is shown them: floor(10 x / max), x the side of the unit that is explained.

    "+" gives 0..10 for what is above zero, "-" 0..-10 for what is below, "+-" both, by the larger maximum.
    The maximum is over all of `activations` (any shape); if it is not positive all levels are 0. NaN stays.
    Source of the formula: Bills et al. 2023, "Language models can explain neurons in language models".
    """
    if sign == "+":
        side = np.maximum(activations, 0.0)
    elif sign == "-":
        side = np.minimum(activations, 0.0)
    elif sign == "+-":
        side = activations
    else:
        raise UsageError(f'sign "{sign}" is not known', hint='use "+", "-" or "+-"')
    size = np.abs(side)
    largest = np.max(size, initial=0.0, where=~np.isnan(size))
    if not largest > 0:
        return np.where(np.isnan(size), size, np.float32(0.0))
    levels = np.floor(LEVELS * (size.astype(np.float64) / largest))
    out: Activations = np.copysign(np.minimum(levels, LEVELS), side).astype(np.float32)
    return out


def ceiling(activations: Activations, sign: str) -> float | None:
    """Correlation of activations (excerpts, tokens) with themselves rounded, or None where there is none."""
    value = float(correlation(excerpt_sums(activations, rounded(activations, sign)).sum(0)))
    return None if math.isnan(value) else value
