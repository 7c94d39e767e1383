"""The search for a rule that removes most squared error for each of its literals: tokens after tokens, tokens
after a kind of token, kinds of token, and kinds after a token."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import Atom, token
from nxtools.pattern.index import totals
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.tree import LONGEST
from nxtools.revise.fitting import Evidence, Fitted, Floats, Numbers, Steps, trusted
from nxtools.revise.rows import positions_of

KIND_GAIN = 0.55  # of what a rule with a kind seems to remove: kinds promise more than they hold
HEADS = 48  # tokens with the largest errors, that rules with kinds are looked for


class Search:
    """Rules that may be added, on some evidence."""

    def __init__(self, evidence: Evidence, kinds: Kinds) -> None:
        self.evidence, self.kinds, self.lexicon = evidence, kinds, evidence.lexicon
        self._with = [positions_of(evidence.tokens[:, back], len(self.lexicon)) for back in (0, 1)]
        self._place = np.full(len(self.lexicon), len(kinds.ids))  # of a token among those that have kinds
        self._place[kinds.ids] = np.arange(len(kinds.ids))

    def best(self, fitted: Fitted, room: int, refused: set[Steps]) -> Steps | None:
        """The rule that removes most squared error for each of its literals, and has room."""
        residual = self.evidence.weights * (self.evidence.values - fitted.predicted)
        heads = {steps[-1] for steps in fitted.rules}
        taken = set(fitted.rules) | refused
        found = [
            *self._contexts(fitted, residual, heads, room, taken),
            *self._with_kinds(fitted, residual, heads, room, taken),
        ]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def _contexts(
        self, fitted: Fitted, residual: Floats, heads: set[Atom], room: int, taken: set[Steps]
    ) -> list[tuple[float, Steps]]:
        """The best tokens after tokens."""
        contexts, size = self.evidence.contexts, len(self.evidence.contexts)
        sums, weights, squares = np.zeros(size), np.zeros(size), np.zeros(size)
        for back in range(min(self.evidence.depth, LONGEST)):
            number = self.evidence.of_position[:, back]
            at = np.flatnonzero((number >= 0) & (fitted.rank < back + 1))
            sums += np.bincount(number[at], residual[at], size)
            weights += np.bincount(number[at], self.evidence.weights[at], size)
            squares += np.bincount(number[at], self.evidence.squares[at], size)
        named = np.zeros(len(self.lexicon), bool)
        for head in heads:
            if head.form == "token":
                named[self.lexicon.ids(head)] = True
        cost = contexts.length - named[contexts.token[contexts.head]]
        shrunk = weights + trusted(weights, squares)
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
        self, fitted: Fitted, residual: Floats, heads: set[Atom], room: int, taken: set[Steps]
    ) -> list[tuple[float, Steps]]:
        """The best kind, kinds after a token, and tokens after a kind."""
        if not len(self.kinds):
            return []
        free, follows = fitted.rank == 0, self.evidence.tokens[:, 1] >= 0
        found = self._alone(residual, np.flatnonzero(free))
        found += self._pairs(residual, free & follows, 1, 0, room, heads)
        found += self._pairs(residual, (fitted.rank <= 1) & follows, 0, 1, room, heads)
        return [
            (rate, steps)
            for rate, steps in found
            if steps not in taken and not any(self.evidence.overlap(steps, other) for other in fitted.rules)
        ]

    def _alone(self, residual: Floats, at: Numbers) -> list[tuple[float, Steps]]:
        gain = self._gains(self.evidence.tokens[at, 0], residual, at)
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
        energy = np.bincount(self.evidence.tokens[:, fixed] + 1, np.abs(left), len(self.lexicon) + 1)[1:]
        found: list[tuple[float, Steps]] = []
        for head in np.argsort(-energy)[:HEADS].tolist():
            text = self.lexicon.texts[head]
            if not energy[head] or text is None:
                break
            here = order[starts[head] : starts[head + 1]]
            here = here[open_[here]]
            gain = self._gains(self.evidence.tokens[here, varied], residual, here)
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
            for values in (residual, self.evidence.weights, self.evidence.squares)
        )
        return np.asarray(sums**2 / (weights + trusted(weights, squares)))
