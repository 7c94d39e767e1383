"""Embeddings as they are stored: of length 1, little-endian float16, in base64."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def packed(vector: Floats) -> dict[str, str]:
    """The answer to an `Embedding`. ValueError for a vector without a direction."""
    vector = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(vector))
    if vector.ndim != 1 or not (np.isfinite(length) and length > 0):
        raise ValueError("an embedding has no direction")
    return {"embedding": base64.b64encode((vector / length).astype("<f2").tobytes()).decode()}


def unpacked(answer: dict[str, str]) -> Floats:
    return np.frombuffer(base64.b64decode(answer["embedding"]), "<f2").astype(np.float64)


def cosine(one: dict[str, str], other: dict[str, str]) -> float:
    """Of two answers."""
    a, b = unpacked(one), unpacked(other)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
