"""The paper's protocol: ranks dealt in turn to explaining, calibrating, validating and testing.

The first 20 of all top excerpts go round the four, random ones round the last three; our validation set
serves to calibrate and to validate. Documents are kept whole here as well, which the paper did not do: an
excerpt follows the set of its document's best-ranked excerpt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nxtools.recordings.deal import NONE, Deal, Hand, sides_of
from nxtools.recordings.layer import Entries, Layer
from nxtools.records import SETS

TOP = 20
RANDOM = 15
TOP_TURNS = (0, 1, 1, 2)  # places in SETS
RANDOM_TURNS = (1, 1, 2)


def deal_paper(layer: Layer, pool: NDArray[np.int64]) -> Hand:
    """Deals without regard to the sets of documents: units made so have no pool to learn from."""
    units = layer.units
    hand = Hand(dropped=np.zeros(units, np.int64))
    documents = np.concatenate(
        [plan.document + 1_000_000_000 * n for n, plan in enumerate(layer.corpus.plans)], dtype=np.int64
    )
    homes: list[dict[int, int]] = [{} for _ in range(units)]  # of each unit: document -> set
    shown: list[set[int]] = [set() for _ in range(units)]
    for side in sides_of(layer.sign):
        entries = layer.lists[side]
        ranked = _ranked(layer, entries)
        places = [
            _deal_one(entries.excerpt, row, documents, homes[u], shown[u], TOP_TURNS)
            for u, row in enumerate(ranked)
        ]
        _add(hand, side, entries, entries.excerpt, places)
    few = np.arange(min(RANDOM, len(pool)))
    places = [_deal_one(pool, few, documents, homes[u], shown[u], RANDOM_TURNS) for u in range(units)]
    _add(hand, "random", None, pool, places)
    hand.deals.sort(key=lambda dealt: dealt.set)
    return hand


def _ranked(layer: Layer, entries: Entries) -> list[NDArray[np.int64]]:
    """Places of each unit's best entries over all sets, a key once."""
    unit = entries.cell % layer.units
    order = np.lexsort((layer.corpus.gather("id")[entries.excerpt], -entries.rank, unit))
    bounds = np.searchsorted(unit[order], np.arange(layer.units + 1))
    ranked = []
    for number in range(layer.units):
        mine = order[bounds[number] : bounds[number + 1]]
        _, first = np.unique(entries.key[mine], return_index=True)
        ranked.append(mine[np.sort(first)][:TOP])
    return ranked


def _deal_one(
    excerpt: NDArray[np.int64],
    places: NDArray[np.int64],
    documents: NDArray[np.int64],
    homes: dict[int, int],
    shown: set[int],
    turns: tuple[int, ...],
) -> list[list[int]]:
    """Places by set, for one unit."""
    dealt: list[list[int]] = [[] for _ in SETS]
    for rank, place in enumerate(places.tolist()):
        if int(excerpt[place]) in shown:
            continue
        shown.add(int(excerpt[place]))
        home = homes.setdefault(int(documents[excerpt[place]]), turns[rank % len(turns)])
        dealt[home].append(place)
    return dealt


def _add(
    hand: Hand, kind: str, entries: Entries | None, excerpt: NDArray[np.int64], places: list[list[list[int]]]
) -> None:
    for number in range(len(SETS)):
        width = max((len(dealt[number]) for dealt in places), default=0)
        chosen = np.full((len(places), width), NONE, np.int64)
        for unit, dealt in enumerate(places):
            chosen[unit, : len(dealt[number])] = dealt[number]
        shown = np.where(chosen == NONE, NONE, excerpt[np.maximum(chosen, 0)] if len(excerpt) else NONE)
        hand.deals.append(Deal(number, kind, entries, chosen, shown))
