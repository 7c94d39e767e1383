"""Prompts with slots as token ids, and what the logits at the slots say about the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nxtools.assistant.protocol import Number, Piece, Slot, Slots
from nxtools.assistant.tokens import Tokens

VERSION = 1  # of how prompts become ids and logits become probabilities; part of an engine's identity
DIGITS = 6  # of the probabilities that are stored

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Prompt:
    """The ids of a prompt's three parts.

    reads: the tokens of the excerpt, by place in it, behind which a number is predicted; the excerpt ends
    with the last of them, for nothing depends on what comes after.
    """

    prefix: tuple[int, ...]
    explanation: tuple[int, ...]
    excerpt: tuple[int, ...]
    reads: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.prefix) + len(self.explanation) + len(self.excerpt)

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prefix + self.explanation + self.excerpt

    def described(self) -> str:
        return (
            f"{self.size:,} tokens (instructions and examples {len(self.prefix):,}, explanation "
            f"{len(self.explanation):,}, excerpt {len(self.excerpt):,})"
        )


def lay_out(slots: Slots, tokens: Tokens) -> Prompt:
    """Tokenises a prompt piece by piece. Raises ValueError for an excerpt that begins with a slot."""
    ids: list[int] = []
    reads: list[int] = []
    for piece in slots.excerpt:
        if isinstance(piece, Slot):
            if not ids:
                raise ValueError("an excerpt must begin with text: its first number stands behind a token")
            reads.append(len(ids) - 1)
            ids += tokens.piece(piece.filler)
        else:
            ids += _written(piece, tokens)
    return Prompt(
        tokens.begin + _joined(slots.prefix, tokens),
        _joined(slots.explanation, tokens),
        tuple(ids[: reads[-1] + 1] if reads else ()),
        tuple(reads),
    )


def _joined(pieces: Iterable[str | Number], tokens: Tokens) -> tuple[int, ...]:
    return tuple(one for piece in pieces for one in _written(piece, tokens))


def _written(piece: Piece, tokens: Tokens) -> tuple[int, ...]:
    if isinstance(piece, Slot):
        raise ValueError("only an excerpt has slots")
    return tokens.number(piece.value) if isinstance(piece, Number) else tokens.piece(piece)


def read_numbers(logits: Floats, numbers: Sequence[int]) -> tuple[Floats, Floats]:
    """What logits (slots, vocabulary) say: probabilities of the numbers among themselves, (slots, 11), and
    their mass together, (slots,). Where 10 is not among the numbers its probability is 0."""
    logits = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    mine = logits[:, list(numbers)]
    among = np.exp(mine - mine.max(axis=1, keepdims=True))
    probabilities = np.zeros((len(logits), 11))
    probabilities[:, : len(numbers)] = among / among.sum(axis=1, keepdims=True)
    return probabilities, np.exp(mine).sum(axis=1) / np.exp(logits).sum(axis=1)


def of_targets(logits: Floats, targets: Sequence[int]) -> Floats:
    """Log-probabilities (reads,) of the tokens that came, from logits (reads, vocabulary)."""
    logits = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: Floats = logits[np.arange(len(targets)), list(targets)] - np.log(np.exp(logits).sum(axis=1))
    return found


def passage(logprobs: Iterable[float]) -> dict[str, Any]:
    """The answer to a `Passage`, in short numbers."""
    return {"logprobs": [round(float(one), DIGITS) for one in logprobs]}


def answer(probabilities: Floats, mass: Floats, top: int) -> dict[str, Any]:
    """The answer to a `Slots`, in short numbers."""
    return {
        "probabilities": np.round(probabilities, DIGITS).tolist(),
        "mass": [float(f"{one:.{DIGITS}g}") for one in mass],
        "top": top,
    }


def nothing(top: int) -> dict[str, Any]:
    """The answer to a prompt without slots."""
    return answer(np.zeros((0, 11)), np.zeros(0), top)
