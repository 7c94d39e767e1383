"""Give chosen rules their levels, and say as many of them as the budget allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import Atom, token
from nxtools.pattern.evidence import Choice, Evidence
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.sentence import FULL, TENTHS, Pattern, Rule, Shift
from nxtools.pattern.values import Shorter, Values

# Levels that a learned pattern uses, a factor of about 1.5 apart: near strengths merge into one group, and
# the sentence is shorter, for 0.002 of the score (round tenths of the scale would cost ten times that).
LEVELS = np.array([0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100])
NEAR_ZERO = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """What a sentence may cost: tokens and classes named, and characters (None: as many as it takes)."""

    literals: int = 30
    characters: int | None = 500

    def allows(self, pattern: Pattern) -> bool:
        if pattern.literals > self.literals:
            return False
        return self.characters is None or len(str(pattern)) <= self.characters


class Along(NamedTuple):
    """What a pattern says along the text: what it adds early, in activations, and what share lingers."""

    early: float = 0.0
    lingering: float = 0.0

    @property
    def literals(self) -> int:
        return (self.early != 0) + (self.lingering != 0)


NOTHING = Along()


class Fitted(NamedTuple):
    """A pattern, the activation that it prints as 10, and which of the choices it says (their places)."""

    pattern: Pattern
    scale: float
    said: tuple[int, ...]


class Fit:
    """Levels for the first so many of some choices."""

    def __init__(self, evidence: Evidence, choices: list[Choice], shrink: float, kinds: Kinds | None) -> None:
        self.evidence, self.choices, self.kinds = evidence, choices, kinds
        self.contexts = evidence.contexts
        self.values = Values(evidence, shrink, kinds)

    def lower(self, by: float) -> Fit:
        """The same choices where all values are lower."""
        return Fit(self.evidence.lower(by), self.choices, self.values.shrink, self.kinds)

    def within(self, budget: Budget, along: Along = NOTHING) -> Fitted:
        """The pattern of the most choices that the budget allows."""
        room = budget.literals - along.literals
        count = sum(choice.spent <= room for choice in self.choices)
        best = self.pattern(count, along)
        if budget.allows(best.pattern):
            while count < len(self.choices) and best.pattern.literals < budget.literals:
                # Rules that turn out to say the same leave room for more.
                more = self.pattern(count + 1, along)
                if not budget.allows(more.pattern):
                    break
                best, count = more, count + 1
            return best
        low, high = 0, count - 1  # too many characters
        while low < high:
            middle = (low + high + 1) // 2
            allowed = budget.allows(self.pattern(middle, along).pattern)
            low, high = (middle, high) if allowed else (low, middle - 1)
        return self.pattern(low, along)

    def pattern(self, count: int, along: Along = NOTHING) -> Fitted:
        """The pattern of the first `count` choices."""
        chosen = self.choices[:count]
        before = self._before(chosen)
        values, background, otherwise, steps_after = self.values.settled(chosen, before)
        scale = max(map(abs, [*values, otherwise])) or 1.0
        levels, rest = levels_around(np.array(values) / scale, otherwise / scale)
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
        (early,) = rounded(np.array([along.early / scale]))
        said_along = early, round(along.lingering * TENTHS)
        return Fitted(Pattern(tuple(rules), rest, tuple(shifts), *said_along), scale, tuple(said))

    def matched(self, said: tuple[int, ...]) -> NDArray[np.bool_]:
        """(positions,): where a rule of the choices at these places matches."""
        index = self.evidence.index
        ruled = set(said)
        for place, shorter in self._before(self.choices[: max(said, default=-1) + 1]).items():
            if shorter in ruled:  # where a choice was not worth saying, the shorter one speaks
                ruled.add(place)
        matches = np.zeros(len(self.contexts) + 1, dtype=bool)  # by context, False for none
        longer = []
        for choice in (self.choices[place] for place in ruled):
            if choice.context >= 0:
                matches[choice.context] = True
                if self.contexts.length[choice.context] > 1:
                    longer.append(choice.context)
            else:
                matches[self.values.heads[self.values.of_kind(choice.kind) > 0]] = True
        of_pool = matches[index.head]
        for number in longer:
            of_pool[index.occurrences(self.contexts, number)] = True
        return np.concatenate([of_pool, matches[self.evidence.of_own].any(axis=1)])

    def _steps(self, context: int) -> tuple[Atom, ...] | None:
        """The tokens of a context; None where one has no text to name it by."""
        texts = [self.evidence.index.lexicon.texts[id] for id in self.contexts.ids(context)]
        named = tuple(token(text) for text in texts if text is not None)
        return named if len(named) == len(texts) else None

    def _before(self, chosen: list[Choice]) -> Shorter:
        """For each chosen context, short ones first: the longest other chosen one that it extends."""
        place_of = {choice.context: place for place, choice in enumerate(chosen) if choice.context >= 0}
        before: Shorter = {}
        for number in sorted(place_of, key=lambda number: int(self.contexts.length[number])):
            shorter = int(self.contexts.parent[number])
            while shorter >= 0 and shorter not in place_of:
                shorter = int(self.contexts.parent[shorter])
            before[place_of[number]] = place_of[shorter] if shorter >= 0 else None
        return before


def levels_around(
    shares: NDArray[np.float64], otherwise: float, known: NDArray[np.integer] = LEVELS
) -> tuple[list[int], int]:
    """Levels of values and of the background, as shares of the scale (-1 to 1).

    The finest steps are near the background, where most of the text is, so distances from it are rounded.
    """
    (rest,) = rounded(np.array([otherwise]), known)
    if abs(rest) < NEAR_ZERO:
        return rounded(shares, known), rest
    steps = np.rint(np.clip(rest + np.array(rounded(shares - otherwise, known), int), -FULL, FULL))
    steps[np.abs(shares) >= 1] = FULL * np.sign(shares[np.abs(shares) >= 1])
    levels: list[int] = steps.astype(int).tolist()
    return levels, rest


def rounded(shares: NDArray[np.float64], known: NDArray[np.integer] = LEVELS) -> list[int]:
    """Shares of the scale (-1 to 1) as the nearest of the levels `known`."""
    nearest = np.abs(np.abs(shares)[:, None] * FULL - known).argmin(axis=1)
    levels: list[int] = (np.sign(shares) * known[nearest]).astype(int).tolist()
    return levels
