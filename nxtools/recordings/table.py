"""Tables of a unit's values by token, as nx-record makes them.

A table lies in parts, one per shard. A blob names them; a unit line names that blob and the unit's column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nxtools.arrays import decode_rows, pack, unpack

OpenBlob = Callable[[str], memoryview]


def pack_table(parts: Sequence[str], open_blob: OpenBlob) -> bytes:
    """The blob of a table made of these parts. Raises InputError (MissingBlob) where one is gone."""
    found = [unpack(open_blob(part))[0] for part in parts]
    tokens = np.concatenate([part["tokens"] for part in found])
    known, place = np.unique(tokens, return_inverse=True)
    count = np.zeros(len(known), np.int64)
    np.add.at(count, place, np.concatenate([part["count"] for part in found]))
    return pack({"tokens": known, "count": count}, {"parts": list(parts)})


class Table:
    """A layer's table as later commands see it. Raises InputError (MissingBlob) where a part is gone.

    `tokens` (T,) ids, rising; `count` (T,) how often each was seen, at least once.
    """

    def __init__(self, digest: str, open_blob: OpenBlob) -> None:
        self.digest = digest
        arrays, facts = unpack(open_blob(digest))
        self.tokens: NDArray[np.int32] = arrays["tokens"]
        self.count: NDArray[np.int64] = arrays["count"]
        self._parts = [unpack(open_blob(part))[0] for part in facts["parts"]]
        self._places = [np.searchsorted(self.tokens, part["tokens"]) for part in self._parts]

    def values(self, column: int) -> NDArray[np.float32]:
        """(T,): a unit's mean at each of `tokens`, over all parts."""
        total = np.zeros(len(self.tokens))
        for part, places in zip(self._parts, self._places, strict=True):
            total[places] += decode_rows(part["row"][column], part["scale"][column]) * part["count"]
        return (total / self.count).astype(np.float32)


@dataclass(frozen=True)
class Column:
    """One unit of a table."""

    table: Table
    column: int

    @property
    def tokens(self) -> NDArray[np.int32]:
        return self.table.tokens

    @property
    def count(self) -> NDArray[np.int64]:
        return self.table.count

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """(T,)"""
        return self.table.values(self.column)
