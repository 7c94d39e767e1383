"""What a pattern is learned from and checked on, and what a search chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from nxtools.pattern.atoms import Atom
from nxtools.pattern.index import Floats, PoolIndex, totals
from nxtools.pattern.tree import LONGEST, NONE, Contexts, Numbers


@dataclass(frozen=True, slots=True)
class Evidence:
    """A unit's evidence: first the valid positions of the pool, then those of its own excerpts.

    values, weights: (positions,). of_own: (own positions, LONGEST) contexts, -1 for none.
    trust: (contexts + 1,) the weight that the prediction so far has against a new rule.
    weight_of, sum_of: (contexts + 1,) the weight of the positions of each context, and the weighted sum of
    their values. The last entry of arrays by context is for "none" (-1), and 0.
    """

    index: PoolIndex
    contexts: Contexts
    values: Floats
    weights: Floats
    of_own: Numbers
    trust: Floats
    weight_of: Floats
    sum_of: Floats

    def lower(self, by: float) -> Evidence:
        """The same with all values lower."""
        return replace(self, values=self.values - by, sum_of=self.sum_of - by * self.weight_of)

    def positions(self, number: int) -> Numbers:
        """Where a context stands: positions of the pool, then own ones."""
        known = number < len(self.index.contexts)
        of_pool = self.index.occurrences(self.contexts, number) if known else NONE
        own = np.flatnonzero(self.of_own[:, self.contexts.length[number] - 1] == number)
        return np.concatenate([of_pool, own + len(self.index.of_position)])

    def rows(self, positions: Numbers) -> Numbers:
        """(positions, LONGEST): their contexts, -1 for none."""
        pool = len(self.index.of_position)
        of_pool = positions < pool
        rows = np.empty((len(positions), LONGEST), dtype=np.intp)
        rows[of_pool] = self.index.of_position[positions[of_pool]]
        rows[~of_pool] = self.of_own[positions[~of_pool] - pool]
        return rows


def gathered(
    index: PoolIndex,
    contexts: Contexts,
    of_own: Numbers,
    values: Floats,
    weights: Floats,
    trust: Floats,
    of_pool: Floats,
) -> Evidence:
    """Evidence with its sums by context. `of_pool`: (contexts of the pool,) the weight of its positions."""
    size, pool = len(contexts), len(index.of_position)
    numbers = np.where(of_own < 0, size, of_own).ravel()
    weighted = weights * values
    weight_of = totals(numbers, np.repeat(weights[pool:], LONGEST), size + 1)
    sum_of = totals(numbers, np.repeat(weighted[pool:], LONGEST), size + 1)
    weight_of[: len(of_pool)] += of_pool
    sum_of[: len(of_pool)] += index.sums(weighted[:pool])
    weight_of[size] = sum_of[size] = 0
    return Evidence(index, contexts, values, weights, of_own, trust, weight_of, sum_of)


@dataclass(frozen=True, slots=True)
class Check:
    """Validation, by token: kinds are chosen only where they are right there too.

    weight, sum: (tokens of Kinds.ids,) how often the token occurs, and the sum of its values.
    """

    weight: Floats
    sum: Floats


class Choice(NamedTuple):
    """A chosen rule: a context, a kind, or what is added after `before` at `positions`. The others are -1,
    or None. `spent`: how many tokens and kinds are named up to this one.
    """

    spent: int
    context: int = -1
    kind: int = -1
    before: Atom | None = None
    positions: Numbers = NONE
