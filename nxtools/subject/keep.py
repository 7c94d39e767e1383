"""Keeping the k best of many cells at once, exactly and whatever the order in which things are offered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTHING = -1


class Keeper:
    """The k best offers of each cell by (rank descending, id ascending), each with its payload.

    With keys, a cell keeps at most one offer per key, its best. A stream of offers then leaves the same as
    sorting them all would: an offer among the k best of distinct keys is never displaced, and the bar of a
    cell only rises.
    """

    def __init__(self, cells: int, k: int, payload: np.dtype[Any]) -> None:
        self.k = k
        self.rank = np.full((cells, k), -np.inf, np.float32)
        self.id = np.full((cells, k), np.iinfo(np.uint64).max, np.uint64)
        self.key = np.zeros((cells, k), np.uint64)
        self.place = np.full((cells, k), NOTHING, np.int32)
        self.bar = np.full(cells, -np.inf, np.float32)  # an offer below the bar of its cell cannot enter
        self._payload = np.empty(min(cells * k, 1024), payload)
        self._used = 0
        self.refused = 0  # offers whose key was there already

    def offer(
        self,
        cell: NDArray[np.int64],
        rank: NDArray[np.float32],
        identifier: NDArray[np.uint64],
        payload: NDArray[Any],
        key: NDArray[np.uint64] | None = None,
    ) -> None:
        """n offers, arrays (n,). A cell may occur many times: its offers take turns, the best first."""
        order = np.lexsort((identifier, -rank, cell))
        first = np.ones(len(order), bool)
        first[1:] = cell[order][1:] != cell[order][:-1]
        starts = np.flatnonzero(first)
        turn = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        for t in range(int(turn.max(initial=-1)) + 1):
            now = order[turn == t] if t else order[first]
            now = now[rank[now] >= self.bar[cell[now]]]
            if not len(now):
                return  # each cell's offers come in falling order: later turns are below the bar as well
            self._take(cell[now], rank[now], identifier[now], payload[now], None if key is None else key[now])

    def _take(
        self,
        cell: NDArray[np.int64],
        rank: NDArray[np.float32],
        identifier: NDArray[np.uint64],
        payload: NDArray[Any],
        key: NDArray[np.uint64] | None,
    ) -> None:
        """At most one offer a cell: into the slot of its own key if there is one, else the worst slot."""
        ranks, ids = self.rank[cell], self.id[cell]
        worst = ranks.min(axis=1)
        slot = np.where(ranks == worst[:, None], ids, 0).argmax(axis=1)
        if key is not None:
            same = (self.key[cell] == key[:, None]) & (self.place[cell] != NOTHING)
            has = same.any(axis=1)
            self.refused += int(has.sum())
            slot = np.where(has, same.argmax(axis=1), slot)
        rows = np.arange(len(cell))
        against, against_id = ranks[rows, slot], ids[rows, slot]
        better = (rank > against) | ((rank == against) & (identifier < against_id))
        cell, slot = cell[better], slot[better]
        place = self.place[cell, slot]
        fresh = place == NOTHING
        place[fresh] = self._room(int(fresh.sum()))
        self._payload[place] = payload[better]
        self.rank[cell, slot], self.id[cell, slot], self.place[cell, slot] = (
            rank[better],
            identifier[better],
            place,
        )
        if key is not None:
            self.key[cell, slot] = key[better]
        self.bar[cell] = self.rank[cell].min(axis=1)

    def _room(self, wanted: int) -> NDArray[np.int32]:
        if self._used + wanted > len(self._payload):
            grown = np.empty(
                min(self.rank.size, max(2 * len(self._payload), self._used + wanted)), self._payload.dtype
            )
            grown[: self._used] = self._payload[: self._used]
            self._payload = grown
        self._used += wanted
        return np.arange(self._used - wanted, self._used, dtype=np.int32)

    def kept(self) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float32], NDArray[np.uint64]]:
        """(cell, payload, rank, key) of all that is kept, by cell and then from the best down."""
        cell, slot = np.nonzero(self.place != NOTHING)
        order = np.lexsort((self.id[cell, slot], -self.rank[cell, slot], cell))
        cell, slot = cell[order], slot[order]
        return cell, self._payload[self.place[cell, slot]], self.rank[cell, slot], self.key[cell, slot]
