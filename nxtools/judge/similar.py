"""Hard negatives: silent excerpts on which units fire that mostly fire together with this one.

Which units those are is seen on evidence: the correlation of maxima over the excerpts of the random pool that
all units of a layer share. The excerpts come from its held-out part, where the activations of all are known,
so none is taken on which this unit is active; and nothing is learned from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nxtools.judge.beyond import JUDGED_ON, MARKED, maxima, strengths_of

if TYPE_CHECKING:
    from nxtools.pool import Shared

Floats = NDArray[np.float32]

NEAREST = 10  # units that count as similar
KEPT = 2  # layers of which maxima are remembered


@dataclass(frozen=True)
class Hard:
    """An excerpt of the pool's held-out part (its place there), and the unit (its column) that fires on it.
    marks: places of the tokens where that does most."""

    place: int
    column: int
    marks: frozenset[int]


class Similar:
    """Finds the excerpts for many units. sign: the side of all of them."""

    def __init__(self) -> None:
        self._peaks: dict[tuple[str, str], tuple[Floats, Floats]] = {}

    def nearest(self, pool: Shared, column: int, sign: str) -> list[tuple[int, float]]:
        """Columns of units whose maxima on evidence correlate most with those of one, and the correlations;
        none below 0."""
        evidence, _ = self._of(pool, sign)
        z = evidence - evidence.mean(axis=1, keepdims=True)
        length = np.sqrt((z * z).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            like = np.nan_to_num(z @ z[column] / (length * length[column]), nan=-1.0)
        like[column] = -1.0
        order = np.argsort(-like, kind="stable")[:NEAREST].tolist()
        return [(other, float(like[other])) for other in order if like[other] > 0]

    def excerpts(
        self, pool: Shared, column: int, sign: str, silent: NDArray[np.bool_], share: float
    ) -> Iterator[Hard]:
        """The strongest excerpts of each similar unit, the next of each in turn, every excerpt once.

        silent: (n,) where this unit is; share: of its maximum on evidence, above which another one is active.
        """
        evidence, held_out = self._of(pool, sign)
        orders = {
            other: np.argsort(-held_out[other], kind="stable").tolist()
            for other, _ in self.nearest(pool, column, sign)
        }
        taken: set[int] = set()
        for rank in range(held_out.shape[1]):
            for other, order in orders.items():
                place = order[rank]
                active = held_out[other, place] > share * evidence[other].max(initial=0.0)
                if silent[place] and active and place not in taken:
                    taken.add(place)
                    yield Hard(place, other, _marks(pool, other, sign, place))

    def _of(self, pool: Shared, sign: str) -> tuple[Floats, Floats]:
        """Maxima (units, excerpts) on the evidence and on the held-out part of a pool."""
        key = (pool.pool.digest, sign)
        if key not in self._peaks:
            while len(self._peaks) >= KEPT:
                del self._peaks[next(iter(self._peaks))]
            self._peaks[key] = (_peaks(pool, "evidence", sign), _peaks(pool, JUDGED_ON, sign))
        return self._peaks[key]


def _peaks(pool: Shared, which: str, sign: str) -> Floats:
    return np.stack(
        [
            maxima(strengths_of(pool.pool.activations(column, which), sign))
            for column in range(pool.pool.units)
        ]
    )


def _marks(pool: Shared, column: int, sign: str, place: int) -> frozenset[int]:
    strengths = np.nan_to_num(strengths_of(pool.pool.activations(column, JUDGED_ON)[place], sign), nan=0.0)
    return frozenset(np.flatnonzero(strengths >= MARKED * strengths.max()).tolist())
