"""Choose rules greedily: the one that removes the most squared error per literal, again and again.

The error is that of the pattern so far on the evidence: every position is predicted by the longest chosen
context that matches it, and where none does, by a background to which the chosen kinds of its token add. For
every context and every kind, the sum of the residuals that it would take over, and their weight, are kept
up to date, so the gain of all candidates is one expression; only the positions that change hands are touched.
"""

from __future__ import annotations

import numpy as np

from nxtools.pattern.adding import Adding
from nxtools.pattern.before import Before
from nxtools.pattern.evidence import Check, Choice, Evidence
from nxtools.pattern.index import LONGEST, Floats, Numbers, PoolIndex, totals
from nxtools.pattern.kinds import Kinds

# A kind must remove about twice the error that a token must: tokens that it covers are often named later,
# one by one, and what it did for them is wasted.
KIND_GAIN = 0.55
KIND_GAIN_BY_MEANS = 0.8  # where the means of all its tokens are known
# Contexts that gain nearly as much as the best one are taken with it: several times faster, as good.
NEARLY = 0.5
SIZES = np.arange(1, LONGEST + 1)
SETTLING = 3  # rounds in which a new kind and the background find their values
NONE = np.zeros(0, dtype=np.intp)
TINY = 1e-9  # weight of no position
# What a literal must remove, of the squared error and of what all before it have removed: where one token
# says nearly everything, little is added that only makes the sentence longer.
WORTH = 3e-4
WORTH_BESIDE = 4e-3


def select(
    index: PoolIndex,
    evidence: Evidence,
    literals: int,
    shrink: float,
    kinds: Kinds | None,
    check: Check,
    kind_gain: float = KIND_GAIN,
    before: Before | None = None,
) -> list[Choice]:
    """Rules in the order of choice, until they name `literals` tokens and kinds or nothing is left to gain.

    `shrink`: how many positions' worth of trust the prediction so far has against a new kind. `before`: what
    may be added after what; it needs kinds.
    """
    search = Search(index, evidence, shrink)
    if kinds is not None:
        search.consider(kinds, check, kind_gain)
        if before is not None:
            search.adding = Adding(search, before, kind_gain)
    choices: list[Choice] = []
    while search.spent < literals and (taken := search.step()):
        choices += taken
    return choices


class Search:
    """Arrays are by number of context, their last entry for "none" (-1); heads are tokens alone.

    A position is free while no chosen context has taken it. For each context: `sum` and `weight` of the
    residuals of the positions that it would take, and `free`, the weight of those that are free.
    """

    def __init__(self, index: PoolIndex, evidence: Evidence, shrink: float) -> None:
        contexts, values, weights = evidence.contexts, evidence.values, evidence.weights
        self.index, self.evidence, self.shrink = index, evidence, shrink
        self.trust = evidence.trust
        self.none = len(contexts)
        self.pool = len(index.of_position)
        self.free_weight = float(weights.sum())
        self.free_sum = 0.0
        self.spent = 0
        mean = float((values * weights).sum()) / self.free_weight
        residuals = (values - mean) * weights
        of_own = np.where(evidence.of_own < 0, self.none, evidence.of_own).ravel()
        self.weight = totals(of_own, np.repeat(weights[self.pool :], LONGEST), self.none + 1)
        self.sum = totals(of_own, np.repeat(residuals[self.pool :], LONGEST), self.none + 1)
        self.weight[: len(index.contexts)] += evidence.of_pool
        self.sum[: len(index.contexts)] += index.sums(residuals[: self.pool])
        self.sum[self.none] = self.weight[self.none] = 0
        self.free = self.weight.copy()
        self.cost = np.append(contexts.length, 1).astype(np.float64)
        self.head = np.append(contexts.head, self.none)
        self.background = np.full(self.none + 1, mean)  # prediction for free positions, by head
        self.values = values.copy()  # less what is added after what stands before
        self.predicted = np.zeros(len(values))  # for the others, by position
        self.taken = np.zeros(len(values), dtype=np.intp)  # length of the context that took the position
        self.named = np.zeros(self.none + 1, dtype=bool)  # by head
        self.total = float((residuals * (values - mean)).sum())
        self.removed = 0.0  # of that, by what was chosen
        self.kinds: Kinds | None = None
        self.adding: Adding | None = None

    def consider(self, kinds: Kinds, check: Check, kind_gain: float = KIND_GAIN) -> None:
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
        self.kind_open = np.full(len(kinds), kind_gain)
        self.check_weight = check.weight.copy()
        self.check_sum = check.sum.copy()
        self.check_background = np.full(len(kinds.ids), self.background[0])

    def step(self) -> list[Choice]:
        """Take the best kind, or the best context and those nearly as good that do not touch it."""
        gains = self.sum * self.sum / ((self.weight + self.trust) * self.cost)
        best = float(gains.max())
        worth = max(WORTH * self.total, WORTH_BESIDE * self.removed)
        if self.adding is not None and (added := self.adding.best(max(best, worth))) is not None:
            return [added]
        while self.kinds is not None and len(self.kinds):
            kind_gains = self.kind_gains()
            kind = int(kind_gains.argmax())
            if kind_gains[kind] <= max(best, worth):
                worth = max(worth, float(kind_gains[kind]))
                break
            gain = float(kind_gains[kind] / self.kind_open[kind])
            self.kind_open[kind] = 0
            if self._holds(kind):
                self.removed += gain
                return [self._take_kind(kind)]
        good = np.flatnonzero(gains > max(worth, NEARLY * best))
        good = good[np.argsort(-gains[good], kind="stable")]
        _, first = np.unique(self.evidence.contexts.head[good], return_index=True)
        good = good[np.sort(first)]
        self.removed += float((gains[good] * self.cost[good]).sum())
        return self._take_contexts(good) if len(good) else []

    def kind_gains(self) -> Floats:
        """(kinds,): the error that each would remove, for choosing."""
        gains: Floats = self.kind_sum * self.kind_sum / (self.kind_weight + self.shrink) * self.kind_open
        return gains

    def _holds(self, kind: int) -> bool:
        """Whether the kind removes error on the validation tokens that no rule names alone."""
        assert self.kinds is not None
        members = self.kinds.members(kind)
        step = self.kind_sum[kind] / (self.kind_weight[kind] + self.shrink)
        weight = self.check_weight[members]
        residual = self.check_sum[members] - self.check_background[members] * weight
        return bool(2 * step * residual.sum() > step * step * weight.sum())

    def _take_kind(self, kind: int) -> Choice:
        """Its step moves the background, which moves the step: both are settled in turn."""
        weight, left = float(self.kind_weight[kind]), float(self.kind_sum[kind])
        step = shift = 0.0
        for _ in range(SETTLING):
            more = left / (weight + self.shrink)
            down = more * weight / self.free_weight if self.free_weight >= TINY else 0.0
            left -= (more - down) * weight
            step, shift = step + more, shift - down
        self._move_kind(kind, step)
        self._move_background(shift)
        self.spent += 1
        return Choice(-1, kind, np.zeros(0, dtype=np.intp), self.spent)

    def _move_kind(self, kind: int, step: float) -> None:
        assert self.kinds is not None
        members = self.kinds.members(kind)
        self.check_background[members] += step
        heads = members[members < self.index.alone]
        added = [head for head, of in self.kinds_of_added.items() if kind in of]
        inside = np.zeros(self.none + 1, dtype=bool)
        inside[heads] = inside[added] = True
        self.background[inside] += step
        self.sum -= step * self.free * inside[self.head]
        which, of = self.kinds.of(heads)
        np.subtract.at(self.kind_sum, of, step * self.free[heads][which])
        for each in added:
            self.kind_sum[self.kinds_of_added[each]] -= step * self.free[each]

    def _take_contexts(self, numbers: Numbers) -> list[Choice]:
        """Take contexts of different heads, which share no positions."""
        lengths, heads = self.evidence.contexts.length[numbers], self.evidence.contexts.head[numbers]
        steps = self.sum[numbers] / (self.weight[numbers] + self.trust[numbers])
        which, positions, rows = self._positions(numbers, lengths)
        values, weights = self.values[positions], self.evidence.weights[positions]
        taken = self.taken[positions]
        free = taken == 0
        before = np.where(free, self.background[heads][which], self.predicted[positions])
        weighted = (weights * (values - before))[:, None]
        # Contexts up to this length lose positions that they could take; longer ones see new residuals.
        shorter = lengths[which][:, None] >= SIZES
        losing = shorter & (taken[:, None] < SIZES)
        moved = (weights * steps[which])[:, None]
        np.subtract.at(self.sum, rows, np.where(shorter, weighted * losing, moved))
        np.subtract.at(self.weight, rows, weights[:, None] * losing)
        freed = np.where(free, weights, 0)
        np.subtract.at(self.free, rows, np.repeat(freed[:, None], LONGEST, axis=1))
        self.sum[numbers] = 0
        self.sum[self.none] = self.weight[self.none] = self.free[self.none] = 0
        self.predicted[positions] = before + steps[which]
        self.taken[positions] = lengths[which]
        self._leave_background(
            heads,
            lengths,
            totals(which, freed * (values - before), len(numbers)),
            totals(which, freed, len(numbers)),
        )
        spent = self.spent + np.cumsum(lengths - self.named[heads])
        self._name(heads)
        self.spent = int(spent[-1])
        at = np.searchsorted(which, np.arange(len(numbers) + 1))
        return [
            Choice(int(number), -1, positions[at[i] : at[i + 1]], int(spent[i]))
            for i, number in enumerate(numbers)
        ]

    def _positions(self, numbers: Numbers, lengths: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Positions that the contexts take: for each which context (ascending), where, and its contexts."""
        starts, ends = self.index.starts, self.index.starts[1:]
        known = numbers < len(self.index.contexts)
        of_pool = [
            self.index.positions[starts[n] : ends[n]] if k else NONE
            for n, k in zip(numbers, known, strict=True)
        ]
        place = np.full(self.none + 1, -1)
        place[numbers] = np.arange(len(numbers))
        found = place[self.evidence.of_own]
        own, column = np.nonzero(found >= 0)
        which = np.concatenate(
            [np.repeat(np.arange(len(numbers)), list(map(len, of_pool))), found[own, column]]
        )
        positions = np.concatenate([*of_pool, own + self.pool])
        rows = np.concatenate(
            [self.index.of_position[positions[: len(positions) - len(own)]], self.evidence.of_own[own]]
        )
        order = np.argsort(which, kind="stable")
        order = order[self.taken[positions[order]] < lengths[which[order]]]
        return which[order], positions[order], rows[order]

    def _name(self, heads: Numbers) -> None:
        """Longer contexts of a token that has been named cost only what comes before it."""
        contexts = self.evidence.contexts
        fresh = np.zeros(self.none, dtype=bool)
        fresh[heads[~self.named[heads]]] = True
        self.cost[: self.none] -= fresh[contexts.head] & (contexts.length > 1)
        self.named[heads] = True

    def _leave_background(self, heads: Numbers, lengths: Numbers, residuals: Floats, weights: Floats) -> None:
        """Positions with these heads are free no more: the sum of their weighted residuals, their weight."""
        self.free_sum -= float(residuals.sum())
        self.free_weight -= float(weights.sum())
        if self.kinds is not None:
            known = heads < self.index.alone
            which, of = self.kinds.of(heads[known])
            np.subtract.at(self.kind_sum, of, residuals[known][which])
            np.subtract.at(self.kind_weight, of, weights[known][which])
            alone = heads[known & (lengths == 1)]
            self.check_weight[alone] = self.check_sum[alone] = 0
            for at in np.flatnonzero(~known):
                of = self.kinds_of_added[int(heads[at])]
                self.kind_sum[of] -= residuals[at]
                self.kind_weight[of] -= weights[at]
        self._centre()

    def leave(self, residuals: Floats) -> None:
        """The sums of the weighted residuals of free positions, by head (contexts,), become so much less."""
        self.free_sum -= float(residuals.sum())
        if self.kinds is not None:
            known = np.zeros(len(self.kinds.ids))
            known[: self.index.alone] = residuals[: self.index.alone]
            self.kind_sum -= self.kinds.sums(known)
            for head, of in self.kinds_of_added.items():
                self.kind_sum[of] -= residuals[head]
        self._centre()

    def _centre(self) -> None:
        """Move the background to the mean of the free positions."""
        if self.free_weight >= TINY:
            self._move_background(self.free_sum / self.free_weight)
            self.free_sum = 0.0

    def _move_background(self, shift: float) -> None:
        self.background += shift
        self.sum -= shift * self.free
        if self.kinds is not None:
            self.kind_sum -= shift * self.kind_weight
            self.check_background += shift
