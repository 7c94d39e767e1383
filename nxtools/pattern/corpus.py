"""What all the evidence says of single tokens, laid over the pool, which is a small part of it.

The pool knows what stands before a token, the corpus table how often each token occurs and what the unit does
there on average, over all the evidence. So the pool's positions are weighted as often as their token occurs,
and moved to have its mean; a token that the pool lacks gets a position that nothing comes before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.index import Floats, PoolIndex, totals
from nxtools.pattern.lexicon import Lexicon


@dataclass(frozen=True)
class Counted:
    """Tokens (T,) and how often all the evidence has each (T,)."""

    tokens: NDArray[np.integer]
    count: NDArray[np.integer]


class Means(NamedTuple):
    """One unit's means (T,) at those tokens, and its activations (E, T) on the evidence pool.

    `side` gives the values to explain for any activations.
    """

    values: NDArray[np.float32]
    pool: NDArray[np.float32]
    side: Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Corpus:
    """The pool's index with the tokens that it lacks, and how much each of its positions stands for.

    weight: (positions,), as much in all as the pool has positions. observed: (contexts,) what one occurrence
    in the text weighs: less for a token alone, which was seen in all the evidence.
    """

    def __init__(
        self, lexicon: Lexicon, ids: NDArray[np.integer], valid: NDArray[np.bool_], known: Counted
    ) -> None:
        same_text = lexicon.one_per_text()
        tokens, self._number = np.unique(same_text[known.tokens], return_inverse=True)
        self._count = known.count
        count = totals(self._number, known.count.astype(np.float64), len(tokens))
        added = np.setdiff1d(tokens, same_text[ids[valid]])
        rows = np.zeros((len(added), ids.shape[1]), ids.dtype)
        alone = np.zeros(rows.shape, bool)
        rows[:, 0], alone[:, 0] = added, True
        self.index = PoolIndex(np.concatenate([ids, rows]), np.concatenate([valid, alone]), lexicon)
        self._valid, self._head = valid, self.index.head
        self._heads = self.index.heads(tokens)
        seen = self.index.counts[: self.index.alone].astype(np.float64)
        occurs = seen.copy()
        occurs[self._heads] = np.maximum(seen[self._heads], count)
        share = valid.sum() / max(occurs.sum(), 1.0)
        of_head = share * occurs / seen
        self.weight: Floats = of_head[self._head]
        self.observed: Floats = of_head[self.index.contexts.head]
        self.observed[: self.index.alone] = share

    def values(self, pool: NDArray[np.float32], means: Means) -> Floats:
        """(positions,): the values to explain `pool` (E, T), moved to the means of their tokens."""
        size = len(self._heads)
        count = self._count.astype(np.float64)
        mean = totals(self._number, count * means.values, size) / totals(self._number, count, size)
        here = self._head[: int(self._valid.sum())]
        heads = self.index.alone
        raw = totals(here, means.pool[self._valid].astype(np.float64), heads)
        moved = np.zeros(heads)
        moved[self._heads] = (
            mean - (raw / np.maximum(totals(here, np.ones(len(here)), heads), 1.0))[self._heads]
        )
        values = np.zeros(len(self._head))
        values[: len(here)] = pool[self._valid] + moved[here]
        values[len(here) :] = means.side(moved[self._head[len(here) :]].astype(np.float32))
        return values
