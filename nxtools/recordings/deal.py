"""Which excerpts a unit line shows: picks are dealt from the merged lists of a layer, for all units at once.

No excerpt is shown twice on a line. What was learned from must not be scored on, so of top and bottom
excerpts one whose last eight tokens up to the peak are those of one in an earlier set (evidence, validation,
held-out) is dropped.

Estimates for all of a set are without bias: what was dealt earlier counts once, and an excerpt that was drawn
counts as often as its probability is below one (Horvitz and Thompson). So spread takes no substitutes for
excerpts that are shown already, and a random one is drawn from what is not shown yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import UsageError
from nxtools.recordings.layer import Entries, Layer
from nxtools.records import PICKS, SETS, sides_of
from nxtools.subject.bins import BINS
from nxtools.subject.keep import turns

NONE = -1


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
            if pick not in PICKS or not equals or not number.isdecimal():
                raise UsageError(
                    f"{option} takes picks and numbers like top=10,random=10, not {text!r}",
                    hint="the picks are " + ", ".join(PICKS),
                )
            counts[pick] = int(number)
        return cls(**{"top": 0, **counts})


@dataclass
class Deal:
    """What one set shows of one pick, for N units, at most k excerpts each.

    `entries`: a list of the layer, or None for excerpts of the random pool.
    """

    set: int
    pick: str
    entries: Entries | None
    chosen: NDArray[np.int64]  # (N, k) places in `entries` or in the layer's pool; NONE where there are fewer
    excerpt: NDArray[np.int64]  # (N, k) in the corpus
    probability: NDArray[np.float64] | None = None  # (N, k)


@dataclass
class Hand:
    """Everything dealt to a layer's units, and how many near duplicates between sets were dropped."""

    deals: list[Deal] = field(default_factory=list)
    dropped: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def deal(layer: Layer, wanted: dict[str, Counts]) -> Hand:
    """Deals every set its picks: top and bottom, then spread, then random."""
    hand = Hand()
    fresh, hand.dropped = _without_echoes(layer)
    for number, name in enumerate(SETS):
        counts = wanted[name]
        table = _Shown(hand, layer.units, number)
        for side in sides_of(layer.sign):
            k = counts.top if side == "top" or counts.bottom is None else counts.bottom
            table.first_free(side, fresh[side], _by_unit(fresh[side], number, layer.units), k)
        if counts.spread:
            quota = _spread_by_unit(layer, number)[:, : counts.spread]
            dealt = table.free("spread", layer.spread, quota)
            dealt.probability = _spread_probability(layer, quota, dealt.chosen)
        if counts.random:
            members = np.flatnonzero(layer.corpus.set[layer.pool.excerpt] == number)
            left = layer.corpus.sizes[number] - table.count()
            candidates = np.broadcast_to(members, (layer.units, len(members)))
            dealt = table.first_free("random", None, candidates, counts.random, layer.pool.excerpt)
            found = dealt.chosen != NONE
            share = found.sum(axis=1) / np.maximum(left, 1)
            dealt.probability = np.where(found, share[:, None], np.nan)
    return hand


class _Shown:
    """Deals one set's excerpts, and knows what the units show already."""

    def __init__(self, hand: Hand, units: int, number: int) -> None:
        self._hand, self._number = hand, number
        self._taken = np.full((units, 0), NONE, np.int64)

    def count(self) -> NDArray[np.int64]:
        """How many excerpts each unit shows (N,)."""
        count: NDArray[np.int64] = (self._taken != NONE).sum(axis=1)
        return count

    def first_free(
        self,
        pick: str,
        entries: Entries | None,
        candidates: NDArray[np.int64],
        k: int,
        excerpts: NDArray[np.int64] | None = None,
    ) -> Deal:
        """The first k of the candidates (N, any) that are not shown, places in `entries` or in `excerpts`."""
        candidates = candidates[:, : k + self._taken.shape[1]]  # among so many there are k, if there are k
        return self._deal(pick, entries, candidates, k, excerpts)

    def free(self, pick: str, entries: Entries, candidates: NDArray[np.int64]) -> Deal:
        """Those of the candidates that are not shown."""
        return self._deal(pick, entries, candidates, candidates.shape[1], None)

    def _deal(
        self,
        pick: str,
        entries: Entries | None,
        candidates: NDArray[np.int64],
        k: int,
        excerpts: NDArray[np.int64] | None,
    ) -> Deal:
        pool = entries.excerpt if entries is not None else excerpts
        assert pool is not None
        there = candidates != NONE
        excerpt = np.full(candidates.shape, NONE, np.int64)
        excerpt[there] = pool[candidates[there]]
        free = there & ~(excerpt[:, :, None] == self._taken[:, None, :]).any(axis=2)
        order = np.argsort(~free, axis=1, kind="stable")[:, :k]
        chosen = np.where(np.take_along_axis(free, order, 1), np.take_along_axis(candidates, order, 1), NONE)
        shown = np.where(chosen == NONE, NONE, np.take_along_axis(excerpt, order, 1))
        self._taken = np.concatenate([self._taken, shown], axis=1)
        dealt = Deal(self._number, pick, entries, chosen, shown)
        self._hand.deals.append(dealt)
        return dealt


def _by_unit(entries: Entries, number: int, units: int) -> NDArray[np.int64]:
    """Entries of a set by unit (N, longest), the best first, NONE behind the last."""
    mine = np.flatnonzero(entries.cell // units == number)
    return _ragged(entries.cell[mine] % units, mine, units)


def _spread_by_unit(layer: Layer, number: int) -> NDArray[np.int64]:
    """Like `_by_unit`, from the largest magnitudes down, the first of a stratum before the second of any."""
    cell = layer.spread.cell // layer.strata
    mine = np.flatnonzero(cell // layer.units == number)
    stratum = layer.spread.cell[mine] % layer.strata
    turn = turns(layer.spread.cell[mine])
    mine = mine[np.lexsort((stratum // BINS, -(stratum % BINS), turn, cell[mine]))]
    return _ragged(cell[mine] % layer.units, mine, layer.units)


def _ragged(unit: NDArray[np.int64], values: NDArray[np.int64], units: int) -> NDArray[np.int64]:
    lengths = np.bincount(unit, minlength=units)
    table = np.full((units, int(lengths.max(initial=0))), NONE, np.int64)
    table[unit, turns(unit)] = values
    return table


def _spread_probability(
    layer: Layer, quota: NDArray[np.int64], chosen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Drawn from a stratum over how many excerpts of the set are in it.

    `quota` (N, k): what was drawn, shown already or not. How many of a stratum depends on how full the strata
    are, and on nothing that was drawn by chance.
    """
    shown, drawn = _cells(layer.spread, chosen), _cells(layer.spread, quota)
    there = chosen != NONE
    count = (shown[:, :, None] == drawn[:, None, :]).sum(axis=2)
    total = layer.drawn_from[np.where(there, shown, 0)]
    return np.where(there, count / np.maximum(total, 1), np.nan)


def _cells(entries: Entries, places: NDArray[np.int64]) -> NDArray[np.int64]:
    cells = np.full(places.shape, NONE, np.int64)
    cells[places != NONE] = entries.cell[places[places != NONE]]
    return cells


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
