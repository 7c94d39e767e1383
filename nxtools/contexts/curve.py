"""How much of a unit's top activations is left with each length of context, and which is enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nxtools.score.bootstrap import student
from nxtools.stream import Record

PRESERVED = 0.9
FULL = "full"

Shortest = int | str  # tokens, or FULL


@dataclass(frozen=True)
class Left:
    """Activations at n peaks: with all the context, with a cut one, and the number of each one's document."""

    full: NDArray[np.float64]  # above zero
    left: NDArray[np.float64]
    documents: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Mean activation with the cut context over mean activation with all of it."""
        return float(self.left.sum() / self.full.sum())

    @property
    def interval(self) -> tuple[float, float] | None:
        """95%, documents being what was drawn; None with a single one.

        The ratio of two totals, linearised (Cochran 1977, "Sampling Techniques", 6.3), and Student's t.
        """
        count = int(self.documents.max(initial=-1)) + 1
        if count < 2:
            return None
        off = np.bincount(self.documents, self.left - self.share * self.full, count)
        error = math.sqrt(count / (count - 1) * float((off**2).sum())) / float(self.full.sum())
        half = student(count - 1) * error
        return self.share - half, self.share + half


def shortest(lengths: Sequence[int], shares: Sequence[float]) -> Shortest:
    """The shortest context from which on every longer one preserves PRESERVED; FULL where none of them does.

    lengths: rising, a share for each.
    """
    found: Shortest = FULL
    for length, share in zip(reversed(lengths), reversed(shares), strict=True):
        if share < PRESERVED:
            break
        found = length
    return found


def curve(lengths: Sequence[int], answers: Sequence[Record]) -> Record | None:
    """What goes on a unit line: a curve for each side, and the shortest context that is enough for both.

    answers: one for each length, as a Cut gives them. None where there are no peaks.
    """
    sides = {side: _of_side(lengths, [answer[side] for answer in answers]) for side in answers[0]}
    if not sides:
        return None
    enough = max((of["shortest"] for of in sides.values()), key=rank)
    return {"lengths": list(lengths), "shortest": enough, **sides}


def rank(shortest: Shortest) -> float:
    """To compare lengths by: the full context is longer than any other."""
    return math.inf if isinstance(shortest, str) else float(shortest)


def _of_side(lengths: Sequence[int], answers: Sequence[Record]) -> Record:
    every = [
        Left(np.array(one["full"]), np.array(one["left"]), np.array(one["documents"])) for one in answers
    ]
    return {
        "shortest": shortest(lengths, [one.share for one in every]),
        "left": [_short(one.share) for one in every],
        "intervals": [one.interval and [_short(bound) for bound in one.interval] for one in every],
        "cut": [one["cut"] for one in answers],
        "excerpts": len(every[0].full),
        "documents": int(every[0].documents.max()) + 1,
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")
