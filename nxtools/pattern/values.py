"""What chosen rules predict: the values of contexts, of the background and its kinds, and of what is added.

All of it follows from sums by context: what a context is left with is its own sum less those of the chosen
ones that extend it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nxtools.pattern.atoms import Atom
from nxtools.pattern.evidence import Choice, Evidence
from nxtools.pattern.index import Floats, totals
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.tree import LONGEST, Numbers

SETTLING = 3  # rounds in which values and what is added to them find each other

Shorter = dict[int, int | None]  # for places of chosen contexts, short ones first: the one it extends


class Settled(NamedTuple):
    """values: of the choices. background: by head; otherwise: of tokens of no kind. steps: what is added."""

    values: list[float]
    background: Floats
    otherwise: float
    steps: dict[Atom, float]


class Left(NamedTuple):
    """Sums of something over all that each choice matches, over what it predicts, and over the background's
    positions of each head."""

    whole: list[float]
    own: list[float]
    of_head: Floats


class Values:
    """The values of the first so many of some choices."""

    def __init__(self, evidence: Evidence, shrink: float, kinds: Kinds | None) -> None:
        self.evidence, self.shrink, self.kinds = evidence, shrink, kinds
        index, contexts = evidence.index, evidence.contexts
        known = len(index.contexts)
        self.added = np.flatnonzero(contexts.length[known:] == 1) + known  # tokens that the pool lacks
        self.heads = np.concatenate([np.arange(index.alone), self.added])

    def settled(self, chosen: list[Choice], shorter: Shorter) -> Settled:
        """Values and what is added, each fitted to what the other leaves."""
        evidence = self.evidence
        weight = self._left(evidence.weight_of, chosen, shorter)
        values, background, otherwise = self._values(chosen, shorter, weight, evidence.sum_of)
        adding = [choice for choice in chosen if choice.before is not None]
        if not adding:
            return Settled(values, background, otherwise, {})
        at = [self._weights_at(choice.positions) for choice in adding]
        left_at = [self._left(weights, chosen, shorter) for weights in at]
        together = self._together(adding)
        truth = [
            float((evidence.weights[choice.positions] * evidence.values[choice.positions]).sum())
            for choice in adding
        ]
        steps = np.zeros(len(adding))
        for _ in range(SETTLING):
            for number, left in enumerate(left_at):
                predicted = float(np.dot(left.own, values) + (left.of_head * background[self.heads]).sum())
                others = float((together[number] * steps).sum() - together[number, number] * steps[number])
                weight_at = float(together[number, number])
                steps[number] = (truth[number] - predicted - others) / (weight_at + self.shrink)
            sums = evidence.sum_of - sum(step * weights for step, weights in zip(steps, at, strict=True))
            values, background, otherwise = self._values(chosen, shorter, weight, sums)
        atoms = [choice.before for choice in adding if choice.before is not None]
        return Settled(values, background, otherwise, dict(zip(atoms, steps.tolist(), strict=True)))

    def _weights_at(self, positions: Numbers) -> Floats:
        """(contexts + 1,): the weight of some positions, by context."""
        rows, size = self.evidence.rows(positions), len(self.evidence.contexts)
        weights = np.repeat(self.evidence.weights[positions], LONGEST)
        return totals(np.where(rows < 0, size, rows).ravel(), weights, size + 1)

    def _together(self, adding: list[Choice]) -> Floats:
        """(adding, adding): the weight of the positions that two of them share."""
        size = len(self.evidence.weights)
        there = np.zeros((len(adding), size), dtype=bool)
        for row, choice in zip(there, adding, strict=True):
            row[choice.positions] = True
        return np.array([[float(self.evidence.weights[a & b].sum()) for a in there] for b in there])

    def _left(self, sums: Floats, chosen: list[Choice], shorter: Shorter) -> Left:
        """How sums by context are shared out among the choices and the background."""
        whole = [float(sums[choice.context]) if choice.context >= 0 else 0.0 for choice in chosen]
        own, rest = whole.copy(), sums.copy()
        for place, extended in shorter.items():
            if extended is not None:
                own[extended] -= whole[place]
            else:
                rest[self.evidence.contexts.head[chosen[place].context]] -= whole[place]
        return Left(whole, own, rest[self.heads])

    def _values(
        self, chosen: list[Choice], shorter: Shorter, weight: Left, sums: Floats
    ) -> tuple[list[float], Floats, float]:
        """Values of the choices, of the background by head, and of tokens of no kind.

        A context has the mean of the positions that are left to it, shrunk toward the mean of all that it
        matches, shrunk in turn toward the value of the next shorter choice.
        """
        total = self._left(sums, chosen, shorter)
        kinds = [choice.kind for choice in chosen if choice.kind >= 0]
        background, otherwise, of_kinds = self._background(kinds, weight.of_head, total.of_head)
        steps = iter(of_kinds.tolist())
        values = [otherwise + next(steps) if choice.kind >= 0 else 0.0 for choice in chosen]
        for place, extended in shorter.items():
            number = chosen[place].context
            if extended is None:
                prior = float(background[self.evidence.contexts.head[number]])
            else:
                prior = values[extended]
            trust = float(self.evidence.trust[number])
            whole = (total.whole[place] + trust * prior) / (weight.whole[place] + trust)
            values[place] = (total.own[place] + trust * whole) / (weight.own[place] + trust)
        return values, background, otherwise

    def _background(self, kinds: list[int], weight: Floats, total: Floats) -> tuple[Floats, float, Floats]:
        """What is predicted outside contexts: by head; for tokens of no kind; and the steps of the kinds.

        Ridge regression of what is left of each token (`weight`, `total`) on its kinds.
        """
        background = np.zeros(len(self.evidence.contexts))
        if not kinds:
            otherwise = float(total.sum() / weight.sum()) if weight.sum() > 1e-9 else 0.0
            background[self.heads] = otherwise
            return background, otherwise, np.zeros(0)
        design = np.ones((len(kinds) + 1, len(self.heads)))
        for row, kind in enumerate(kinds, start=1):
            design[row] = self.of_kind(kind)
        penalty = np.diag([1e-9] + [self.shrink] * len(kinds))
        gram = np.array([(design * row).sum(axis=1) for row in design * weight])
        solution = np.linalg.solve(gram + penalty, (design * total).sum(axis=1)).astype(np.float64)
        background[self.heads] = (solution[:, None] * design).sum(axis=0)
        return background, float(solution[0]), solution[1:]

    def of_kind(self, kind: int) -> Floats:
        """(heads,): 1 for tokens of a kind, 0 for the others."""
        assert self.kinds is not None
        members, alone = self.kinds.members(kind), self.evidence.index.alone
        among = np.zeros(len(self.heads))
        among[members[members < alone]] = 1
        tokens = self.evidence.contexts.token[self.added].tolist()
        among[alone:] = [kind in self.kinds.of_id(token) for token in tokens]
        return among
