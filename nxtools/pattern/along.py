"""What goes along a text: what is early in it, and what lingers. Both halve every HALF tokens."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

HALF = 8  # tokens
KEPT = 2 ** (-1 / HALF)  # from one token to the next

Levels = NDArray[np.float32]


@lru_cache(maxsize=8)
def earliness(width: int) -> Levels:
    """(width,): 1 at the first token of an excerpt, half of it HALF tokens later, and so on."""
    return np.power(KEPT, np.arange(width)).astype(np.float32)


def lingered(levels: Levels) -> Levels:
    """(E, T): what levels (E, T) leave to the tokens after them. Of each level half falls on the next HALF
    tokens, half of the rest on as many after those, and so on; a row ends before all of it has."""
    left: Levels = levels @ _left(levels.shape[1])
    return left


@lru_cache(maxsize=8)
def _left(width: int) -> Levels:
    """(width, width): what each position leaves to each."""
    distance = np.arange(width) - np.arange(width)[:, None]
    left = np.where(distance > 0, (1 - KEPT) * KEPT ** (np.maximum(distance, 1) - 1.0), 0.0)
    return left.astype(np.float32)
