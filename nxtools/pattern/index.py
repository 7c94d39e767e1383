"""The contexts of the evidence pool, indexed once for all units of a run.

A context is a token with up to three tokens before it (a suffix of the text so far). All units share the
pool's excerpts, so what a unit adds is one number per position, and learning is sums over groups of
positions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.lexicon import Lexicon
from nxtools.pattern.tree import LONGEST, Contexts, Numbers, grown, tree

OFTEN = 2  # occurrences that a context of several tokens needs to be worth a rule

ALMOST = 1 - 1e-9

Keys = NDArray[np.int64]
Floats = NDArray[np.float64]


def totals(numbers: Numbers, values: Floats, size: int) -> Floats:
    """(size,): the sum of `values` for each number."""
    return np.bincount(numbers, values, size).astype(np.float64, copy=False)


def first_of_best(gains: Floats) -> int:
    """The place of the largest gain; the first where several differ by no more than rounding does, as those
    of kinds do whose tokens are the same but for some that rules have taken."""
    return int((gains >= gains.max() * ALMOST).argmax())


class PoolIndex:
    """Index of a pool: `ids` (E, T), `valid` (E, T) bool: False where activations are left out (such
    positions can still be what comes before). Positions count over the valid ones, row by row.

    contexts: those of the pool, tokens alone first. of_position: (positions, LONGEST) the context of each
    length, -1 where there is none; head: (positions,) the first of them. positions, starts: positions sorted
    by context, those of context c are positions[starts[c]:starts[c + 1]].
    """

    def __init__(self, ids: NDArray[np.integer], valid: NDArray[np.bool_], lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.valid = valid
        self._same_text = lexicon.one_per_text()
        self._tokens, self._at = self._same_text[ids].ravel(), np.flatnonzero(valid.ravel())
        self._keys: list[Keys] = []  # of each length, ascending, and -1 for what is beyond them
        self._first: list[int] = []
        found, self.contexts = self._walk(ids, valid, None)
        self.of_position = found
        self.head = found[:, 0].copy()
        flat = found.ravel()
        order = np.argsort(flat, kind="stable")[(flat < 0).sum() :]
        self.positions = order // LONGEST
        self.starts = np.searchsorted(flat[order], np.arange(len(self.contexts) + 1))
        self.counts = np.diff(self.starts)

    @property
    def alone(self) -> int:
        """How many contexts are a token alone."""
        return len(self._keys[0]) - 1

    def sums(self, values: Floats) -> Floats:
        """(contexts,): the sum of `values` (positions,) over the positions of each context."""
        if not len(self.contexts):
            return np.zeros(0)
        return np.add.reduceat(values[self.positions], self.starts[:-1])

    def lookup(self, ids: NDArray[np.integer], valid: NDArray[np.bool_]) -> tuple[Numbers, Contexts]:
        """Contexts of other excerpts, (valid positions, LONGEST), and the pool's tree with what they add."""
        return self._walk(ids, valid, self.contexts)

    def occurrences(self, contexts: Contexts, number: int) -> Numbers:
        """Positions of the pool with a context of `lookup`, which may be there just once."""
        if number < len(self.contexts):
            return self.positions[self.starts[number] : self.starts[number + 1]]
        if contexts.parent[number] < 0:
            return self.positions[:0]
        found = self.occurrences(contexts, int(contexts.parent[number]))
        back = int(contexts.length[number]) - 1
        found = found[self._at[found] % self.valid.shape[1] >= back]
        here: Numbers = found[self._tokens[self._at[found] - back] == contexts.token[number]]
        return here

    def heads(self, ids: NDArray[np.integer]) -> Numbers:
        """The contexts that are each id alone; -1 for an id that the pool does not have."""
        return self._known(0, self._same_text[ids].astype(np.int64))

    def _walk(
        self, ids: NDArray[np.integer], valid: NDArray[np.bool_], base: Contexts | None
    ) -> tuple[Numbers, Contexts]:
        """Number contexts from short to long, each by (the number of the shorter one, the token before)."""
        vocabulary = len(self._same_text)
        tokens = self._same_text[ids].ravel()
        at = np.flatnonzero(valid.ravel())
        column = at % valid.shape[1]
        found = np.full((len(at), LONGEST), -1, dtype=np.intp)
        going = np.arange(len(at))  # positions whose context so far is known
        keys: Keys = tokens[at]
        parts = []
        count = 0 if base is None else len(base)
        for back in range(LONGEST):
            numbers = np.full(len(keys), -1, dtype=np.intp) if base is None else self._known(back, keys)
            new = np.flatnonzero(numbers < 0)
            unique, inverse, occurrences = np.unique(keys[new], return_inverse=True, return_counts=True)
            often = occurrences >= (OFTEN if back else 1)
            numbers[new] = np.where(often, np.cumsum(often) + (count - 1), -1)[inverse]
            added = unique[often]
            parts.append((added % vocabulary, added // vocabulary - 1, np.full(len(added), back + 1)))
            if base is None:
                self._keys.append(np.append(added, -1))
                self._first.append(count)
            count += len(added)
            on = np.flatnonzero(numbers >= 0)
            going, numbers = going[on], numbers[on]
            found[going, back] = numbers
            on = np.flatnonzero(column[going] > back)
            going = going[on]
            keys = (numbers[on] + 1) * vocabulary + tokens[at[going] - (back + 1)]
        token, parent, length = (np.concatenate(column) for column in zip(*parts, strict=True))
        return found, tree(token, parent, length) if base is None else grown(base, token, parent, length)

    def _known(self, back: int, keys: Keys) -> Numbers:
        known = self._keys[back]
        place = np.searchsorted(known[:-1], keys)
        return np.where(known[place] == keys, place + self._first[back], -1)
