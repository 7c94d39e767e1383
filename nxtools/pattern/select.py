"""Choose rules greedily: the one that removes the most squared error per literal, again and again.

The error is that of the pattern so far on the evidence: every position is predicted by the longest chosen
context that matches it, and where none does, by a background to which the chosen kinds of its token add. For
every context and every kind, the sum of the residuals that it would take over, and their weight, are kept
up to date, so the gain of all candidates is one expression; only the positions that change hands are touched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nxtools.pattern.index import LONGEST, Contexts, Floats, Numbers, PoolIndex, totals
from nxtools.pattern.kinds import Kinds

# A kind must remove about twice the error that a token must: tokens that it covers are often named later,
# one by one, and what it did for them is wasted.
KIND_GAIN = 0.55
WORTH = 1e-3  # of the squared error: what a literal must remove


@dataclass(frozen=True, slots=True)
class Evidence:
    """A unit's evidence: first the valid positions of the pool, then those of its own excerpts.

    values, weights: (positions,). of_own: (own positions, LONGEST) contexts, len(contexts) for none.
    """

    contexts: Contexts
    values: Floats
    weights: Floats
    of_own: Numbers


@dataclass(frozen=True, slots=True)
class Check:
    """Validation, by token: kinds are chosen only where they are right there too.

    weight, sum: (tokens of Kinds.ids,) how often the token occurs, and the sum of its values.
    """

    weight: Floats
    sum: Floats


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen rule: a context (`kind` is -1) with the positions that it took over, or a kind."""

    context: int
    kind: int
    positions: Numbers


def select(
    index: PoolIndex, evidence: Evidence, literals: int, shrink: float, kinds: Kinds | None, check: Check
) -> list[Choice]:
    """Rules in the order of choice, until they name `literals` tokens and kinds or nothing is left to gain.

    `shrink`: how many positions' worth of trust the prediction so far has against a new rule.
    """
    search = _Search(index, evidence, shrink)
    if kinds is not None and len(kinds):
        search.consider(kinds, check)
    choices: list[Choice] = []
    while search.spent < literals and (choice := search.step()) is not None:
        choices.append(choice)
    return choices


class _Search:
    """Contexts have numbers, one more stands for "none"; `head` numbers are those of tokens alone.

    A position is free while no chosen context has taken it. For each context: `sum` and `weight` of the
    residuals of the positions that it would take, and `free`, the weight of those that are free.
    """

    def __init__(self, index: PoolIndex, evidence: Evidence, shrink: float) -> None:
        contexts, values, weights = evidence.contexts, evidence.values, evidence.weights
        self.index, self.evidence, self.shrink = index, evidence, shrink
        self.none = len(contexts)
        self.pool = len(index.of_position)
        self.free_weight = float(weights.sum())
        self.free_sum = 0.0
        self.spent = 0.0
        mean = float(values @ weights) / self.free_weight
        residuals = (values - mean) * weights
        of_own = evidence.of_own.ravel()
        self.weight = totals(of_own, np.repeat(weights[self.pool :], LONGEST), self.none + 1)
        self.sum = totals(of_own, np.repeat(residuals[self.pool :], LONGEST), self.none + 1)
        self.weight[: len(index.contexts)] += index.counts
        self.sum[: len(index.contexts)] += index.sums(residuals[: self.pool])
        self.sum[self.none] = self.weight[self.none] = 0
        self.free = self.weight.copy()
        self.cost = np.append(contexts.length, 1).astype(np.float64)
        self.value = 1 / ((self.weight + shrink) * self.cost)  # of a squared sum
        self.background = np.full(self.none + 1, mean)  # prediction for free positions, by head
        self.predicted = np.zeros(len(values))  # for the others, by position
        self.taken = np.zeros(len(values), dtype=np.intp)  # length of the context that took the position
        self.named: set[int] = set()
        self.total = float((residuals * (values - mean)).sum())
        self.kinds: Kinds | None = None

    def consider(self, kinds: Kinds, check: Check) -> None:
        """Let kinds compete with contexts."""
        contexts, alone = self.evidence.contexts, self.index.alone
        added = np.flatnonzero(contexts.length[len(self.index.contexts) :] == 1) + len(self.index.contexts)
        self.kinds = kinds
        self.kinds_of_added = {int(head): kinds.of_id(int(contexts.token[head])) for head in added}
        padding = np.zeros(len(kinds.ids) - alone)
        self.kind_sum = kinds.sums(np.concatenate([self.sum[:alone], padding]))
        self.kind_weight = kinds.sums(np.concatenate([self.free[:alone], padding]))
        for head, of in self.kinds_of_added.items():
            self.kind_sum[of] += self.sum[head]
            self.kind_weight[of] += self.free[head]
        self.kind_open = np.full(len(kinds), KIND_GAIN)
        self.check_weight = check.weight.copy()
        self.check_sum = check.sum.copy()
        self.check_background = np.full(len(kinds.ids), self.background[0])

    def step(self) -> Choice | None:
        """Take the best rule."""
        gains = self.sum * self.sum * self.value
        context = int(gains.argmax())
        while self.kinds is not None:
            kind_gains = self.kind_sum * self.kind_sum / (self.kind_weight + self.shrink) * self.kind_open
            kind = int(kind_gains.argmax())
            if kind_gains[kind] <= max(gains[context], WORTH * self.total):
                break
            self.kind_open[kind] = 0
            if self._holds(kind):
                return self._take_kind(kind)
        return self._take_context(context) if gains[context] > WORTH * self.total else None

    def _holds(self, kind: int) -> bool:
        """Whether the kind removes error on the validation tokens that no rule names alone."""
        assert self.kinds is not None
        members = self.kinds.members(kind)
        step = self.kind_sum[kind] / (self.kind_weight[kind] + self.shrink)
        weight = self.check_weight[members]
        residual = self.check_sum[members] - self.check_background[members] * weight
        return bool(2 * step * residual.sum() > step * step * weight.sum())

    def _take_kind(self, kind: int) -> Choice:
        assert self.kinds is not None
        step = self.kind_sum[kind] / (self.kind_weight[kind] + self.shrink)
        members = self.kinds.members(kind)
        self.check_background[members] += step
        heads = members[members < self.index.alone]
        added = [head for head, of in self.kinds_of_added.items() if kind in of]
        inside = np.zeros(self.none + 1, dtype=bool)
        inside[heads] = inside[added] = True
        self.background[inside] += step
        self.free_sum -= step * self.kind_weight[kind]
        head = np.append(self.evidence.contexts.head, self.none)
        self.sum -= step * self.free * inside[head]
        which, of = self.kinds.of(heads)
        np.subtract.at(self.kind_sum, of, step * self.free[heads][which])
        for each in added:
            self.kind_sum[self.kinds_of_added[each]] -= step * self.free[each]
        self.spent += 1
        self._centre()
        return Choice(-1, kind, np.zeros(0, dtype=np.intp))

    def _take_context(self, number: int) -> Choice:
        contexts, values = self.evidence.contexts, self.evidence.values
        length, head = int(contexts.length[number]), int(contexts.head[number])
        step = self.sum[number] / (self.weight[number] + self.shrink)
        positions, rows = self._positions(number, length)
        weights, taken = self.evidence.weights[positions], self.taken[positions]
        free = taken == 0
        residuals = values[positions] - np.where(free, self.background[head], self.predicted[positions])
        # Contexts up to this length lose positions that they could take; longer ones see new residuals.
        losing = (np.arange(LONGEST) < length) & (taken[:, None] <= np.arange(LONGEST))
        longer = np.arange(LONGEST) >= length
        weighted = (weights * residuals)[:, None]
        np.subtract.at(self.sum, rows, np.where(losing, weighted, (weights * step)[:, None] * longer))
        np.subtract.at(self.weight, rows, np.where(losing, weights[:, None], 0))
        freed = np.where(free, weights, 0)
        np.subtract.at(self.free, rows, np.broadcast_to(freed[:, None], rows.shape))
        leaving, freed_weight = float(freed @ residuals), float(freed.sum())
        self.free_sum -= leaving
        self.free_weight -= freed_weight
        if self.kinds is not None:
            self._leave_kinds(head, length, leaving, freed_weight)
        self.predicted[positions] = values[positions] - residuals + step
        self.taken[positions] = length
        self.sum[number] = self.sum[self.none] = self.weight[self.none] = self.free[self.none] = 0
        touched = rows[:, :length].ravel()
        if head not in self.named:
            self.named.add(head)
            same = np.flatnonzero(contexts.head == head)
            self.cost[same[contexts.length[same] > 1]] -= 1
            self.spent += 1
            touched = np.concatenate([touched, same])
        self.spent += length - 1
        self.value[touched] = 1 / ((self.weight[touched] + self.shrink) * self.cost[touched])
        self._centre()
        return Choice(number, -1, positions)

    def _positions(self, number: int, length: int) -> tuple[Numbers, Numbers]:
        """Positions that a context takes, and the contexts of each: (positions, LONGEST)."""
        own = np.flatnonzero(self.evidence.of_own[:, length - 1] == number)
        positions, rows = own + self.pool, self.evidence.of_own[own]
        if number < len(self.index.contexts):
            of_pool = self.index.positions[self.index.starts[number] : self.index.starts[number + 1]]
            pool_rows = self.index.of_position[of_pool]
            if self.none != len(self.index.contexts):
                pool_rows = np.where(pool_rows == len(self.index.contexts), self.none, pool_rows)
            positions, rows = np.concatenate([of_pool, positions]), np.concatenate([pool_rows, rows])
        open = self.taken[positions] < length
        return positions[open], rows[open]

    def _leave_kinds(self, head: int, length: int, residual: float, weight: float) -> None:
        """Positions with the token `head` are free no more."""
        assert self.kinds is not None
        if head in self.kinds_of_added:
            of = self.kinds_of_added[head]
        else:
            _, of = self.kinds.of(np.array([head]))
            if length == 1:
                self.check_weight[head] = self.check_sum[head] = 0
        self.kind_sum[of] -= residual
        self.kind_weight[of] -= weight

    def _centre(self) -> None:
        """Move the background to the mean of the free positions."""
        if self.free_weight < 1e-9:
            return
        shift = self.free_sum / self.free_weight
        self.free_sum = 0.0
        self.background += shift
        self.sum -= shift * self.free
        if self.kinds is not None:
            self.kind_sum -= shift * self.kind_weight
            self.check_background += shift
