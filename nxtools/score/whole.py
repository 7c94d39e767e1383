"""Held-out text as it is, estimated from the excerpts that were kept: how many each of them stands for.

A unit's top and bottom excerpts were kept for certain and stand for themselves. The random pool is a sample
of all the others; where the line shows spread excerpts as well, the two samples together stand for the
excerpts of each stratum (post-stratification: Holt and Smith 1979, "Post stratification"), whose number is
estimated from the spread excerpts' inclusion probabilities (Horvitz and Thompson 1952).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nxtools.subject.bins import strata_of

Floats = NDArray[np.float64]
Activations = NDArray[np.float32]

CERTAIN = ("top", "bottom")


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """How many held-out excerpts each of a unit's stands for; 0: it is there in another role, or in no role.

    line: (excerpts of the line,), pool: (excerpts of the pool,).
    """

    line: Floats
    pool: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Excerpts of the held-out set: names and true activations (excerpts, tokens)."""

    names: Sequence[str]
    truth: Activations


def weights(
    line: Kept,
    picks: Sequence[str],
    probabilities: Sequence[float | None],
    pool: Kept,
    size: int,
    *,
    signed: bool,
) -> Weights:
    """What the excerpts of a unit line and of the random pool stand for, among `size` held-out ones.

    probabilities: of spread excerpts, to be on the line. signed: both sides of the unit count.
    """
    certain = {name for name, pick in zip(line.names, picks, strict=True) if pick in CERTAIN}
    found = Weights(np.zeros(len(line.names)), np.zeros(len(pool.names)))
    spread: dict[str, int] = {}
    for place, (name, pick, likely) in enumerate(zip(line.names, picks, probabilities, strict=True)):
        if pick in CERTAIN:
            found.line[place] = 1.0
        elif pick == "spread" and likely and name not in certain:
            spread[name] = place
    sampled = np.array([name not in certain and name not in spread for name in pool.names], bool)
    left = float(max(size - len(certain), 0))
    if spread:
        at = np.array(list(spread.values()))
        stratum = _strata(line.truth[at], signed)
        strata = np.where(sampled, _strata(pool.truth, signed), -1)
        stands_for = 1.0 / np.array([probabilities[place] for place in at.tolist()], np.float64)
        for one in np.unique(stratum).tolist():
            mine, theirs = stratum == one, strata == one
            there = float(stands_for[mine].sum())
            each = there / (mine.sum() + theirs.sum())
            found.line[at[mine]] = found.pool[theirs] = max(each, 1.0)
            left -= there
            sampled &= ~theirs
    if sampled.any():
        found.pool[sampled] = max(left / sampled.sum(), 1.0)
    return found


def _strata(truth: Activations, signed: bool) -> NDArray[np.int32]:
    high = np.nanmax(truth, axis=1, initial=0.0).astype(np.float32)
    low = np.nanmin(truth, axis=1, initial=0.0).astype(np.float32) if signed else None
    return strata_of(high, low)
