"""What is asked of a subject about texts of our own: how it spells them, and a unit's activations on them.

Known without torch: a question that the store answers loads no subject.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nxtools.arrays import decode_rows, encode_rows

VERSION = 1  # of a reading: raise it when an answer would come out differently
SPELLING_VERSION = 1  # of a spelling

Activations = NDArray[np.float32]


class OfSubject(Protocol):
    """What lines say of their subject, and so all that is asked of it."""

    @property
    def subject(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def dtype(self) -> str: ...


@dataclass(frozen=True)
class Reading:
    """One unit's activations on n texts.

    contexts: token ids of each, with all that the subject sees (a BOS token, what came before).
    """

    subject: str  # its name on the line; what it is called says nothing about the answer
    fingerprint: str
    site: str
    dtype: str
    layer: int
    index: int
    contexts: Sequence[NDArray[np.int32]]

    @property
    def columns(self) -> tuple[int, ...]:
        return (self.index,)

    def question(self) -> dict[str, Any]:
        """All that the answer depends on."""
        return _question(self)


@dataclass(frozen=True)
class LayerReading:
    """The same of many units of a layer; the answer has one row for each text and column, texts first."""

    subject: str
    fingerprint: str
    site: str
    dtype: str
    layer: int
    columns: tuple[int, ...]
    contexts: Sequence[NDArray[np.int32]]

    def question(self) -> dict[str, Any]:
        """All that the answer depends on."""
        return _question(self)

    def unpacked(self, answer: dict[str, str]) -> Activations:
        """(texts, columns, longest), NaN behind a text's end."""
        lengths = [len(ids) for ids in self.contexts]
        rows = unpacked(answer, np.repeat(lengths, len(self.columns)).tolist())
        return rows.reshape(len(lengths), len(self.columns), rows.shape[1])


def _question(reading: Reading | LayerReading) -> dict[str, Any]:
    return {
        "weights": reading.fingerprint,
        "site": reading.site,
        "dtype": reading.dtype,
        "layer": reading.layer,
        "columns": list(reading.columns),
        "lengths": [len(ids) for ids in reading.contexts],
        "ids": np.concatenate([np.zeros(0, np.int32), *reading.contexts]).astype(np.int32),
    }


@dataclass(frozen=True)
class Spelling:
    """How a subject spells n texts, each a document of its own.

    Answered by `{"ids": [[…], …], "tokens": [[…], …]}`, without what the tokenizer puts in front.
    """

    subject: str
    fingerprint: str
    site: str
    dtype: str
    texts: Sequence[str]

    def question(self) -> dict[str, Any]:
        """All that the answer depends on: a subject's weights go with its tokenizer."""
        return {"weights": self.fingerprint, "texts": list(self.texts)}


def packed(rows: Activations) -> dict[str, str]:
    """Activations (n, tokens) as an answer: float16 in units of each row's largest magnitude."""
    row, scale = encode_rows(np.nan_to_num(rows))
    return {"rows": _text(row.astype("<f2")), "scale": _text(scale.astype("<f4"))}


def unpacked(answer: dict[str, str], lengths: Sequence[int]) -> Activations:
    """The activations of an answer: (n, longest), NaN behind a text's end."""
    scale = np.frombuffer(base64.b64decode(answer["scale"]), "<f4")
    row = np.frombuffer(base64.b64decode(answer["rows"]), "<f2").reshape(len(scale), -1)
    rows = decode_rows(row, scale)
    for place, length in enumerate(lengths):
        rows[place, length:] = np.nan
    return rows


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()
