"""Keeping the k best of many cells at once, exactly and whatever the order in which things are offered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ranked(
    cell: NDArray[np.integer[Any]], rank: NDArray[np.float32], identifier: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """The order by cell, then by rank from the highest down, then by id. Arrays (n,), cells below 2^32.

    Cell and rank make one number, so that a single sort does: floats are ordered like their bits, once the
    negative ones are turned round.
    """
    bits = (rank + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.uint32) ^ np.uint32(1 << 31)
    return _order(cell.astype(np.uint64) << np.uint64(32) | ~rising, identifier)


def first_of_each(cell: NDArray[np.integer[Any]], key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Places of the first entry of each (cell, key), rising."""
    places = np.arange(len(cell), dtype=np.uint64)
    # Within a cell, equal numbers are equal keys; that two cells share one has odds of 2^-64 and the worst it
    # could do is to keep both of two near duplicates.
    order = _order(key + cell.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), places)
    fresh = np.ones(len(order), bool)
    fresh[1:] = (key[order][1:] != key[order][:-1]) | (cell[order][1:] != cell[order][:-1])
    return np.sort(order[fresh])


def turns(cell: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """0, 1, 2, … within each run of equal cells."""
    first = np.ones(len(cell), bool)
    first[1:] = cell[1:] != cell[:-1]
    starts = np.flatnonzero(first)
    return np.arange(len(cell)) - np.repeat(starts, np.diff(np.append(starts, len(cell))))


def _order(by: NDArray[np.uint64], then: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The order by one number and then by another. Ties are few, and only they are sorted twice."""
    order = np.argsort(by)
    values = by[order]
    same = values[1:] == values[:-1]
    if same.any():
        tied = np.zeros(len(order), bool)
        tied[1:] |= same
        tied[:-1] |= same
        members = order[tied]
        order[tied] = members[np.lexsort((then[members], by[members]))]
    return order


class Keeper:
    """The k best offers of each cell by (rank descending, id ascending); with keys, one offer per key.

    Offers are gathered and now and then `settle` drops what cannot stay. What is left after the last time is
    what sorting all offers would leave: among the k best (of distinct keys) of all are only offers that are
    among the k best of any part.

    Arrays (n,), after `settle` by cell and then the best first: `cell`, `rank`, `id`, `key`, and `place`, a
    number that the caller gave. `bar` (cells,): an offer below the bar of its cell cannot stay.
    """

    def __init__(self, cells: int, k: int) -> None:
        self.k = k
        self.bar = np.full(cells, -np.inf, np.float32)
        self.refused = 0  # offers whose cell had a better one with the same key
        self.cell = np.zeros(0, np.int32)
        self.rank = np.zeros(0, np.float32)
        self.id = np.zeros(0, np.uint64)
        self.key = np.zeros(0, np.uint64)  # empty where offers have none
        self.place = np.zeros(0, np.int32)
        self._offers: list[tuple[NDArray[Any], ...]] = []

    def offer(
        self,
        cell: NDArray[np.int32],
        rank: NDArray[np.float32],
        identifier: NDArray[np.uint64],
        place: NDArray[np.int32],
        key: NDArray[np.uint64] | None = None,
    ) -> None:
        """n offers, arrays (n,); a cell may occur many times. Either all offers have keys or none."""
        self._offers.append(
            (cell, rank, identifier, place) if key is None else (cell, rank, identifier, place, key)
        )

    def settle(self) -> None:
        """Drop what cannot stay, and raise the bars."""
        if not self._offers:
            return
        kept = (self.cell, self.rank, self.id, self.place, self.key)
        parts = [kept[: len(self._offers[0])], *self._offers]
        self._offers = []
        cell, rank, identifier, place, *keys = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = ranked(cell, rank, identifier)
        if keys:
            distinct = first_of_each(cell[order], keys[0][order])
            self.refused += len(order) - len(distinct)
            order = order[distinct]
        turn = turns(cell[order])
        stays = turn < self.k
        order, turn = order[stays], turn[stays]
        self.cell, self.rank, self.id = cell[order], rank[order], identifier[order]
        self.place = place[order]
        self.key = keys[0][order] if keys else self.key
        last = turn == self.k - 1
        self.bar[self.cell[last]] = self.rank[last]
