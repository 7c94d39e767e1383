"""What stands before each position: the candidates for what a pattern adds after certain tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import Atom, token
from nxtools.pattern.index import Floats, totals
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.tree import Numbers


def tokens_before(places: Numbers, valid: NDArray[np.bool_]) -> Numbers:
    """For each valid position of rows (E, T) of token places the place before it, -1 at the beginning."""
    before = np.full(places.shape, -1, dtype=np.intp)
    before[:, 1:] = places[:, :-1]
    return before[valid]


@dataclass(frozen=True, slots=True)
class Before:
    """Places (in Kinds.ids, -1: none) of what stands before the positions of the evidence and of validation.

    at: (positions,). token, values, weights, before: (validation positions,), the token's own place first.
    """

    kinds: Kinds
    at: Numbers
    token: Numbers
    before: Numbers
    values: Floats
    weights: Floats

    def atom(self, candidate: int) -> Atom | None:
        """A candidate is the place of a token, or beyond those a kind; None for a token without a text."""
        size = len(self.kinds.ids)
        if candidate >= size:
            return self.kinds.atoms[candidate - size]
        text = self.kinds.lexicon.texts[self.kinds.ids[candidate]]
        return None if text is None else token(text)

    def sums(self, values: Floats) -> Floats:
        """(candidates,): of `values` (positions,) where a candidate stands before."""
        size = len(self.kinds.ids)
        of_tokens = totals(self.at + 1, values, size + 1)[1:]
        return np.concatenate([of_tokens, self.kinds.sums(of_tokens)])

    def sums_at(self, positions: Numbers, *rows: Floats) -> Floats:
        """(n, candidates): the same of n rows of values, at some positions only."""
        size, at = len(self.kinds.ids), self.at[positions] + 1
        of_tokens = np.array([totals(at, values, size + 1)[1:] for values in rows])
        return np.concatenate([of_tokens, self.kinds.sums_of_few(of_tokens)], axis=1)

    def among(self, candidate: int) -> NDArray[np.bool_]:
        """(tokens + 1,): which tokens a candidate is; the last entry, for none, is False."""
        size = len(self.kinds.ids)
        among = np.zeros(size + 1, dtype=bool)
        among[candidate if candidate < size else self.kinds.members(candidate - size)] = True
        return among
