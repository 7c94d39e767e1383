"""The recordings of one layer, from however many shards and runs, merged into one.

Lists merge by sorting, so they come out the same for any number of shards in any order. Sums of powers are
added in the order of the lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.arrays import decode_rows, unpack
from nxtools.records import SETS
from nxtools.stream import Record
from nxtools.subject.bins import BINS
from nxtools.subject.excerpts import Plan

OpenBlob = Callable[[str], memoryview]


@dataclass(frozen=True)
class Corpus:
    """The plans of all runs as one: excerpts are numbered through."""

    plans: list[Plan]
    offsets: list[int]  # of each plan's first excerpt, and the total at the end

    @classmethod
    def of(cls, plans: Sequence[Plan]) -> Corpus:
        return cls(list(plans), [0, *np.cumsum([plan.size for plan in plans]).tolist()])

    @property
    def tokens(self) -> int:
        return self.plans[0].excerpt

    def gather(self, name: str) -> NDArray[Any]:
        """One of a plan's arrays over excerpts, over all plans."""
        return np.concatenate([getattr(plan, name) for plan in self.plans])

    def ids(self, excerpt: int) -> NDArray[np.int32]:
        plan, local = self.place(excerpt)
        row: NDArray[np.int32] = plan.ids(np.array([local]))[0]
        return row

    def document(self, excerpt: int) -> str:
        plan, local = self.place(excerpt)
        return plan.documents[int(plan.document[local])]

    def place(self, excerpt: int) -> tuple[Plan, int]:
        which = int(np.searchsorted(self.offsets, excerpt, side="right")) - 1
        return self.plans[which], excerpt - self.offsets[which]


@dataclass(frozen=True)
class Entries:
    """Excerpts that were kept for units, n of them; `source` and `place` say where their rows lie."""

    cell: NDArray[np.int64]  # (n,) set * units + unit, times BINS plus the bin where it is spread
    rank: NDArray[np.float32]  # (n,) higher is better
    key: NDArray[np.uint64]  # (n,) of the last 8 tokens up to the peak
    excerpt: NDArray[np.int64]  # (n,) in the corpus
    source: NDArray[np.int32]
    place: NDArray[np.int32]

    def at(self, which: NDArray[Any]) -> Entries:
        return Entries(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


class Layer:
    """Merged recordings of a layer's N units.

    `sign`; `units` N; `tokens` (sets,); `powers` (4, sets, N) sums; `maximum`, `minimum` (sets, N);
    `nonfinite` (N,); `lists[side]` and `spread[side]` Entries by cell; `histogram[side]` (sets, N, BINS).
    Raises InputError (MissingBlob) where a blob is gone.
    """

    def __init__(
        self, lines: Sequence[Record], corpus: Corpus, plan_of: dict[str, int], open_blob: OpenBlob
    ) -> None:
        self.corpus = corpus
        self.sign = str(lines[0]["sign"])
        self.units = int(lines[0]["width"])
        self._ids = corpus.gather("id")
        self._sources: list[dict[str, NDArray[Any]]] = []
        offsets: list[int] = []
        for line in lines:
            arrays, _ = unpack(open_blob(line["blob"]))
            self._sources.append(arrays)
            offsets.append(corpus.offsets[plan_of[line["plan"]]])
        self._offsets = offsets
        self.tokens: NDArray[np.int64] = self._sum("tokens")
        self.powers: NDArray[np.float64] = self._sum("powers")
        self.nonfinite: NDArray[np.int64] = self._sum("nonfinite")
        self.maximum = np.maximum.reduce([a["maximum"] for a in self._sources])
        self.minimum = (
            np.minimum.reduce([a["minimum"] for a in self._sources])
            if "minimum" in self._sources[0]
            else None
        )
        keep = lines[0]["keep"]
        sides = ("top", "bottom") if self.minimum is not None else ("top",)
        self.histogram = {
            side: self._sum(f"{side}.histogram").reshape(len(SETS), self.units, BINS) for side in sides
        }
        self.lists = {side: self._merged(side, keep[0], distinct=True) for side in sides}
        self.spread = {side: self._merged(f"{side}.spread", keep[1], distinct=False) for side in sides}

    def _sum(self, name: str) -> NDArray[Any]:
        total = self._sources[0][name].astype(np.float64 if name == "powers" else np.int64)
        for arrays in self._sources[1:]:
            total = total + arrays[name]
        return total

    def _merged(self, kind: str, limit: int, *, distinct: bool) -> Entries:
        counts = [len(arrays[f"{kind}.cell"]) for arrays in self._sources]
        every = Entries(
            cell=np.concatenate([a[f"{kind}.cell"] for a in self._sources]).astype(np.int64),
            rank=np.concatenate([a[f"{kind}.rank"] for a in self._sources]),
            key=np.concatenate([a[f"{kind}.key"] for a in self._sources]),
            excerpt=np.concatenate(
                [
                    a[f"{kind}.excerpt"] + np.int64(o)
                    for a, o in zip(self._sources, self._offsets, strict=True)
                ]
            ),
            source=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            place=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        )
        if len(self._sources) == 1:
            return every
        every = every.at(np.lexsort((self._ids[every.excerpt], -every.rank, every.cell)))
        if distinct:
            every = every.at(np.sort(_first_of_each(every.cell, every.key)))
        return every.at(np.flatnonzero(_turn(every.cell) < limit))

    def rows(self, kind: str, entries: Entries) -> NDArray[np.float32]:
        """Activations (n, tokens) of entries of the list `kind`; NaN where a position is left out."""
        rows = np.empty((len(entries.cell), self.corpus.tokens), np.float32)
        for number, arrays in enumerate(self._sources):
            mine = np.flatnonzero(entries.source == number)
            if len(mine):
                place = entries.place[mine]
                rows[mine] = decode_rows(arrays[f"{kind}.row"][place], arrays[f"{kind}.scale"][place])
        return rows

    def pool_places(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """(excerpt, source, place) of every excerpt of the random pool, over all sets, in no order."""
        excerpts = [
            a["pool.excerpt"] + np.int64(o) for a, o in zip(self._sources, self._offsets, strict=True)
        ]
        counts = [len(e) for e in excerpts]
        return (
            np.concatenate(excerpts),
            np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        )

    def pool_rows(
        self, units: slice, source: NDArray[np.int32], place: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Activations (units, n, tokens) at places of the pool."""
        width = len(range(*units.indices(self.units)))
        rows = np.empty((width, len(source), self.corpus.tokens), np.float32)
        for number, arrays in enumerate(self._sources):
            mine = np.flatnonzero(source == number)
            if len(mine):
                at = place[mine]
                rows[:, mine] = decode_rows(arrays["pool.row"][units, at], arrays["pool.scale"][units, at])
        return rows


def _first_of_each(cell: NDArray[Any], key: NDArray[Any]) -> NDArray[np.int64]:
    """Places of the first entry of each (cell, key)."""
    order = np.lexsort((np.arange(len(cell)), key, cell))
    fresh = np.ones(len(order), bool)
    fresh[1:] = (cell[order][1:] != cell[order][:-1]) | (key[order][1:] != key[order][:-1])
    return order[fresh]


def _turn(cell: NDArray[Any]) -> NDArray[np.int64]:
    """0, 1, 2, … within each run of equal cells."""
    first = np.ones(len(cell), bool)
    first[1:] = cell[1:] != cell[:-1]
    starts = np.flatnonzero(first)
    return np.arange(len(cell)) - np.repeat(starts, np.diff(np.append(starts, len(cell))))
