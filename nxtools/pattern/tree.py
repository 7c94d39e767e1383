"""Contexts as a tree: each extends a shorter one by the token before it.

What a search knows of a context holds for all its positions at once, so it goes from context to context along
this tree and looks at no position.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LONGEST = 4  # tokens of a context, the current one included

Numbers = NDArray[np.intp]

NONE = np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Contexts:
    """Number i extends `parent[i]` (-1: a token alone) by the id `token[i]` before it; parents come first.

    `length`: tokens, 1 to LONGEST. `head`: the number of the current token alone, itself a context.
    The pool's come first; what extends its context i is extensions[starts[i]:starts[i + 1]], and `added`,
    by number, what a unit adds to that.
    """

    token: Numbers
    parent: Numbers
    length: Numbers
    head: Numbers
    extensions: Numbers
    starts: Numbers
    added: Mapping[int, list[int]]

    def __len__(self) -> int:
        return len(self.token)

    def ids(self, number: int) -> list[int]:
        """Ids of a context in the order of the text, the current token last."""
        ids = []
        while number >= 0:
            ids.append(int(self.token[number]))
            number = int(self.parent[number])
        return ids

    def longer(self, number: int) -> Numbers:
        """The contexts that extend it, by one token or more."""
        known = number < len(self.starts) - 1
        of_pool = self.extensions[self.starts[number] : self.starts[number + 1]] if known else NONE
        added = self.added.get(number)
        return of_pool if added is None else np.concatenate([of_pool, np.array(added, dtype=np.intp)])


def tree(token: Numbers, parent: Numbers, length: Numbers) -> Contexts:
    """The contexts of a pool: shorter ones before longer ones."""
    head = np.arange(len(token))
    for size in range(2, LONGEST + 1):
        longer = np.flatnonzero(length == size)
        head[longer] = head[parent[longer]]
    shorter, extensions = [NONE], [NONE]
    numbers, above = np.arange(len(token)), parent
    while len(numbers := numbers[above >= 0]):
        above = above[above >= 0]
        shorter.append(above)
        extensions.append(numbers)
        above = parent[above]
    extended = np.concatenate(shorter)
    order = np.argsort(extended, kind="stable")
    starts = np.searchsorted(extended[order], np.arange(len(token) + 1))
    return Contexts(token, parent, length, head, np.concatenate(extensions)[order], starts, {})


def grown(pool: Contexts, token: Numbers, parent: Numbers, length: Numbers) -> Contexts:
    """The contexts of a pool and after them those that a unit adds."""
    parents = np.concatenate([pool.parent, parent])
    numbers = np.arange(len(pool), len(parents))
    head = np.concatenate([pool.head, numbers])
    added: defaultdict[int, list[int]] = defaultdict(list)
    shorter = parent
    while len(numbers := numbers[shorter >= 0]):
        shorter = shorter[shorter >= 0]
        head[numbers] = shorter  # in the end the shortest
        for extended, number in zip(shorter.tolist(), numbers.tolist(), strict=True):
            added[extended].append(number)
        shorter = parents[shorter]
    return Contexts(
        np.concatenate([pool.token, token]),
        parents,
        np.concatenate([pool.length, length]),
        head,
        pool.extensions,
        pool.starts,
        added,
    )
