"""Positions in groups that a rule may take as a whole, and what is left to each group under the rules so far.

A rule that is tried in the place of another sees other errors only where that one spoke. So what is left is
summed over all positions once for some rules, and then only corrected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nxtools.pattern.index import totals
from nxtools.revise.fitting import Evidence, Fitted
from nxtools.revise.rows import Floats, Numbers


class Left(NamedTuple):
    """Of each group: sums of weighted errors, weights, squared weights: (groups,)."""

    sums: Floats
    weights: Floats
    squares: Floats


class Gone(NamedTuple):
    """Positions at which rules would no longer speak, and what is said there then, how specifically."""

    at: Numbers
    predicted: Floats
    rank: Floats


@dataclass(frozen=True)
class Grouping:
    """numbers: (positions,) of groups, `size` for those in none. below: positions are open to a new rule
    where none speaks that is as specific as this."""

    numbers: Numbers
    size: int
    below: float

    def total(self, values: Floats, at: Numbers | None = None) -> Floats:
        """(groups,): sums of values (positions,), or of those that stand at positions `at`."""
        numbers = self.numbers if at is None else self.numbers[at]
        return totals(numbers, values, self.size + 1)[:-1]

    def left(self, evidence: Evidence, fitted: Fitted, weights: Floats, squares: Floats) -> Left:
        """What rules leave. weights, squares: those of all positions of the groups."""
        taken = fitted.rank >= self.below
        residual = np.where(taken, 0.0, evidence.weights * (evidence.values - fitted.predicted))
        at = np.flatnonzero(taken)
        return Left(
            self.total(residual),
            np.maximum(weights - self.total(evidence.weights[at], at), 0.0),
            np.maximum(squares - self.total(evidence.squares[at], at), 0.0),
        )

    def without(self, left: Left, evidence: Evidence, fitted: Fitted, gone: Gone) -> Left:
        """What is left if some rules that name a token are not there."""
        at = gone.at
        was, will = fitted.rank[at] < self.below, gone.rank < self.below
        if not will.any():
            return left
        values, weights = evidence.values[at], evidence.weights[at]
        more = np.where(will, values - gone.predicted, 0.0) - np.where(
            was, values - fitted.predicted[at], 0.0
        )
        opened = np.where(will & ~was, 1.0, 0.0)
        return Left(
            left.sums + self.total(weights * more, at),
            left.weights + self.total(weights * opened, at),
            left.squares + self.total(evidence.squares[at] * opened, at),
        )


class Pairs(Grouping):
    """Positions by the two tokens that a rule with a kind looks at: one is named, the other of the kind."""

    def __init__(self, tokens: Numbers, named: int, size: int, below: float) -> None:
        """tokens: (positions, at least 2), as in `Evidence`. named: how many tokens back that one is, 0 or 1.
        size: of the vocabulary."""
        at = np.flatnonzero(tokens[:, 1] >= 0)
        pairs, number = np.unique(tokens[at, named] * size + tokens[at, 1 - named], return_inverse=True)
        numbers = np.full(len(tokens), len(pairs), np.intp)
        numbers[at] = number
        super().__init__(numbers, len(pairs), below)
        tokens_, starts = np.unique(pairs // size, return_index=True)
        for name, value in (("others", pairs % size), ("named", tokens_), ("starts", starts)):
            object.__setattr__(self, name, value)

    others: Numbers
    named: Numbers
    starts: Numbers

    def of(self, place: int) -> slice:
        """The pairs of the token `named[place]`."""
        last = place + 1 == len(self.starts)
        return slice(self.starts[place], self.size if last else self.starts[place + 1])

    def bounds(self, left: Left) -> Floats:
        """(named tokens,): what no kind beside each of them can surpass in removing squared error.

        That is (Σs)² / Σw over some of its pairs, at most Σ s²/w over those of one sign (Cauchy and Schwarz).
        """
        each = left.sums**2 / np.maximum(left.weights, 1e-12)
        positive, negative = (
            np.add.reduceat(np.where(side, each, 0.0), self.starts) if self.size else each
            for side in (left.sums > 0, left.sums < 0)
        )
        return np.maximum(positive, negative)
