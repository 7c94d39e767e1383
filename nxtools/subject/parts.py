"""Which excerpts a pass covers, and where they lie in its batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nxtools.subject.excerpts import Plan, mix

KEY_TOKENS = 8  # excerpts with the same tokens up to the peak are near duplicates


@dataclass(frozen=True)
class Shard:
    """Which excerpts of a plan one pass covers: those of the contexts first..last-1."""

    first: int
    last: int

    def excerpts(self, plan: Plan) -> NDArray[np.int64]:
        return np.flatnonzero((plan.context >= self.first) & (plan.context < self.last))


@dataclass(frozen=True)
class Part:
    """What a batch has in one slot of its contexts: n excerpts, in the order of their rows in the batch."""

    slot: int
    rows: NDArray[np.int64]  # (n,) of the batch
    excerpts: NDArray[np.int64]  # (n,) in the plan
    keys: NDArray[np.uint64]  # (n, tokens) see `near_keys`
    first: int  # positions before it are left out


def near_keys(contexts: NDArray[np.int32]) -> NDArray[np.uint64]:
    """A number (contexts, tokens) for the last 8 tokens up to every position, or up to the beginning."""
    tokens = contexts.astype(np.uint64)
    keys = np.zeros(tokens.shape, np.uint64)
    for back in range(min(KEY_TOKENS, tokens.shape[1]))[::-1]:
        keys[:, back:] = mix(keys[:, back:] ^ tokens[:, : tokens.shape[1] - back])
    return keys


def parts_of(
    plan: Plan, excerpts: NDArray[np.int64], begin: int, contexts: NDArray[np.int32]
) -> Iterator[Part]:
    """The excerpts of a batch, which begins at the context `begin`, by their slot in the context."""
    keys = near_keys(contexts)
    for slot in np.unique(plan.slot[excerpts]).tolist():
        members = excerpts[plan.slot[excerpts] == slot]
        rows = (plan.context[members] - begin).astype(np.int64)
        here = slice(slot * plan.excerpt, (slot + 1) * plan.excerpt)
        first = 1 if plan.masked_first and slot == 0 else 0
        yield Part(slot, rows, members, keys[rows, here], first)
