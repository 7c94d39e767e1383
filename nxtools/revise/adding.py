"""The search for a rule that removes most squared error for each of its literals: tokens after tokens, tokens
after a kind of token, kinds of token, and kinds after a token."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import Atom, token
from nxtools.pattern.index import totals
from nxtools.pattern.kinds import Kinds
from nxtools.revise.fitting import Evidence, Fitted, Floats, Steps, trusted
from nxtools.revise.grouping import Gone, Grouping, Left, Pairs

KIND_GAIN = 0.55  # of what a rule with a kind seems to remove: kinds promise more than they hold
KIND_PROMISE = 0.7  # of what another rule must seem to remove, to be tried: kinds may hold all they promise
NAMED = 48  # tokens with the largest errors, beside which kinds are looked for
SAME = 0.01  # of what is left to such a token: where less has changed, kinds are not summed again

Found = tuple[float, Steps]  # squared error that a rule removes for each literal; 0 and () for none
NOTHING: Found = (0.0, ())


@dataclass(frozen=True)
class Room:
    """What a new rule may be: free literals, the rules that are there, and those that are not wanted."""

    literals: int
    rules: list[Steps]
    refused: frozenset[Steps]

    def heads(self) -> set[Atom]:
        return {steps[-1] for steps in self.rules}


class Removed(NamedTuple):
    """The squared error that rules of a named token and each kind would remove, and the most of it.

    sums, weights: what was left to the token's pairs."""

    sums: Floats
    weights: Floats
    rates: Floats
    most: float


class Search:
    """Rules that may be added, on some evidence."""

    def __init__(self, evidence: Evidence, kinds: Kinds) -> None:
        self.evidence, self.kinds, self.lexicon = evidence, kinds, evidence.lexicon
        contexts, size = evidence.contexts, len(evidence.lexicon)
        place = np.full(size, len(kinds.ids))  # of a token among those that have kinds
        place[kinds.ids] = np.arange(len(kinds.ids))
        self._place = place
        ends = np.searchsorted(contexts.length, np.arange(1, evidence.depth + 2))
        self._length, self._head = contexts.length[: ends[-1]], contexts.token[contexts.head[: ends[-1]]]
        self._contexts = [
            Grouping(np.where(number < 0, end - start, number - start), int(end - start), float(back))
            for back, (number, start, end) in enumerate(
                zip(evidence.of_position.T, ends, ends[1:], strict=False), start=1
            )
        ]
        self._alone = Grouping(place[evidence.tokens[:, 0]], len(kinds.ids), 0.5)
        self.pairs = [Pairs(evidence.tokens, named, size, below) for named, below in ((0, 1.25), (1, 0.5))]
        self._kind_of = {atom: number for number, atom in enumerate(kinds.atoms)}
        self._weigh()

    def weighted(self, evidence: Evidence) -> Search:
        """The same, with the same evidence weighted otherwise."""
        other = copy(self)
        other.evidence = evidence
        other._weigh()
        return other

    def _groupings(self) -> list[Grouping]:
        return [*self._contexts, self._alone, *self.pairs]

    def _weigh(self) -> None:
        weights, squares = self.evidence.weights, self.evidence.squares
        self._known: dict[tuple[int, int], Removed] = {}
        self._whole = [(each.total(weights), each.total(squares)) for each in self._groupings()]

    def left(self, fitted: Fitted) -> list[Left]:
        """What rules leave to be removed."""
        groupings = zip(self._groupings(), self._whole, strict=True)
        return [each.left(self.evidence, fitted, *whole) for each, whole in groupings]

    def without(self, left: list[Left], fitted: Fitted, gone: Gone) -> list[Left]:
        """The same, when rules that name a token are gone."""
        groupings = zip(self._groupings(), left, strict=True)
        return [each.without(one, self.evidence, fitted, gone) for each, one in groupings]

    def best(self, left: list[Left], room: Room) -> Steps:
        """The rule that removes most squared error for each of its literals; () for none."""
        found = self._context(left, room, NOTHING)
        return self._kind(left, room, found)[1]

    def promises(self, left: list[Left], room: Room, least: float) -> bool:
        """Whether a rule may remove more than `least` for each literal, if kinds hold what they promise."""
        if self._context(left, room, (least, ()))[1]:
            return True
        return bool(self._kind(left, room, (KIND_PROMISE * least, ()))[1])

    def _context(self, left: list[Left], room: Room, best: Found) -> Found:
        """The best token, alone or after tokens; or `best`, if that is better."""
        sums, weights, squares = (
            np.concatenate(each) for each in zip(*left[: len(self._contexts)], strict=True)
        )
        is_named = np.zeros(len(self.lexicon), bool)
        for atom in room.heads():
            if atom.form == "token":
                is_named[self.lexicon.ids(atom)] = True
        cost = self._length - is_named[self._head]
        rates = sums * sums / ((weights + trusted(weights, squares)) * np.maximum(cost, 0.5))
        rates[(cost > room.literals) | (weights < 1e-9)] = 0.0  # what is left of differences

        def steps_of(number: int) -> Steps | None:
            texts = [self.lexicon.texts[id] for id in self.evidence.contexts.ids(number)]
            named = tuple(token(text) for text in texts if text is not None)
            return named if len(named) == len(texts) else None

        return self._better(best, rates, steps_of, room)

    def _kind(self, left: list[Left], room: Room, best: Found) -> Found:
        """The best kind, kind after a token, or token after a kind; or `best`, if that is better."""
        if not len(self.kinds) or not room.literals:
            return best
        alone, *of_pairs = left[len(self._contexts) :]
        heads, atoms = room.heads(), self.kinds.atoms
        named = np.zeros(len(atoms), bool)
        named[[self._kind_of[atom] for atom in heads if atom in self._kind_of]] = True
        rates = self._rates(np.arange(len(self.kinds.ids)), *alone)
        best = self._better(best, rates, lambda kind: (atoms[kind],), room)
        for back, (pairs, one) in enumerate(zip(self.pairs, of_pairs, strict=True)):
            bounds = KIND_GAIN * pairs.bounds(one)
            for place in np.argsort(-bounds)[:NAMED].tolist():
                text = self.lexicon.texts[pairs.named[place]]
                if text is None or bounds[place] <= best[0]:
                    continue
                removed = self.removed(back, place, one)
                if removed.most > best[0]:
                    atom = token(text)
                    cost = 2 - (named if back else np.full(len(atoms), atom in heads))
                    rates = np.where(cost <= room.literals, removed.rates / cost, 0.0)
                    best = self._better(best, rates, self._beside(atom, back), room)
        return best

    def _beside(self, atom: Atom, back: int) -> Callable[[int], Steps]:
        """The rules of a token, that is named so many places back, and each kind."""
        atoms = self.kinds.atoms
        return lambda kind: (atom, atoms[kind]) if back else (atoms[kind], atom)

    def removed(self, back: int, place: int, left: Left) -> Removed:
        """What each kind beside a named token would remove; what it once would, where little has changed."""
        of = self.pairs[back].of(place)
        sums, weights, squares = (values[of] for values in left)
        known = self._known.get((back, place))
        if known is None or not (_close(sums, known.sums) and _close(weights, known.weights)):
            rates = self._rates(self._place[self.pairs[back].others[of]], sums, weights, squares)
            known = self._known[back, place] = Removed(sums, weights, rates, float(rates.max()))
        return known

    def _better(
        self, best: Found, rates: Floats, steps_of: Callable[[int], Steps | None], room: Room
    ) -> Found:
        """Of rules that remove so much the best that may be added; or `best`."""
        while len(rates) and rates[number := int(rates.argmax())] > best[0]:
            steps = steps_of(number)
            if steps is not None and self._fits(steps, room):
                return float(rates[number]), steps
            rates[number] = 0.0
        return best

    def _fits(self, steps: Steps, room: Room) -> bool:
        if steps in room.refused or steps in room.rules:
            return False
        return not any(self.evidence.overlap(steps, other) for other in room.rules)

    def _rates(self, places: NDArray[Any], *three: Floats) -> Floats:
        """What each kind would remove of what is left at tokens (their places)."""
        size = len(self.kinds.ids)
        sums, weights, squares = (
            self.kinds.sums(totals(places, values, size + 1)[:size]) for values in three
        )
        return np.asarray(KIND_GAIN * sums**2 / (weights + trusted(weights, squares)))


def _close(one: Floats, other: Floats) -> bool:
    return bool(np.abs(one - other).sum() <= SAME * np.abs(other).sum())
