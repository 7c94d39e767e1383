"""Rules with values on the evidence of one unit: what each position is ruled by, and what is said there."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import Atom
from nxtools.pattern.index import PoolIndex, totals
from nxtools.pattern.lexicon import Lexicon
from nxtools.revise.rows import Rows, alike, before

SHRINK = 2.0  # positions' worth of trust in the less specific rule

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]
Steps = tuple[Atom, ...]  # the atoms of a rule in the order of the text, the current token last


@dataclass
class Fitted:
    """Rules with their values: predicted, the error, what each position is ruled by, and how specifically.

    base: what is predicted where no token is named."""

    rules: list[Steps]
    values: Floats
    otherwise: float
    base: Floats
    predicted: Floats
    owner: Numbers
    rank: Floats
    error: float
    below: list[int]  # the rule that would speak without each, -1: none
    held: dict[int, Numbers]  # of rules for items without a token: where each speaks for its item


def specificity(steps: Steps) -> tuple[int, ...]:
    """How rules of one item are compared: position by position, from the current token backwards."""
    return tuple(atom.specificity for atom in reversed(steps))


class Evidence:
    """The positions of a unit's evidence, those with the same last tokens as one: to every rule they are."""

    def __init__(self, lexicon: Lexicon, rows: Rows, depth: int) -> None:
        """`depth`: how many tokens rules look at."""
        self.lexicon, self.depth = lexicon, depth
        self._valid = ~np.isnan(rows.activations)
        self._activations = rows.activations[self._valid].astype(np.float64)
        index = PoolIndex(rows.ids, self._valid, lexicon)
        tokens = before(lexicon.one_per_text()[rows.ids], self._valid, depth)
        self.same, first = alike(tokens)
        self.tokens = tokens[first]  # (positions, depth): the token itself, the one before it, …; -1: none
        self.contexts, self.of_position = index.contexts, index.of_position[first]
        self._matches: dict[Steps, Numbers] = {}
        self._weigh(rows.weights)

    def _weigh(self, weights: Floats) -> None:
        each = np.broadcast_to(weights[:, None], self._valid.shape)[self._valid].astype(np.float64)
        size = len(self.tokens)
        self.weights = totals(self.same, each, size)
        self.squares = totals(self.same, each**2, size)
        sums = totals(self.same, each * self._activations, size)
        self.values = sums / np.maximum(self.weights, 1e-12)
        self.total = float((each * self._activations**2).sum())

    def weighted(self, weights: Floats) -> Evidence:
        """The same evidence with other weights of its rows."""
        other = copy(self)
        other._weigh(weights)
        return other

    def matches(self, steps: Steps) -> Numbers:
        """Positions at which a rule holds."""
        found = self._matches.get(steps)
        if found is None:
            holds = np.ones(len(self.tokens), bool)
            for back, atom in enumerate(reversed(steps)):
                among = np.zeros(len(self.lexicon) + 1, bool)  # the last one: no token
                among[self.lexicon.ids(atom)] = True
                holds &= among[self.tokens[:, back]]
            found = self._matches[steps] = np.flatnonzero(holds)
        return found

    def overlap(self, one: Steps, other: Steps) -> bool:
        """Whether two rules for one item are equally specific and hold at one position: then the stronger one
        speaks there, and which that is, is known when both have their values."""
        tied = one != other and one[-1] == other[-1] and specificity(one) == specificity(other)
        return tied and len(np.intersect1d(self.matches(one), self.matches(other))) > 0

    def fit(self, rules: list[Steps]) -> Fitted:
        """Values: the mean of what is left to each rule, shrunk toward what would be said without it.

        Of rules that overlap, the later one has what both match."""
        rules = sorted(rules, key=lambda steps: (specificity(steps), len(steps)))
        named = [place for place, steps in enumerate(rules) if steps[-1].form == "token"]
        owner = np.full(len(self.values), -1, np.intp)
        rank = np.zeros(len(self.values))
        values = np.zeros(len(rules))
        below = [-1] * len(rules)
        for place in named:
            at = self.matches(rules[place])
            below[place] = _commonest(owner[at])
            owner[at], rank[at] = place, rank_of(rules[place])
        held = self._held(rules, below)
        base, otherwise = self._background(held, below, values, owner < 0)
        predicted = base.copy()
        weighted = np.bincount(owner + 1, self.weights, len(rules) + 1)[1:]
        trust = trusted(weighted, np.bincount(owner + 1, self.squares, len(rules) + 1)[1:])
        summed = np.bincount(owner + 1, self.weights * self.values, len(rules) + 1)[1:]
        for place in named:
            at = self.matches(rules[place])
            prior = values[below[place]] if below[place] >= 0 else (base[at].mean() if len(at) else otherwise)
            values[place] = (summed[place] + trust[place] * prior) / (weighted[place] + trust[place])
        mine = owner >= 0
        predicted[mine] = values[owner[mine]]
        error = float((self.weights * (self.values - predicted) ** 2).sum())
        return Fitted(rules, values, otherwise, base, predicted, owner, rank, error, below, held)

    def _held(self, rules: list[Steps], below: list[int]) -> dict[int, Numbers]:
        """For items without a token, where each of their rules speaks for its item, if no token is named."""
        places: dict[Atom, list[int]] = {}
        for place, steps in enumerate(rules):
            if steps[-1].form != "token":
                places.setdefault(steps[-1], []).append(place)
        held: dict[int, Numbers] = {}
        for of_item in places.values():
            owner = np.full(len(self.values) if len(of_item) > 1 else 0, -1, np.intp)
            for place in of_item if len(of_item) > 1 else ():
                at = self.matches(rules[place])
                below[place] = _commonest(owner[at])
                owner[at] = place
            for place in of_item:
                at = self.matches(rules[place])
                held[place] = at[owner[at] == place] if len(of_item) > 1 else at
        return held

    def _background(
        self, held: dict[int, Numbers], below: list[int], values: Floats, free: NDArray[np.bool_]
    ) -> tuple[Floats, float]:
        """What items without a token say, one after the other, on what is left: they add up."""
        weights = np.where(free, self.weights, 0.0)
        total = weights.sum()
        otherwise = float((weights * self.values).sum() / total) if total else 0.0
        steps = np.zeros(len(values))
        base = np.full(len(self.values), otherwise)
        for _ in range(3 if held else 0):
            for place, at in held.items():
                base[at] -= steps[place]
                weight = weights[at]
                trust = float(trusted(weight.sum(), np.where(weight > 0, self.squares[at], 0.0).sum()))
                prior = steps[below[place]] if below[place] >= 0 else 0.0
                left = (weight * (self.values[at] - base[at])).sum() + trust * prior
                steps[place] = left / (weight.sum() + trust)
                base[at] += steps[place]
            shift = float((weights * (self.values - base)).sum() / total) if total else 0.0
            otherwise += shift
            base += shift
        for place in held:
            values[place] = otherwise + steps[place]
        return base, otherwise


def _commonest(owners: Numbers) -> int:
    """The rule that most positions have, -1 where none has any."""
    ruled = owners[owners >= 0]
    return int(np.bincount(ruled).argmax()) if len(ruled) else -1


def trusted(weights: Any, squares: Any) -> Any:
    """What the less specific rule weighs against positions of these weights and squared weights.

    It is worth SHRINK of them, and few heavy ones are still few: by Kish's effective number, (Σw)² / Σw², one
    of them weighs Σw² / Σw.
    """
    return SHRINK * squares / np.maximum(weights, 1e-12) + 1e-9


def rank_of(steps: Steps) -> float:
    """How specific a rule of a token is among those that may follow: longer contexts of tokens take over."""
    if all(atom.form == "token" for atom in steps):
        return float(len(steps))
    return 1.5
