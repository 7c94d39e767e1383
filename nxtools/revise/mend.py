"""Mend a pattern on evidence: give up rules that explain least, and take better ones for their literals.

A learned pattern is grown rule by rule and never looks back. Here every step takes back the rule whose loss
costs least for the literals that it frees, and adds the rules that remove most squared error for them: tokens
after tokens, and, which the learner does not try, tokens after a kind of token and kinds after a token. So a
rule that new evidence refutes goes, and an exception that says when *not* comes in its place. A step that
does not lower the error is undone. The literals never become more.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import Atom, token
from nxtools.pattern.fit import levels_around
from nxtools.pattern.index import LONGEST, PoolIndex, totals
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.lexicon import Lexicon
from nxtools.pattern.sentence import Pattern, Rule
from nxtools.revise.rows import Rows, alike, before, positions_of

SHRINK = 2.0  # positions' worth of trust in the less specific rule
DEPTH = 3  # tokens of a rule, the current one included: longer ones are hardly ever worth their literals
KIND_GAIN = 0.55  # of what a rule with a kind seems to remove: kinds promise more than they hold
HEADS = 48  # tokens with the largest errors, that rules with kinds are looked for
ENOUGH = 1e-4  # of the squared error: what a step must remove

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]
Steps = tuple[Atom, ...]  # the atoms of a rule in the order of the text, the current token last


@dataclass
class _Fitted:
    """Rules with their values: predicted, the error, what each position is ruled by, and how specifically."""

    rules: list[Steps]
    values: Floats
    otherwise: float
    predicted: Floats
    owner: Numbers
    rank: Floats
    error: float
    below: list[int] = field(default_factory=list)  # the rule that would speak without each, -1: none


def specificity(steps: Steps) -> tuple[int, ...]:
    """How rules of one item are compared: position by position, from the current token backwards."""
    return tuple(atom.specificity for atom in reversed(steps))


class Mender:
    """Evidence of one unit, and the search for rules on it."""

    def __init__(self, lexicon: Lexicon, kinds: Kinds, rows: Rows, depth: int = DEPTH) -> None:
        """`depth`: how many tokens rules look at, those of the sentence that is mended too.

        Positions with the same last tokens are one to every rule, so they become one here.
        """
        self.lexicon, self.kinds, self.depth = lexicon, kinds, depth
        self._valid = ~np.isnan(rows.activations)
        self._activations = rows.activations[self._valid].astype(np.float64)
        index = PoolIndex(rows.ids, self._valid, lexicon)
        tokens = before(lexicon.one_per_text()[rows.ids], self._valid, depth)
        self._same, first = alike(tokens)
        self.tokens = tokens[first]  # (positions, depth): the token itself, the one before it, …; -1: none
        self.contexts, self.of_position = index.contexts, index.of_position[first]
        self._matches: dict[Steps, Numbers] = {}
        self._with = [positions_of(self.tokens[:, back], len(lexicon)) for back in (0, 1)]
        self._place = np.full(len(lexicon), len(kinds.ids))  # of a token among those that have kinds
        self._place[kinds.ids] = np.arange(len(kinds.ids))
        self._weigh(rows.weights)

    def _weigh(self, weights: Floats) -> None:
        each = np.broadcast_to(weights[:, None], self._valid.shape)[self._valid].astype(np.float64)
        size = len(self.tokens)
        self.weights = totals(self._same, each, size)
        self.squares = totals(self._same, each**2, size)
        sums = totals(self._same, each * self._activations, size)
        self.values = sums / np.maximum(self.weights, 1e-12)
        self.total = float((each * self._activations**2).sum())

    def weighted(self, weights: Floats) -> Mender:
        """The same evidence with other weights of its rows."""
        other = copy(self)
        other._weigh(weights)
        return other

    def mend(self, rules: list[Steps], literals: int, steps: int) -> list[Steps]:
        """Rules with at most so many literals, from `rules`, in so many steps at most."""
        best = self._filled(self._trimmed(list(dict.fromkeys(rules)), literals), literals, set())
        refused: set[Steps] = set()
        for _ in range(steps):
            gone = self._least(best, refused)
            if gone is None:
                break
            left = [steps for steps in best.rules if steps != gone]
            tried = self._filled(left, literals, {gone})
            if tried.error < best.error - ENOUGH * self.total:
                best, refused = tried, set()
            else:
                refused.add(gone)
        return best.rules

    def pattern(self, rules: list[Steps]) -> tuple[Pattern, float]:
        """The sentence of the rules, and the activation that it prints as 10."""
        fitted = self._fit(rules)
        scale = float(np.abs(np.append(fitted.values, fitted.otherwise)).max()) or 1.0
        levels, rest = levels_around(fitted.values / scale, fitted.otherwise / scale)
        said = tuple(Rule(steps, level) for steps, level in zip(fitted.rules, levels, strict=True))
        return Pattern(said, rest), scale

    def shorter(self, rules: list[Steps]) -> list[Steps]:
        """Without the rule that costs least."""
        gone = self._least(self._fit(rules), set())
        return [steps for steps in rules if steps != gone]

    # Fitting

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

    def _fit(self, rules: list[Steps]) -> _Fitted:
        """Values: the mean of what is left to each rule, shrunk toward what would be said without it."""
        rules = sorted(rules, key=lambda steps: (specificity(steps), len(steps)))
        named = [place for place, steps in enumerate(rules) if steps[-1].form == "token"]
        others = [place for place, steps in enumerate(rules) if steps[-1].form != "token"]
        owner = np.full(len(self.values), -1, np.intp)
        rank = np.zeros(len(self.values))
        values = np.zeros(len(rules))
        below = [-1] * len(rules)
        for place in named:
            at = self.matches(rules[place])
            before = owner[at]
            if len(at) and before.max() >= 0:
                below[place] = int(np.bincount(before[before >= 0]).argmax())
            owner[at], rank[at] = place, _rank(rules[place])
        base, otherwise = self._background(rules, others, values, owner < 0)
        predicted = base.copy()
        weighted = np.bincount(owner + 1, self.weights, len(rules) + 1)[1:]
        trust = _trust(weighted, np.bincount(owner + 1, self.squares, len(rules) + 1)[1:])
        summed = np.bincount(owner + 1, self.weights * self.values, len(rules) + 1)[1:]
        for place in named:
            at = self.matches(rules[place])
            prior = values[below[place]] if below[place] >= 0 else (base[at].mean() if len(at) else otherwise)
            values[place] = (summed[place] + trust[place] * prior) / (weighted[place] + trust[place])
        mine = owner >= 0
        predicted[mine] = values[owner[mine]]
        error = float((self.weights * (self.values - predicted) ** 2).sum())
        return _Fitted(rules, values, otherwise, predicted, owner, rank, error, below)

    def _background(
        self, rules: list[Steps], others: list[int], values: Floats, free: NDArray[np.bool_]
    ) -> tuple[Floats, float]:
        """What items without a token say, one after the other, on what is left: they add up."""
        weights = np.where(free, self.weights, 0.0)
        total = weights.sum()
        otherwise = float((weights * self.values).sum() / total) if total else 0.0
        steps = np.zeros(len(rules))
        base = np.full(len(self.values), otherwise)
        for _ in range(3 if others else 0):
            for place in others:
                at = self.matches(rules[place])
                base[at] -= steps[place]
                weight = weights[at]
                trust = float(_trust(weight.sum(), np.where(weight > 0, self.squares[at], 0.0).sum()))
                steps[place] = (weight * (self.values[at] - base[at])).sum() / (weight.sum() + trust)
                base[at] += steps[place]
            shift = float((weights * (self.values - base)).sum() / total) if total else 0.0
            otherwise += shift
            base += shift
        for place in others:
            values[place] = otherwise + steps[place]
        return base, otherwise

    # Taking back

    def _least(self, fitted: _Fitted, refused: set[Steps]) -> Steps | None:
        """The rule that costs least to give up, for each literal that it frees."""
        best, lowest = None, np.inf
        heads = [steps[-1] for steps in fitted.rules]
        for place, steps in enumerate(fitted.rules):
            if steps in refused:
                continue
            if steps[-1].form == "token":
                at = np.flatnonzero(fitted.owner == place)
                low = fitted.below[place]
                without = fitted.values[low] if low >= 0 else fitted.otherwise
            else:
                at = self.matches(steps)
                at = at[fitted.owner[at] < 0]
                without = fitted.predicted[at] - (fitted.values[place] - fitted.otherwise)
            weights, values = self.weights[at], self.values[at]
            loss = float((weights * ((values - without) ** 2 - (values - fitted.predicted[at]) ** 2)).sum())
            freed = len(steps) - (heads.count(steps[-1]) > 1)
            if loss / max(freed, 0.5) < lowest:
                best, lowest = steps, loss / max(freed, 0.5)
        return best

    def _trimmed(self, rules: list[Steps], literals: int) -> list[Steps]:
        while literals_of(rules) > literals:
            rules = self.shorter(rules)
        return rules

    # Adding

    def _filled(self, rules: list[Steps], literals: int, refused: set[Steps]) -> _Fitted:
        """With the best rules added, as long as there are literals for them."""
        fitted = self._fit(rules)
        while (room := literals - literals_of(fitted.rules)) > 0:
            steps = self._best(fitted, room, refused)
            if steps is None:
                break
            more = self._fit([*fitted.rules, steps])
            if more.error > fitted.error - ENOUGH * self.total:
                break
            fitted = more
        return fitted

    def _best(self, fitted: _Fitted, room: int, refused: set[Steps]) -> Steps | None:
        """The rule that removes most squared error for each of its literals, and has room."""
        residual = self.weights * (self.values - fitted.predicted)
        heads = {steps[-1] for steps in fitted.rules}
        taken = set(fitted.rules) | refused
        found = [
            *self._contexts(fitted, residual, heads, room, taken),
            *self._with_kinds(fitted, residual, heads, room, taken),
        ]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def _contexts(
        self, fitted: _Fitted, residual: Floats, heads: set[Atom], room: int, taken: set[Steps]
    ) -> list[tuple[float, Steps]]:
        """The best tokens after tokens."""
        contexts, size = self.contexts, len(self.contexts)
        sums, weights, squares = np.zeros(size), np.zeros(size), np.zeros(size)
        for back in range(min(self.depth, LONGEST)):
            number = self.of_position[:, back]
            at = np.flatnonzero((number >= 0) & (fitted.rank < back + 1))
            sums += np.bincount(number[at], residual[at], size)
            weights += np.bincount(number[at], self.weights[at], size)
            squares += np.bincount(number[at], self.squares[at], size)
        named = np.zeros(len(self.lexicon), bool)
        for head in heads:
            if head.form == "token":
                named[self.lexicon.ids(head)] = True
        cost = contexts.length - named[contexts.token[contexts.head]]
        shrunk = weights + _trust(weights, squares)
        rate = np.where(cost <= room, sums * sums / (shrunk * np.maximum(cost, 0.5)), 0.0)
        while len(rate) and rate[best := int(rate.argmax())] > 0:
            steps = self._named(contexts.ids(best))
            if steps is not None and steps not in taken:
                return [(float(rate[best]), steps)]
            rate[best] = 0
        return []

    def _named(self, ids: list[int]) -> Steps | None:
        texts = [self.lexicon.texts[id] for id in ids]
        named = tuple(token(text) for text in texts if text is not None)
        return named if len(named) == len(texts) else None

    def _with_kinds(
        self, fitted: _Fitted, residual: Floats, heads: set[Atom], room: int, taken: set[Steps]
    ) -> list[tuple[float, Steps]]:
        """The best kind, kinds after a token, and tokens after a kind."""
        if not len(self.kinds):
            return []
        free, follows = fitted.rank == 0, self.tokens[:, 1] >= 0
        found = self._alone(residual, np.flatnonzero(free))
        found += self._pairs(residual, free & follows, 1, 0, room, heads)
        found += self._pairs(residual, (fitted.rank <= 1) & follows, 0, 1, room, heads)
        return [(rate, steps) for rate, steps in found if steps not in taken]

    def _alone(self, residual: Floats, at: Numbers) -> list[tuple[float, Steps]]:
        gain = self._gains(self.tokens[at, 0], residual, at)
        kinds = np.argsort(-gain)[:8].tolist()
        return [(KIND_GAIN * float(gain[kind]), (self.kinds.atoms[kind],)) for kind in kinds]

    def _pairs(
        self,
        residual: Floats,
        open_: NDArray[np.bool_],
        fixed: int,
        varied: int,
        room: int,
        heads: set[Atom],
    ) -> list[tuple[float, Steps]]:
        """Rules of a token `fixed` places back and a kind `varied` places back, where positions are open."""
        order, starts = self._with[fixed]
        left = np.where(open_, residual, 0.0)
        energy = np.bincount(self.tokens[:, fixed] + 1, np.abs(left), len(self.lexicon) + 1)[1:]
        found: list[tuple[float, Steps]] = []
        for head in np.argsort(-energy)[:HEADS].tolist():
            text = self.lexicon.texts[head]
            if not energy[head] or text is None:
                break
            here = order[starts[head] : starts[head + 1]]
            here = here[open_[here]]
            gain = self._gains(self.tokens[here, varied], residual, here)
            kind = int(gain.argmax())
            atom, other = token(text), self.kinds.atoms[kind]
            steps = (other, atom) if fixed == 0 else (atom, other)
            cost = 2 - (steps[-1] in heads)
            if cost <= room:
                found.append((KIND_GAIN * float(gain[kind]) / cost, steps))
        return found

    def _gains(self, tokens: NDArray[Any], residual: Floats, at: Numbers) -> Floats:
        """What each kind would remove, of the error at positions `at` with these tokens."""
        size, places = len(self.kinds.ids), self._place[tokens]
        sums, weights, squares = (
            self.kinds.sums(totals(places, values[at], size + 1)[:size])
            for values in (residual, self.weights, self.squares)
        )
        return np.asarray(sums**2 / (weights + _trust(weights, squares)))


def _trust(weights: Any, squares: Any) -> Any:
    """What the less specific rule weighs against positions of these weights and squared weights.

    It is worth SHRINK of them, and few heavy ones are still few: by Kish's effective number, (Σw)² / Σw², one
    of them weighs Σw² / Σw.
    """
    return SHRINK * squares / np.maximum(weights, 1e-12) + 1e-9


def _rank(steps: Steps) -> float:
    """How specific a rule of a token is among those that may follow: longer contexts of tokens take over."""
    if all(atom.form == "token" for atom in steps):
        return float(len(steps))
    return 1.5


def literals_of(rules: list[Steps]) -> int:
    """What rules cost: each item once, and all that stands before it."""
    return len({steps[-1] for steps in rules}) + sum(len(steps) - 1 for steps in rules)
