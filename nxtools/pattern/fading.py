"""How much lingers of what a pattern says, and what it adds early: two numbers, fitted when its rules stand.

All that is asked of excerpts are the second moments of five columns: 1, what the rules say, what lingers of
it, how early it is, and the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.along import earliness, lingered
from nxtools.pattern.execute import said
from nxtools.pattern.fit import LEVELS, NOTHING, Along
from nxtools.pattern.index import Floats
from nxtools.pattern.sentence import FULL, TENTHS, Pattern
from nxtools.pattern.text import Text

ONE, SAID, LINGERED, EARLY, TRUTH = COLUMNS = range(5)
TINY = 1e-9
MOST = 3.0  # times what is said may linger
# What either must remove of the squared error that the rules leave, and what it must add to the correlation
# on validation: about what another literal would.
WORTH = 2e-3
GAIN = 1e-3


class Seen(NamedTuple):
    """Excerpts (E, T) with a unit's activations, NaN where they are left out."""

    text: Text
    truth: NDArray[np.float32]


@dataclass(frozen=True)
class Validation:
    """A unit's own validation excerpts, and those of the pool."""

    own: Seen
    pool: Seen

    def fits(self, pattern: Pattern) -> float:
        """How well a pattern predicts: the mean of the correlation on the pool and that on the unit's own
        excerpts with as many of the pool."""
        return fits(self.moments(pattern), Along(pattern.early / FULL, pattern.lingering / TENTHS))

    def moments(self, pattern: Pattern) -> list[Floats]:
        """Of each of the two."""
        own, pool = (columns(pattern, seen) for seen in (self.own, self.pool))
        return [moments(own) + moments(pool[:, : own.shape[1]]), moments(pool)]


def fits(seen: Iterable[Floats], along: Along) -> float:
    """The mean correlation of truth and prediction, from moments; 0 for one where there is none."""
    found = []
    for moment in seen:
        chosen = np.zeros(len(COLUMNS))
        chosen[SAID], chosen[LINGERED], chosen[EARLY] = 1, along.lingering, along.early
        centred = moment - np.outer(moment[ONE], moment[ONE]) / max(moment[ONE, ONE], 1)
        squares = float(chosen @ centred @ chosen), float(centred[TRUTH, TRUTH])
        least = 1e-12 * float(chosen @ moment @ chosen), 1e-12 * float(moment[TRUTH, TRUTH])
        varies = squares[0] > least[0] and squares[1] > least[1]
        found.append(float(chosen @ centred[TRUTH]) / np.sqrt(squares[0] * squares[1]) if varies else 0.0)
    return sum(found) / max(len(found), 1)


def columns(pattern: Pattern, seen: Seen) -> Floats:
    """(5, E, T): the columns of excerpts, 0 where the truth is left out."""
    levels, there = said(pattern, seen.text), ~np.isnan(seen.truth)
    found = np.empty((len(COLUMNS), *levels.shape))
    found[ONE] = there
    np.multiply(levels, there, out=found[SAID])
    np.multiply(lingered(levels - np.float32(pattern.otherwise / FULL)), there, out=found[LINGERED])
    np.multiply(earliness(seen.text.width), there, out=found[EARLY])
    found[TRUTH] = np.where(there, seen.truth, 0)
    return found


def said_along(pattern: Pattern, along: Along, text: Text) -> NDArray[np.float32]:
    """(E, T): what lingers of a pattern's rules, and what is early, as shares of its scale."""
    beyond = said(pattern, text) - np.float32(pattern.otherwise / FULL)
    return np.float32(along.lingering) * lingered(beyond) + np.float32(along.early) * earliness(text.width)


def moments(columns: Floats) -> Floats:
    """(5, 5): sums of the products of columns (5, E, T)."""
    flat = columns.reshape(len(columns), -1)
    found: Floats = flat @ flat.copy().T  # several times faster than by itself
    return found


def faded(pattern: Pattern, evidence: Seen, validation: Validation) -> tuple[Along, float]:
    """What lingers and what is early, in shares of the scale, each only where it removes error on random
    excerpts of the evidence and predicts validation better; and how well the pattern predicts it without."""
    moment = moments(columns(pattern, evidence))
    error, shares = _solved(moment, (ONE, SAID))
    if not pattern.rules or shares[1] <= 0:  # what the rules say is no measure
        return NOTHING, 0.0
    left = [one for one in (LINGERED, EARLY) if _solved(moment, (ONE, SAID, one))[0] < (1 - WORTH) * error]
    seen = validation.moments(pattern) if left else []
    before = most = fits(seen, NOTHING)
    best = NOTHING
    taken: tuple[int, ...] = (ONE, SAID)
    while left:
        tried = [(along, fits(seen, along)) for along in (_along(moment, (*taken, one)) for one in left)]
        along, found = max(tried, key=lambda one: one[1])
        if found < most + GAIN:
            break
        best, most = along, found
        taken += (left.pop(tried.index((along, found))),)
    return best, before


def _along(moment: Floats, chosen: tuple[int, ...]) -> Along:
    """The shares of columns; what lingers as it is printed."""
    share = dict(zip(chosen, _solved(moment, chosen)[1].tolist(), strict=True))
    if share[SAID] <= 0:
        return NOTHING
    early, lingering = (share.get(column, 0.0) / share[SAID] for column in (EARLY, LINGERED))
    tenths = LEVELS[np.abs(LEVELS - np.clip(lingering, 0, MOST) * TENTHS).argmin()]
    return Along(float(np.clip(early, -1, 1)), float(tenths) / TENTHS)


def _solved(moment: Floats, chosen: tuple[int, ...]) -> tuple[float, Floats]:
    """The squared error that is left of the truth by the best sum of some columns, and their shares in it."""
    sums = moment[list(chosen), TRUTH]
    squares = moment[np.ix_(chosen, chosen)]
    squares.flat[:: len(chosen) + 1] += TINY * squares.trace()  # where one follows from the others
    solution: Floats = np.linalg.solve(squares, sums).astype(np.float64)
    return float(moment[TRUTH, TRUTH] - solution @ sums), solution
