"""The recordings of one layer, from however many shards and runs, merged into one.

Lists merge by sorting, so they come out the same for any number of shards in any order. Sums of powers are
added in the order of the shards.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.arrays import decode_rows, unpack
from nxtools.errors import InputError
from nxtools.records import SETS
from nxtools.stream import Record
from nxtools.subject.bins import BINS
from nxtools.subject.excerpts import Plan
from nxtools.subject.keep import first_of_each, ranked, turns

OpenBlob = Callable[[str], memoryview]
Arrays = dict[str, NDArray[Any]]

NO_LIMIT = np.uint64(2**64 - 1)


class Corpus:
    """The plans of all runs over a layer as one: excerpts are numbered through.

    `alive` (excerpts,): false for one whose tokens another run has as well, in an earlier set or before.
    Raises InputError when runs share documents, or cut excerpts of different lengths.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plans = list(plans)
        self.offsets = [0, *np.cumsum([plan.size for plan in plans]).tolist()]
        if len({plan.excerpt for plan in plans}) > 1:
            raise InputError("recordings of excerpts of different lengths", hint="use one --excerpt for all")
        documents = [document for plan in plans for document in plan.documents]
        if len(set(documents)) < len(documents):
            raise InputError(
                "two recordings hold the same document",
                hint="merge recordings of different text, or record all the text at once",
            )
        self.set: NDArray[np.uint8] = self.gather("set")
        self.id: NDArray[np.uint64] = self.gather("id")
        self.alive = np.ones(len(self.id), bool)
        if len(plans) > 1:
            order = np.lexsort((np.arange(len(self.id)), self.set, self.id))
            self.alive[order[1:]] = self.id[order[1:]] != self.id[order[:-1]]
        self.sizes = np.bincount(self.set[self.alive], minlength=len(SETS))

    @property
    def tokens(self) -> int:
        return self.plans[0].excerpt

    def gather(self, name: str) -> NDArray[Any]:
        """One of a plan's arrays over excerpts, over all plans."""
        return np.concatenate([getattr(plan, name) for plan in self.plans], axis=-1)

    def ids(self, excerpt: int) -> NDArray[np.int32]:
        """Token ids (tokens,)."""
        plan, local = self.place(excerpt)
        row: NDArray[np.int32] = plan.ids(np.array([local]))[0]
        return row

    def counted(self, excerpt: int) -> NDArray[np.bool_]:
        """Which positions (tokens,) are not left out."""
        plan, local = self.place(excerpt)
        row: NDArray[np.bool_] = plan.counted(np.array([local]))[0]
        return row

    def document(self, excerpt: int) -> str:
        plan, local = self.place(excerpt)
        return plan.documents[int(plan.document[local])]

    def document_numbers(self) -> NDArray[np.int64]:
        """A number for the document of each excerpt, over all plans."""
        counts = [0, *np.cumsum([len(plan.documents) for plan in self.plans]).tolist()]
        return np.concatenate(
            [plan.document + np.int64(c) for plan, c in zip(self.plans, counts, strict=False)]
        )

    def place(self, excerpt: int) -> tuple[Plan, int]:
        which = bisect_right(self.offsets, excerpt) - 1
        return self.plans[which], excerpt - self.offsets[which]


@dataclass(frozen=True)
class Entries:
    """Excerpts that were kept for units, n of them, by cell and then the best first.

    Their rows lie at `place` of recording `source`.
    """

    cell: NDArray[np.int64]  # (n,) see Layer
    rank: NDArray[np.float32]  # (n,) higher is better
    key: NDArray[np.uint64]  # (n,) of the last 8 tokens up to the peak; 0 where it is spread
    excerpt: NDArray[np.int64]  # (n,) in the corpus
    source: NDArray[np.int32]
    place: NDArray[np.int32]

    def at(self, which: NDArray[Any] | slice) -> Entries:
        return Entries(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class PoolPlaces:
    """Where the random pool's activations lie: excerpt i at `place[i]` of part `source[i]`."""

    excerpt: NDArray[np.int64]  # (n,) in the corpus, in the pool's order
    source: NDArray[np.int32]
    place: NDArray[np.int32]


class Layer:
    """Merged recordings of a layer's N units.

    `sign`; `units` N; `tokens` (sets,); `powers` (4, sets, N) sums; `maximum`, `minimum` (sets, N);
    `nonfinite` (N,); `histogram[side]` (sets, N, BINS); `lists[side]` Entries by set * N + unit; `spread`
    Entries by that times `strata` plus the stratum, drawn from `drawn_from` excerpts of each; `pool`. What is
    not sums or extremes is merged when it is looked at.
    Raises InputError (MissingBlob) where a blob is gone.
    """

    def __init__(
        self, lines: Sequence[Record], corpus: Corpus, plan_of: dict[str, int], open_blob: OpenBlob
    ) -> None:
        self.corpus = corpus
        self.sign = str(lines[0]["sign"])
        self.units = int(lines[0]["width"])
        self._offsets = [corpus.offsets[plan_of[line["plan"]]] for line in lines]
        self._sources = [unpack(open_blob(line["blob"]))[0] for line in lines]
        self.tokens: NDArray[np.int64] = self._sum("tokens")
        self.powers: NDArray[np.float64] = self._sum("powers")
        self.nonfinite: NDArray[np.int64] = self._sum("nonfinite")
        self.maximum = np.maximum.reduce([a["maximum"] for a in self._sources])
        self.minimum = (
            np.minimum.reduce([a["minimum"] for a in self._sources])
            if "minimum" in self._sources[0]
            else None
        )
        self._keep = lines[0]["keep"]
        self._sides = ("top", "bottom") if self.minimum is not None else ("top",)
        self.strata = BINS * len(self._sides)
        self._open_blob = open_blob
        self.pool_blobs = [blob for line in lines for blob in line["pool"]]
        self._pool_offsets = [o for line, o in zip(lines, self._offsets, strict=True) for _ in line["pool"]]

    @cached_property
    def histogram(self) -> dict[str, NDArray[np.int64]]:
        shape = (len(SETS), self.units, BINS)
        return {side: self._sum(f"{side}.histogram").reshape(shape) for side in self._sides}

    @cached_property
    def drawn_from(self) -> NDArray[np.int64]:
        return self._sum("spread.histogram")

    @cached_property
    def lists(self) -> dict[str, Entries]:
        return {side: self._merged(side, self._keep[0]) for side in self._sides}

    @cached_property
    def spread(self) -> Entries:
        return self._merged("spread", self._keep[1], self.corpus.gather("priority"))

    @cached_property
    def _pool_parts(self) -> list[Arrays]:
        return [unpack(self._open_blob(blob))[0] for blob in self.pool_blobs]

    @cached_property
    def pool(self) -> PoolPlaces:
        return self._pool_places(self._pool_offsets)

    def _sum(self, name: str) -> NDArray[Any]:
        total = self._sources[0][name].astype(np.float64 if name == "powers" else np.int64)
        for arrays in self._sources[1:]:
            total = total + arrays[name]
        return total

    def _merged(self, kind: str, limit: int, priority: NDArray[np.uint32] | None = None) -> Entries:
        """The entries of all recordings, as one recording of everything would have kept them."""
        counts = [len(arrays[f"{kind}.cell"]) for arrays in self._sources]
        place = np.concatenate([arrays[f"{kind}.place"] for arrays in self._sources])
        excerpt = np.concatenate(
            [
                arrays["excerpt"][arrays[f"{kind}.place"]] + np.int64(offset)
                for arrays, offset in zip(self._sources, self._offsets, strict=True)
            ]
        )
        every = Entries(
            cell=np.concatenate([arrays[f"{kind}.cell"] for arrays in self._sources]).astype(np.int64),
            rank=np.concatenate([arrays[f"{kind}.rank"] for arrays in self._sources])
            if priority is None
            else -priority[excerpt].astype(np.float32),
            key=np.concatenate([arrays[f"{kind}.key"] for arrays in self._sources])
            if priority is None
            else np.zeros(len(excerpt), np.uint64),
            excerpt=excerpt,
            source=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            place=place,
        )
        if len(self._sources) == 1:
            return every
        every = every.at(np.flatnonzero(self.corpus.alive[every.excerpt]))
        every = every.at(ranked(every.cell, every.rank, self.corpus.id[every.excerpt]))
        if priority is None:
            every = every.at(first_of_each(every.cell, every.key))
        return every.at(np.flatnonzero(turns(every.cell) < limit))

    def rows(self, entries: Entries) -> NDArray[np.float32]:
        """Activations (n, tokens) of entries; NaN where a position is left out."""
        rows = np.empty((len(entries.cell), self.corpus.tokens), np.float32)
        for number, arrays in enumerate(self._sources):
            mine = np.flatnonzero(entries.source == number)
            if len(mine):
                place = entries.place[mine]
                rows[mine] = decode_rows(arrays["row"][place], arrays["scale"][place])
        return rows

    def _pool_places(self, offsets: list[int]) -> PoolPlaces:
        """The pool by set and then by draw, as far down as all runs have it: a random sample of each set."""
        counts = [len(part["excerpt"]) for part in self._pool_parts]
        excerpt = np.concatenate(
            [np.zeros(0, np.int64)]
            + [part["excerpt"] + np.int64(o) for part, o in zip(self._pool_parts, offsets, strict=True)]
        )
        source = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        place = np.concatenate(
            [np.zeros(0, np.int32)] + [np.arange(count, dtype=np.int32) for count in counts]
        )
        draw, limits = self.corpus.gather("draw")[excerpt], pool_limits(self.corpus.plans)
        whole = (draw <= limits[self.corpus.set[excerpt]]) & self.corpus.alive[excerpt]
        order = np.lexsort((draw, self.corpus.set[excerpt]))
        order = order[whole[order]]
        return PoolPlaces(excerpt[order], source[order], place[order])

    def pool_rows(self, units: NDArray[np.int64], member: NDArray[np.int64]) -> NDArray[np.float32]:
        """Activations (n, tokens) of units (n,) on members (n,) of `pool`."""
        rows = np.empty((len(units), self.corpus.tokens), np.float32)
        source, place = self.pool.source[member], self.pool.place[member]
        for number, part in enumerate(self._pool_parts):
            mine = np.flatnonzero(source == number)
            if len(mine):
                at = units[mine], place[mine]
                rows[mine] = decode_rows(part["row"][at], part["scale"][at])
        return rows


def pool_limits(plans: Sequence[Plan]) -> NDArray[np.uint64]:
    """Of each set the draw up to which every plan's pool holds all excerpts."""
    limits = np.full(len(SETS), NO_LIMIT)
    for plan in plans:
        for number in range(len(SETS)):
            members = plan.set == number
            pooled = members & (plan.pool_rank >= 0)
            if pooled.sum() < members.sum():
                limits[number] = min(limits[number], plan.draw[pooled].max(initial=np.uint64(0)))
    return limits
