"""Give chosen rules their levels, and say as many of them as the budget allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import token
from nxtools.pattern.index import Floats, PoolIndex, totals
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.select import Choice, Evidence
from nxtools.pattern.sentence import FULL, Pattern, Rule

# Levels that a learned pattern uses, a factor of about 1.5 apart: near strengths merge into one group, and
# the sentence is shorter, for 0.002 of the score (round tenths of the scale would cost ten times that).
LEVELS = np.array([0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100])


@dataclass(frozen=True, slots=True)
class Budget:
    """What a sentence may cost: tokens and classes named, and characters (None: as many as it takes)."""

    literals: int = 30
    characters: int | None = 500

    def allows(self, pattern: Pattern) -> bool:
        if pattern.literals > self.literals:
            return False
        return self.characters is None or len(str(pattern)) <= self.characters


class Fit:
    """Levels for the first so many of some choices."""

    def __init__(
        self, index: PoolIndex, evidence: Evidence, choices: list[Choice], shrink: float, kinds: Kinds | None
    ) -> None:
        self.index, self.evidence, self.choices = index, evidence, choices
        self.shrink, self.kinds = shrink, kinds
        pool = len(index.of_position)
        self.head = np.concatenate([index.of_position[:, 0], evidence.of_own[:, 0]])  # (positions,)
        weighted = evidence.weights * evidence.values
        tokens = len(evidence.contexts)
        self.weight_of = totals(self.head, evidence.weights, tokens)
        self.sum_of = totals(self.head, weighted, tokens)
        self.weighted = weighted
        self.pool = pool

    def within(self, budget: Budget) -> tuple[Pattern, float]:
        """The pattern of the most choices that the budget allows, and the activation that it prints as 10."""
        count = sum(choice.spent <= budget.literals for choice in self.choices)
        best = self.pattern(count)
        if budget.allows(best[0]):  # rules that turn out to say the same leave room for more
            while count < len(self.choices) and budget.allows((more := self.pattern(count + 1))[0]):
                best, count = more, count + 1
            return best
        low, high = 0, count - 1  # too many characters
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if budget.allows(self.pattern(middle)[0]) else (low, middle - 1)
        return self.pattern(low)

    def pattern(self, count: int) -> tuple[Pattern, float]:
        """The pattern of the first `count` choices, and its scale."""
        chosen = self.choices[:count]
        owner = np.full(len(self.evidence.values), -1, dtype=np.intp)
        for place, choice in enumerate(chosen):
            owner[choice.positions] = place
        taken = np.flatnonzero(owner >= 0)
        owners, weights, sums = owner[taken], self.evidence.weights[taken], self.weighted[taken]
        heads = self.head[taken]
        tokens = len(self.evidence.contexts)
        background, otherwise, steps = self._background(
            chosen,
            self.weight_of - totals(heads, weights, tokens),
            self.sum_of - totals(heads, sums, tokens),
        )
        values = np.zeros(count + 1)
        values[count] = otherwise
        values[[place for place, choice in enumerate(chosen) if choice.kind >= 0]] = otherwise + steps
        weight, total = totals(owners, weights, count), totals(owners, sums, count)
        before = self._before(chosen)
        all_weight, all_total = weight.copy(), total.copy()  # with the longer contexts that took some
        for place, shorter in reversed(before.items()):
            if shorter is not None:
                all_weight[shorter] += all_weight[place]
                all_total[shorter] += all_total[place]
        for place, shorter in before.items():
            prior = background[self.evidence.contexts.head[chosen[place].context]]
            prior = values[shorter] if shorter is not None else prior
            whole = (all_total[place] + self.shrink * prior) / (all_weight[place] + self.shrink)
            values[place] = (total[place] + self.shrink * whole) / (weight[place] + self.shrink)
        scale = float(np.abs(values).max()) or 1.0
        levels = rounded(values / scale)
        rules = []
        for place, choice in enumerate(chosen):
            level = levels[place]
            if choice.kind >= 0:
                assert self.kinds is not None
                if level != levels[count]:
                    rules.append(Rule((self.kinds.atoms[choice.kind],), level))
                continue
            shorter = before[place]
            if shorter is None:
                alone = background[self.evidence.contexts.head[choice.context]] == otherwise
                says_something = not alone or level != levels[count]
            else:
                says_something = level != levels[shorter]
            if says_something:
                texts = [self.index.lexicon.texts[id] for id in self.evidence.contexts.ids(choice.context)]
                rules.append(Rule(tuple(token(text) for text in texts if text is not None), level))
        return Pattern(tuple(rules), levels[count]), scale

    def _before(self, chosen: list[Choice]) -> dict[int, int | None]:
        """For each chosen context, short ones first: the longest other chosen one that it extends."""
        contexts = self.evidence.contexts
        place_of = {choice.context: place for place, choice in enumerate(chosen) if choice.kind < 0}
        before: dict[int, int | None] = {}
        for number in sorted(place_of, key=lambda number: int(contexts.length[number])):
            shorter = int(contexts.parent[number])
            while shorter >= 0 and shorter not in place_of:
                shorter = int(contexts.parent[shorter])
            before[place_of[number]] = place_of[shorter] if shorter >= 0 else None
        return before

    def _background(
        self, chosen: list[Choice], weight: Floats, total: Floats
    ) -> tuple[Floats, float, Floats]:
        """What is predicted outside contexts: by token; for tokens of no kind; and the steps of the kinds."""
        numbers = [choice.kind for choice in chosen if choice.kind >= 0]
        if not numbers:
            otherwise = float(total.sum() / weight.sum()) if weight.sum() > 1e-9 else 0.0
            return np.full(len(weight), otherwise), otherwise, np.zeros(0)
        assert self.kinds is not None
        contexts, alone = self.evidence.contexts, self.index.alone
        added = np.flatnonzero(contexts.length[len(self.index.contexts) :] == 1) + len(self.index.contexts)
        heads = np.concatenate([np.arange(alone), added])
        kinds_of_added = [self.kinds.of_id(int(contexts.token[head])) for head in added]
        design = np.zeros((len(numbers) + 1, len(heads)))
        design[0] = 1
        for row, number in enumerate(numbers, start=1):
            members = self.kinds.members(number)
            design[row, members[members < alone]] = 1
            design[row, alone:] = [number in of for of in kinds_of_added]
        penalty = np.diag([1e-9] + [self.shrink] * len(numbers))
        gram = np.array([(design * row).sum(axis=1) for row in design * weight[heads]])
        solution = np.linalg.solve(gram + penalty, (design * total[heads]).sum(axis=1)).astype(np.float64)
        background = np.zeros(len(weight))
        background[heads] = (solution[:, None] * design).sum(axis=0)
        return background, float(solution[0]), solution[1:]


def rounded(shares: NDArray[np.float64]) -> list[int]:
    """Shares of the scale (-1 to 1) as the nearest of LEVELS."""
    nearest = np.abs(np.abs(shares)[:, None] * FULL - LEVELS).argmin(axis=1)
    levels: list[int] = (np.sign(shares) * LEVELS[nearest]).astype(int).tolist()
    return levels
