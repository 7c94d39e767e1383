"""What a version of an explanation is worth: correlations, and what a choice goes by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.score.figures import short
from nxtools.stream import Record

Numbers = NDArray[np.floating[Any]]


def worth(truth: Numbers, predicted: Numbers) -> float | None:
    """The correlation over all tokens of excerpts (n, tokens), NaN: left out; None where there is none."""
    if not truth.size:
        return None
    value = float(correlation(excerpt_sums(truth, predicted).sum(0)))
    return None if np.isnan(value) else short(value)


def merit(validation: Record) -> float:
    """What a choice goes by: the mean of the figures, an absent one below all others."""
    values = [-1.0 if value is None else float(value) for value in validation.values()]
    return sum(values) / len(values) if values else -1.0


def best(versions: Sequence[Record], current: int, first: int) -> tuple[int | None, str]:
    """Which of the versions from `first` on is better on validation than the current one, and why."""
    fresh = [place for place in range(first, len(versions)) if "validation" in versions[place]]
    if first == len(versions):
        return None, "the reviser said the same again"
    if not fresh:
        return None, "no new version could be simulated on validation"
    found = max(fresh, key=lambda place: (merit(versions[place]["validation"]), -place))
    before, after = (merit(versions[place]["validation"]) for place in (current, found))
    if after <= before:
        return None, "nothing was better on validation"
    return found, f"validation rose from {short(before)} to {short(after)}"


def paired(truth: Numbers, before: Numbers, after: Numbers) -> tuple[float | None, float | None]:
    """What two predictions are worth where both say something."""
    lacking = np.isnan(before) | np.isnan(after)
    old, new = (worth(truth, np.where(lacking, np.nan, one)) for one in (before, after))
    return old, new


def together(parts: Sequence[Numbers]) -> Numbers:
    """Excerpts of all parts as one array, NaN behind a text's end, so that they are centred together."""
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=np.nan) for p in parts]
    return np.concatenate(padded)
