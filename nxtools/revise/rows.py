"""Evidence for mending: rows of tokens with activations, and positions that are one to every rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class Rows:
    """Evidence: ids (E, T), activations (E, T), NaN where left out, and the weight of each row."""

    ids: NDArray[np.integer]
    activations: NDArray[np.float32]
    weights: Floats

    @classmethod
    def joined(cls, *parts: Rows) -> Rows:
        width = max(part.ids.shape[1] for part in parts)
        return cls(
            np.concatenate([_wide(part.ids, width, 0) for part in parts]),
            np.concatenate([_wide(part.activations, width, np.nan) for part in parts]),
            np.concatenate([part.weights for part in parts]),
        )


def _wide(rows: NDArray, width: int, filling: float) -> NDArray:  # type: ignore[type-arg]
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=filling)


def before(tokens: NDArray[np.integer], valid: NDArray[np.bool_], depth: int) -> Numbers:
    """For each valid position of rows (E, T) its token and those before it: (positions, depth), -1: none."""
    at = np.flatnonzero(valid.ravel())
    flat, column = tokens.ravel(), at % valid.shape[1]
    backs = [np.where(column >= back, flat[at - np.minimum(back, column)], -1) for back in range(depth)]
    return np.stack(backs, 1).astype(np.intp)


def alike(tokens: Numbers) -> tuple[Numbers, Numbers]:
    """Numbers of equal rows, and where each first stands."""
    number = np.zeros(len(tokens), np.intp)
    for column in tokens.T:
        _, code = np.unique(column, return_inverse=True)
        _, number = np.unique(number * (code.max(initial=0) + 1) + code, return_inverse=True)
    _, first = np.unique(number, return_index=True)
    return number, first
