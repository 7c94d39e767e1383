"""Which excerpts a unit line shows: picks are dealt from the merged lists of a layer, for all units at once.

No excerpt is shown twice on a line. What was learned from must not be scored on, so an excerpt whose last
eight tokens up to the peak are those of one in an earlier set (evidence, validation, held-out) is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import UsageError
from nxtools.recordings.layer import Entries, Layer
from nxtools.records import PICKS, SETS
from nxtools.subject.bins import BINS

NONE = -1
NO_POOL = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Counts:
    """How many excerpts of each pick a set gets. `bottom` of None: as many as `top`, for signed units."""

    top: int
    bottom: int | None = None
    spread: int = 0
    random: int = 0

    @classmethod
    def parse(cls, text: str, option: str) -> Counts:
        """`top=20,spread=20,random=40`."""
        counts: dict[str, int] = {}
        for part in text.split(","):
            pick, equals, number = part.strip().partition("=")
            if pick not in PICKS or not equals or not number.isdigit():
                raise UsageError(
                    f"{option} takes picks and numbers like top=10,random=10, not {text!r}",
                    hint="the picks are " + ", ".join(PICKS),
                )
            counts[pick] = int(number)
        return cls(**{"top": 0, **counts})


@dataclass
class Deal:
    """What one set shows of one kind, for N units, at most k excerpts each.

    kind: a list of the layer (top, bottom, top.spread, bottom.spread), or random. `entries` are that list's,
    None for random, which comes from the pool.
    """

    set: int
    kind: str
    entries: Entries | None
    chosen: NDArray[np.int64]  # (N, k) places in `entries` or in the pool's order; NONE where there are fewer
    excerpt: NDArray[np.int64]  # (N, k) in the corpus
    probability: NDArray[np.float64] | None = None  # (N, k)


@dataclass
class Hand:
    """Everything dealt to a layer's units, and how many near duplicates between sets were dropped."""

    deals: list[Deal] = field(default_factory=list)
    dropped: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def sides_of(sign: str) -> tuple[str, ...]:
    return {"+": ("top",), "-": ("bottom",)}.get(sign, ("top", "bottom"))


def pool_order(layer: Layer) -> NDArray[np.int64]:
    """The pool's excerpts by set and then by rank of their draws; of several runs, in turn."""
    excerpts = np.unique(layer.pool_places()[0])
    rank, number = layer.corpus.gather("pool_rank")[excerpts], layer.corpus.gather("set")[excerpts]
    return excerpts[np.lexsort((excerpts, rank, number))]


def deal(layer: Layer, wanted: dict[str, Counts], pool: NDArray[np.int64]) -> Hand:
    """Deals every set its picks. `pool`: excerpts in the pool's order (see `pool_order`)."""
    units = layer.units
    hand = Hand(dropped=np.zeros(units, np.int64))
    fresh, hand.dropped = _without_echoes(layer)
    of_set = layer.corpus.gather("set")
    taken = np.full((units, 0), NONE, np.int64)
    for number, name in enumerate(SETS):
        counts = wanted[name]
        size = int((of_set == number).sum())
        for side in sides_of(layer.sign):
            k = counts.top if side == "top" or counts.bottom is None else counts.bottom
            table = _table(fresh[side], number, units)
            taken = _take(hand, number, side, fresh[side], table, taken, k)
        for side in sides_of(layer.sign) if counts.spread else ():
            entries = layer.spread[side]
            table = _spread_table(entries, number, units)
            taken = _take(hand, number, f"{side}.spread", entries, table, taken, counts.spread)
            hand.deals[-1].probability = _spread_probability(layer, side, entries, hand.deals[-1].chosen)
        if counts.random:
            members = np.flatnonzero(of_set[pool] == number)
            table = np.broadcast_to(members, (units, len(members)))[:, : counts.random + taken.shape[1]]
            taken = _take(hand, number, "random", None, table, taken, counts.random, pool)
            found = hand.deals[-1].chosen != NONE
            share = found.sum(axis=1, keepdims=True) / max(size, 1)
            hand.deals[-1].probability = np.where(found, share, np.nan)
    return hand


def _take(
    hand: Hand,
    number: int,
    kind: str,
    entries: Entries | None,
    table: NDArray[np.int64],
    taken: NDArray[np.int64],
    k: int,
    pool: NDArray[np.int64] = NO_POOL,
) -> NDArray[np.int64]:
    """The first k candidates of each row of `table` that are not taken; returns what is taken then."""
    excerpt = pool if entries is None else entries.excerpt
    there = table != NONE
    candidates = np.where(there, excerpt[np.where(there, table, 0)] if len(excerpt) else NONE, NONE)
    free = there & ~(candidates[:, :, None] == taken[:, None, :]).any(axis=2)
    order = np.argsort(~free, axis=1, kind="stable")[:, :k]
    chosen = np.where(np.take_along_axis(free, order, 1), np.take_along_axis(table, order, 1), NONE)
    shown = np.where(chosen == NONE, NONE, np.take_along_axis(candidates, order, 1))
    hand.deals.append(Deal(number, kind, entries, chosen, shown))
    return np.concatenate([taken, shown], axis=1)


def _table(entries: Entries, number: int, units: int) -> NDArray[np.int64]:
    """Entries of a set by unit (N, longest), the best first, NONE behind the last."""
    mine = np.flatnonzero(entries.cell // units == number)
    return _ragged(entries.cell[mine] % units, mine, units)


def _spread_table(entries: Entries, number: int, units: int) -> NDArray[np.int64]:
    """Like `_table`, from the highest bin down, the first of each bin before the second of any."""
    cell = entries.cell // BINS
    mine = np.flatnonzero(cell // units == number)
    bins = entries.cell[mine] % BINS
    turn = _turns(entries.cell[mine])
    mine = mine[np.lexsort((-bins, turn, cell[mine]))]
    return _ragged(cell[mine] % units, mine, units)


def _turns(cell: NDArray[Any]) -> NDArray[np.int64]:
    starts = np.flatnonzero(np.append(True, cell[1:] != cell[:-1])) if len(cell) else np.zeros(0, np.int64)
    return np.arange(len(cell)) - np.repeat(starts, np.diff(np.append(starts, len(cell))))


def _ragged(unit: NDArray[np.int64], values: NDArray[np.int64], units: int) -> NDArray[np.int64]:
    lengths = np.bincount(unit, minlength=units)
    table = np.full((units, int(lengths.max(initial=0))), NONE, np.int64)
    table[unit, _turns(unit)] = values
    return table


def _spread_probability(
    layer: Layer, side: str, entries: Entries, chosen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Shown of a bin over how many excerpts of the set are in it, as the bins were drawn from by hash."""
    there = chosen != NONE
    cell = np.where(there, entries.cell[np.where(there, chosen, 0)] if len(entries.cell) else 0, NONE)
    shown = (cell[:, :, None] == cell[:, None, :]).sum(axis=2)
    total = layer.histogram[side].reshape(-1)[np.where(there, cell, 0)]
    return np.where(there, shown / np.maximum(total, 1), np.nan)


def _without_echoes(layer: Layer) -> tuple[dict[str, Entries], NDArray[np.int64]]:
    """Lists without entries whose key occurs in an earlier set of the same unit, and how many that were."""
    sides = sides_of(layer.sign)
    cell = np.concatenate([layer.lists[side].cell for side in sides])
    key = np.concatenate([layer.lists[side].key for side in sides])
    unit, number = cell % layer.units, cell // layer.units
    order = np.lexsort((number, key, unit))
    first = np.ones(len(order), bool)
    first[1:] = (unit[order][1:] != unit[order][:-1]) | (key[order][1:] != key[order][:-1])
    lowest = np.empty(len(order), np.int64)
    lowest[order] = number[order][np.flatnonzero(first)[np.cumsum(first) - 1]]
    stays = number == lowest
    bounds = np.cumsum([0, *(len(layer.lists[side].cell) for side in sides)])
    kept = {
        side: layer.lists[side].at(np.flatnonzero(stays[bounds[i] : bounds[i + 1]]))
        for i, side in enumerate(sides)
    }
    return kept, np.bincount(unit[~stays], minlength=layer.units)
