"""Give chosen rules their levels, and say as many of them as the budget allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import Atom, token
from nxtools.pattern.evidence import Choice, Evidence
from nxtools.pattern.index import Floats, Numbers, PoolIndex, totals
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.sentence import FULL, Pattern, Rule, Shift

# Levels that a learned pattern uses, a factor of about 1.5 apart: near strengths merge into one group, and
# the sentence is shorter, for 0.002 of the score (round tenths of the scale would cost ten times that).
LEVELS = np.array([0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100])
NEAR_ZERO = 2
SETTLING = 3  # rounds in which values and what is added to them find each other


@dataclass(frozen=True, slots=True)
class Budget:
    """What a sentence may cost: tokens and classes named, and characters (None: as many as it takes)."""

    literals: int = 30
    characters: int | None = 500

    def allows(self, pattern: Pattern) -> bool:
        if pattern.literals > self.literals:
            return False
        return self.characters is None or len(str(pattern)) <= self.characters


class Fitted(NamedTuple):
    """A pattern, the activation that it prints as 10, and which of the choices it says (their places)."""

    pattern: Pattern
    scale: float
    said: tuple[int, ...]


class Fit:
    """Levels for the first so many of some choices."""

    def __init__(
        self, index: PoolIndex, evidence: Evidence, choices: list[Choice], shrink: float, kinds: Kinds | None
    ) -> None:
        self.index, self.evidence, self.choices = index, evidence, choices
        self.shrink, self.kinds = shrink, kinds
        self.contexts = evidence.contexts
        known = len(index.contexts)
        self.added = np.flatnonzero(self.contexts.length[known:] == 1) + known  # tokens that the pool lacks
        self.head = np.concatenate([index.of_position[:, 0], evidence.of_own[:, 0]])  # by position
        self.weight_of = totals(self.head, evidence.weights, len(self.contexts))

    def within(self, budget: Budget) -> Fitted:
        """The pattern of the most choices that the budget allows."""
        count = sum(choice.spent <= budget.literals for choice in self.choices)
        best = self.pattern(count)
        if budget.allows(best.pattern):
            while count < len(self.choices) and best.pattern.literals < budget.literals:
                more = self.pattern(count + 1)  # rules that turn out to say the same leave room for more
                if not budget.allows(more.pattern):
                    break
                best, count = more, count + 1
            return best
        low, high = 0, count - 1  # too many characters
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if budget.allows(self.pattern(middle).pattern) else (low, middle - 1)
        return self.pattern(low)

    def pattern(self, count: int) -> Fitted:
        """The pattern of the first `count` choices."""
        chosen = self.choices[:count]
        before = self._before(chosen)
        values, background, otherwise, steps_after = self._settled(chosen, before)
        scale = float(np.abs(np.append(values, otherwise)).max()) or 1.0
        levels, rest = levels_around(values / scale, otherwise / scale)
        shifts = [
            Shift((atom,), step)
            for atom, step in zip(
                steps_after, rounded(np.array([*steps_after.values()]) / scale), strict=True
            )
            if step
        ]
        rules, said = [], []
        for place, choice in enumerate(chosen):
            if choice.before is not None:
                continue
            if choice.kind >= 0:
                assert self.kinds is not None
                steps: tuple[Atom, ...] | None = (self.kinds.atoms[choice.kind],)
                without: int | None = rest
            else:
                steps = self._steps(choice.context)
                shorter = before[place]
                if shorter is not None:
                    without = levels[shorter]
                else:
                    of_no_kind = background[self.contexts.head[choice.context]] == otherwise
                    without = rest if of_no_kind else None
            if steps is not None and levels[place] != without:  # else it says nothing new
                rules.append(Rule(steps, levels[place]))
                said.append(place)
        return Fitted(Pattern(tuple(rules), rest, tuple(shifts)), scale, tuple(said))

    def matched(self, said: tuple[int, ...]) -> NDArray[np.bool_]:
        """(positions,): where a rule of the choices at these places matches."""
        matched = np.zeros(len(self.head), dtype=bool)
        ruled = set(said)
        for place, shorter in self._before(self.choices[: max(said, default=-1) + 1]).items():
            if shorter in ruled:  # where a choice was not worth saying, the shorter one speaks
                ruled.add(place)
        for place in ruled:
            choice = self.choices[place]
            if choice.context >= 0:
                matched[choice.positions] = True
                matched[self.index.occurrences(self.contexts, choice.context)] = True
            else:
                matched |= self._of_kind(choice.kind)[self.head]
        return matched

    def _steps(self, context: int) -> tuple[Atom, ...] | None:
        """The tokens of a context; None where one has no text to name it by."""
        texts = [self.index.lexicon.texts[id] for id in self.contexts.ids(context)]
        named = tuple(token(text) for text in texts if text is not None)
        return named if len(named) == len(texts) else None

    def _settled(
        self, chosen: list[Choice], before: dict[int, int | None]
    ) -> tuple[Floats, Floats, float, dict[Atom, float]]:
        """What `_values` gives, and what is added after each atom: each fitted to what the other leaves."""
        evidence = self.evidence
        adding = [choice for choice in chosen if choice.before is not None]
        steps: dict[Atom, float] = {}
        added = np.zeros(len(self.head))
        owner = np.full(len(self.head), -1, dtype=np.intp)
        for place, choice in enumerate(chosen):
            if choice.context >= 0:
                owner[choice.positions] = place
        values, background, otherwise = self._values(chosen, before, owner, evidence.values)
        for _ in range(SETTLING if adding else 0):
            left = evidence.values - np.where(owner >= 0, values[owner], background[self.head])
            for choice in adding:
                assert choice.before is not None
                at, old = choice.positions, steps.get(choice.before, 0.0)
                weights = evidence.weights[at]
                residual = float((weights * (left[at] - added[at] + old)).sum())
                steps[choice.before] = residual / (float(weights.sum()) + self.shrink)
                added[at] += steps[choice.before] - old
            values, background, otherwise = self._values(chosen, before, owner, evidence.values - added)
        return values, background, otherwise, steps

    def _values(
        self, chosen: list[Choice], before: dict[int, int | None], owner: Numbers, wanted: Floats
    ) -> tuple[Floats, Floats, float]:
        """Values of the choices, of the background by head, and of tokens of no kind.

        A context has the mean of the positions that are left to it, shrunk toward the mean of all that it
        matches, shrunk in turn toward the value of the next shorter choice.
        """
        count, tokens = len(chosen), len(self.contexts)
        weighted = self.evidence.weights * wanted
        taken = np.flatnonzero(owner >= 0)
        owners, heads = owner[taken], self.head[taken]
        weights, sums = self.evidence.weights[taken], weighted[taken]
        background, otherwise, steps = self._background(
            [choice.kind for choice in chosen if choice.kind >= 0],
            self.weight_of - totals(heads, weights, tokens),
            totals(self.head, weighted, tokens) - totals(heads, sums, tokens),
        )
        values = np.zeros(count)
        values[[place for place, choice in enumerate(chosen) if choice.kind >= 0]] = otherwise + steps
        weight, total = totals(owners, weights, count), totals(owners, sums, count)
        all_weight, all_total = weight.copy(), total.copy()
        for place, shorter in reversed(before.items()):
            if shorter is not None:
                all_weight[shorter] += all_weight[place]
                all_total[shorter] += all_total[place]
        for place, shorter in before.items():
            head = self.contexts.head[chosen[place].context]
            prior = background[head] if shorter is None else values[shorter]
            trust = self.evidence.trust[chosen[place].context]
            whole = (all_total[place] + trust * prior) / (all_weight[place] + trust)
            values[place] = (total[place] + trust * whole) / (weight[place] + trust)
        return values, background, otherwise

    def _before(self, chosen: list[Choice]) -> dict[int, int | None]:
        """For each chosen context, short ones first: the longest other chosen one that it extends."""
        place_of = {choice.context: place for place, choice in enumerate(chosen) if choice.context >= 0}
        before: dict[int, int | None] = {}
        for number in sorted(place_of, key=lambda number: int(self.contexts.length[number])):
            shorter = int(self.contexts.parent[number])
            while shorter >= 0 and shorter not in place_of:
                shorter = int(self.contexts.parent[shorter])
            before[place_of[number]] = place_of[shorter] if shorter >= 0 else None
        return before

    def _background(self, kinds: list[int], weight: Floats, total: Floats) -> tuple[Floats, float, Floats]:
        """What is predicted outside contexts: by head; for tokens of no kind; and the steps of the kinds.

        Ridge regression of what is left of each token (`weight`, `total`, by head) on its kinds.
        """
        if not kinds:
            otherwise = float(total.sum() / weight.sum()) if weight.sum() > 1e-9 else 0.0
            return np.full(len(weight), otherwise), otherwise, np.zeros(0)
        heads = np.concatenate([np.arange(self.index.alone), self.added])
        design = np.ones((len(kinds) + 1, len(heads)))
        for row, kind in enumerate(kinds, start=1):
            design[row] = self._of_kind(kind)[heads]
        penalty = np.diag([1e-9] + [self.shrink] * len(kinds))
        gram = np.array([(design * row).sum(axis=1) for row in design * weight[heads]])
        solution = np.linalg.solve(gram + penalty, (design * total[heads]).sum(axis=1)).astype(np.float64)
        background = np.zeros(len(weight))
        background[heads] = (solution[:, None] * design).sum(axis=0)
        return background, float(solution[0]), solution[1:]

    def _of_kind(self, kind: int) -> NDArray[np.bool_]:
        """(contexts,): which tokens alone are of a kind."""
        assert self.kinds is not None
        members = self.kinds.members(kind)
        among = np.zeros(len(self.contexts), dtype=bool)
        among[members[members < self.index.alone]] = True
        tokens = self.contexts.token[self.added].tolist()
        among[self.added] = [kind in self.kinds.of_id(token) for token in tokens]
        return among


def levels_around(shares: NDArray[np.float64], otherwise: float) -> tuple[list[int], int]:
    """Levels of values and of the background, as shares of the scale (-1 to 1).

    The finest steps are near the background, where most of the text is, so distances from it are rounded.
    """
    (rest,) = rounded(np.array([otherwise]))
    if abs(rest) < NEAR_ZERO:
        return rounded(shares), rest
    steps = np.rint(np.clip(rest + np.array(rounded(shares - otherwise), int), -FULL, FULL))
    steps[np.abs(shares) >= 1] = FULL * np.sign(shares[np.abs(shares) >= 1])
    levels: list[int] = steps.astype(int).tolist()
    return levels, rest


def rounded(shares: NDArray[np.float64]) -> list[int]:
    """Shares of the scale (-1 to 1) as the nearest of LEVELS."""
    nearest = np.abs(np.abs(shares)[:, None] * FULL - LEVELS).argmin(axis=1)
    levels: list[int] = (np.sign(shares) * LEVELS[nearest]).astype(int).tolist()
    return levels
