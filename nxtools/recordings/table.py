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
    if "count" not in found[0]:  # made of weights: one part, and nothing was counted
        return pack({"tokens": found[0]["tokens"]}, {"parts": list(parts[:1])})
    tokens = np.concatenate([part["tokens"] for part in found])
    known, place = np.unique(tokens, return_inverse=True)
    count = np.zeros(len(known), np.int64)
    np.add.at(count, place, np.concatenate([part["count"] for part in found]))
    return pack({"tokens": known, "count": count}, {"parts": list(parts)})


class Table:
    """A layer's table as later commands see it. Raises InputError (MissingBlob) where a part is gone.

    `tokens` (T,) ids, rising; `count` (T,) how often each was seen, 1 where the table is made of weights.
    """

    def __init__(self, digest: str, open_blob: OpenBlob) -> None:
        self.digest = digest
        arrays, facts = unpack(open_blob(digest))
        self.tokens: NDArray[np.int32] = arrays["tokens"]
        self.count: NDArray[np.int64] = arrays.get("count", np.ones(len(self.tokens), np.int64))
        self._parts = [unpack(open_blob(part))[0] for part in facts["parts"]]
        self._places = [np.searchsorted(self.tokens, part["tokens"]) for part in self._parts]

    def values(self, column: int) -> NDArray[np.float32]:
        """(T,): a unit's mean at each of `tokens`, over all parts."""
        total = np.zeros(len(self.tokens))
        for part, places in zip(self._parts, self._places, strict=True):
            count = part.get("count", self.count)
            total[places] += decode_rows(part["row"][column], part["scale"][column]) * count
        return (total / self.count).astype(np.float32)

    def positions(self, column: int) -> NDArray[np.float32] | None:
        """(positions,): what a position of an excerpt adds, where weights say so."""
        part = self._parts[0]
        if "position.row" not in part:
            return None
        return decode_rows(part["position.row"][column], part["position.scale"][column])


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

    @cached_property
    def positions(self) -> NDArray[np.float32] | None:
        """(positions,), or None where positions add nothing."""
        return self.table.positions(self.column)
