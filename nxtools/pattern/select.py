"""Choose rules greedily: the one that removes the most squared error per literal, again and again.

The error is that of the pattern so far on the evidence: every position is predicted by the longest chosen
context that matches it, and where none does, by a background to which the chosen kinds of its token add. For
every context and every kind, the sum of the residuals that it would take over, and their weight, are kept
up to date, so the gain of all candidates is one expression.
"""

from __future__ import annotations

import numpy as np

from nxtools.pattern.adding import Adding
from nxtools.pattern.before import Before
from nxtools.pattern.evidence import Check, Choice, Evidence
from nxtools.pattern.index import Floats, first_of_best
from nxtools.pattern.kinds import Kinds

# A kind must remove about twice the error that a token must: tokens that it covers are often named later,
# one by one, and what it did for them is wasted.
KIND_GAIN = 0.55
KIND_GAIN_BY_MEANS = 0.8  # where the means of all its tokens are known
# Contexts that gain nearly as much as the best one are taken with it: several times faster, as good.
NEARLY = 0.5
SETTLING = 3  # rounds in which a new kind and the background find their values
TINY = 1e-9  # weight of no position
# What a literal must remove, of the squared error and of what all before it have removed: where one token
# says nearly everything, little is added that only makes the sentence longer. Whoever asks for more literals
# than usual wants more said: each may remove as much less as there are more of them.
WORTH = 3e-4
WORTH_BESIDE = 4e-3
USUAL = 35


def select(
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
    search = Search(evidence, shrink, min(1.0, USUAL / max(literals, 1)))
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

    A context would take all its positions but those of chosen contexts that extend it. A position is free
    while no chosen context has it; of what a context would take either all is free, or nothing. `sum` and
    `weight`: of the residuals of what it would take; `free`: the weight if that is free, else 0. `taken`: the
    length of the longest chosen context that it is or extends.
    """

    def __init__(self, evidence: Evidence, shrink: float, worth: float = 1.0) -> None:
        """`worth`: as a share of the usual, what a literal must remove."""
        self.worth = worth
        contexts, values, weights = evidence.contexts, evidence.values, evidence.weights
        self.evidence, self.contexts, self.shrink = evidence, contexts, shrink
        self.none = len(contexts)
        self.free_weight = float(weights.sum())
        self.free_sum = 0.0
        self.spent = 0
        self.mean = mean = float((values * weights).sum()) / self.free_weight
        self.weight = evidence.weight_of.copy()
        self.sum = evidence.sum_of - mean * self.weight
        self.free = self.weight.copy()
        self.cost = np.ones(self.none + 1)
        self.cost[: self.none] = contexts.length
        self.taken = np.zeros(self.none + 1, dtype=np.intp)
        self.named: set[int] = set()  # heads
        residuals = values - mean
        self.total = float((weights * residuals * residuals).sum())
        self.removed = 0.0  # of that, by what was chosen
        self.kinds: Kinds | None = None
        self.adding: Adding | None = None
        self._gains, self._room = np.empty(self.none + 1), np.empty(self.none + 1)

    def consider(self, kinds: Kinds, check: Check, kind_gain: float = KIND_GAIN) -> None:
        """Let kinds compete with contexts."""
        contexts, pool = self.contexts, self.evidence.index.contexts
        self.alone = self.evidence.index.alone
        added = np.flatnonzero(contexts.length[len(pool) :] == 1) + len(pool)
        self.kinds = kinds
        self.kinds_of_added = {int(head): kinds.of_id(int(contexts.token[head])) for head in added}
        padding = np.zeros(len(kinds.ids) - self.alone)
        self.kind_sum = kinds.sums(np.concatenate([self.sum[: self.alone], padding]))
        self.kind_weight = kinds.sums(np.concatenate([self.free[: self.alone], padding]))
        for head, of in self.kinds_of_added.items():
            self.kind_sum[of] += self.sum[head]
            self.kind_weight[of] += self.free[head]
        self.kind_open = np.full(len(kinds), kind_gain)
        self.check_weight = check.weight.copy()
        self.check_sum = check.sum.copy()
        self.check_background = np.full(len(kinds.ids), self.mean)

    def step(self) -> list[Choice]:
        """Take the best kind, or the best context and those nearly as good that do not touch it."""
        gains = self.gains()
        best = float(gains.max())
        worth = self.worth * max(WORTH * self.total, WORTH_BESIDE * self.removed)
        if self.adding is not None and (added := self.adding.best(max(best, worth))) is not None:
            return [added]
        while self.kinds is not None and len(self.kinds):
            kind_gains = self.kind_gains()
            kind = first_of_best(kind_gains)
            if kind_gains[kind] <= max(best, worth):
                worth = max(worth, float(kind_gains[kind]))
                break
            gain = float(kind_gains[kind] / self.kind_open[kind])
            self.kind_open[kind] = 0
            if self._holds(kind):
                self.removed += gain
                return [self._take_kind(kind)]
        good = np.flatnonzero(gains > max(worth, NEARLY * best))
        ranked = sorted(zip((-gains[good]).tolist(), good.tolist(), strict=True))
        best_of: dict[int, tuple[int, float]] = {}  # by head: contexts of different heads share no positions
        for loss, number in ranked:
            best_of.setdefault(int(self.contexts.head[number]), (number, -loss))
        self.removed += sum(gain * float(self.cost[number]) for number, gain in best_of.values())
        taken = [self._take(number, head) for head, (number, _) in best_of.items()]
        self._centre()
        return taken

    def gains(self) -> Floats:
        """(contexts + 1,): the error that each would remove, per literal."""
        np.add(self.weight, self.evidence.trust, out=self._room)
        np.multiply(self._room, self.cost, out=self._room)
        np.multiply(self.sum, self.sum, out=self._gains)
        return np.divide(self._gains, self._room, out=self._gains)

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
        return Choice(self.spent, kind=kind)

    def _move_kind(self, kind: int, step: float) -> None:
        assert self.kinds is not None
        members = self.kinds.members(kind)
        self.check_background[members] += step
        heads = members[members < self.alone]
        added = [head for head, of in self.kinds_of_added.items() if kind in of]
        inside = np.zeros(self.none + 1)
        inside[heads] = inside[added] = step
        moved = inside[self.contexts.head]
        moved *= self.free[: self.none]
        self.sum[: self.none] -= moved
        which, of = self.kinds.of(heads)
        np.subtract.at(self.kind_sum, of, step * self.free[heads][which])
        for each in added:
            self.kind_sum[self.kinds_of_added[each]] -= step * self.free[each]
        if self.adding is not None:
            self.adding.moved_kind(inside)

    def _take(self, number: int, head: int) -> Choice:
        """A context takes what is left of its positions: shorter ones lose them, longer ones see new
        residuals."""
        contexts, length, owner = self.contexts, int(self.contexts.length[number]), int(self.taken[number])
        weight, left = float(self.weight[number]), float(self.sum[number])
        step = left / (weight + float(self.evidence.trust[number]))
        longer = contexts.longer(number)
        longer = longer[self.taken[longer] < length]
        self.sum[longer] -= step * self.weight[longer]
        self.free[longer] = 0
        self.taken[longer] = self.taken[number] = length
        self.sum[number] = self.weight[number] = self.free[number] = 0
        shorter = number
        for _ in range(owner + 1, length):
            shorter = int(contexts.parent[shorter])
            self.sum[shorter] -= left
            self.weight[shorter] -= weight
            if not owner:
                self.free[shorter] -= weight
        if not owner:
            self._leave_background(head, left, weight)
        if self.kinds is not None and length == 1 and head < self.alone:
            self.check_weight[head] = self.check_sum[head] = 0
        if self.adding is not None:
            self.adding.took(number, length, step)
        self.spent += length - (head in self.named)
        if head not in self.named:  # longer contexts of it cost only what comes before it from now on
            self.named.add(head)
            self.cost[contexts.longer(head)] -= 1
        return Choice(self.spent, context=number)

    def _leave_background(self, head: int, left: float, weight: float) -> None:
        """Positions of this head are free no more: the sum of their residuals, their weight."""
        self.free_sum -= left
        self.free_weight -= weight
        if self.kinds is not None:
            of = self.kinds.of_place(head) if head < self.alone else self.kinds_of_added[head]
            self.kind_sum[of] -= left
            self.kind_weight[of] -= weight

    def leave(self, residuals: Floats) -> None:
        """The sums of the weighted residuals of free positions, by head (contexts,), become so much less."""
        self.free_sum -= float(residuals.sum())
        if self.kinds is not None:
            known = np.zeros(len(self.kinds.ids))
            known[: self.alone] = residuals[: self.alone]
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
        np.multiply(self.free, shift, out=self._room)
        self.sum -= self._room
        if self.kinds is not None:
            self.kind_sum -= shift * self.kind_weight
            self.check_background += shift
        if self.adding is not None:
            self.adding.moved_background(shift)
