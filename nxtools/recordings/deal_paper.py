"""The paper's protocol: ranks dealt in turn to explaining, calibrating, validating and testing.

The first 20 of all top excerpts go round the four, random ones round the last three; our validation set
serves to calibrate and to validate. Documents are kept whole here as well, which the paper did not do: an
excerpt follows the set of its document's best-ranked excerpt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nxtools.recordings.deal import NONE, Deal, Hand
from nxtools.recordings.layer import Entries, Layer, pool_limits
from nxtools.records import SETS, sides_of
from nxtools.subject.keep import ranked

TOP = 20
RANDOM = 15
TOP_TURNS = (0, 1, 1, 2)  # places in SETS
RANDOM_TURNS = (1, 1, 2)


def deal_paper(layer: Layer) -> Hand:
    """Deals without regard to the sets of documents: units made so have no pool to learn from."""
    units = layer.units
    hand = Hand(dropped=np.zeros(units, np.int64))
    documents = layer.corpus.document_numbers()
    homes: list[dict[int, int]] = [{} for _ in range(units)]  # of each unit: document -> set
    shown: list[set[int]] = [set() for _ in range(units)]
    for side in sides_of(layer.sign):
        entries = layer.lists[side]
        best = _best(layer, entries)
        places = [
            _deal_one(entries.excerpt, row, documents, homes[unit], shown[unit], TOP_TURNS)
            for unit, row in enumerate(best)
        ]
        _add(hand, side, entries, entries.excerpt, places)
    drawn = _drawn(layer)
    places = [
        _deal_one(layer.pool.excerpt, drawn, documents, homes[unit], shown[unit], RANDOM_TURNS)
        for unit in range(units)
    ]
    _add(hand, "random", None, layer.pool.excerpt, places)
    hand.deals.sort(key=lambda dealt: dealt.set)
    return hand


def _best(layer: Layer, entries: Entries) -> list[NDArray[np.int64]]:
    """Places of each unit's best entries over all sets, a key once."""
    unit = entries.cell % layer.units
    order = ranked(unit, entries.rank, layer.corpus.id[entries.excerpt])
    bounds = np.searchsorted(unit[order], np.arange(layer.units + 1))
    best = []
    for number in range(layer.units):
        mine = order[bounds[number] : bounds[number + 1]]
        _, first = np.unique(entries.key[mine], return_index=True)
        best.append(mine[np.sort(first)][:TOP])
    return best


def _drawn(layer: Layer) -> NDArray[np.int64]:
    """Members of the pool that are a random sample of all sets together, in the order of their draws."""
    draw = layer.corpus.gather("draw")[layer.pool.excerpt]
    members = np.flatnonzero(draw <= pool_limits(layer.corpus.plans).min())
    return members[np.argsort(draw[members], kind="stable")][:RANDOM]


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
        number = int(excerpt[place])
        if number in shown:
            continue
        shown.add(number)
        home = homes.setdefault(int(documents[number]), turns[rank % len(turns)])
        dealt[home].append(place)
    return dealt


def _add(
    hand: Hand, pick: str, entries: Entries | None, excerpt: NDArray[np.int64], places: list[list[list[int]]]
) -> None:
    for number in range(len(SETS)):
        width = max((len(dealt[number]) for dealt in places), default=0)
        chosen = np.full((len(places), width), NONE, np.int64)
        for unit, dealt in enumerate(places):
            chosen[unit, : len(dealt[number])] = dealt[number]
        shown = np.full(chosen.shape, NONE, np.int64)
        shown[chosen != NONE] = excerpt[chosen[chosen != NONE]]
        hand.deals.append(Deal(number, pick, entries, chosen, shown))
