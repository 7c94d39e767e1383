"""The k best of many cells: whatever the order and the portions, what is left is what sorting would leave."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nxtools.subject.keep import Keeper, first_of_each, ranked, turns

CELLS = 3
Offer = tuple[int, float, int, int]  # cell, rank, id, key

# Few values, so that ties and equal keys are common.
RANKS = st.sampled_from([-2.5, -1.0, -0.0, 0.0, 1e-30, 0.5, 1.0, 1.5, 3e38])
OFFERS = st.lists(
    st.tuples(st.integers(0, CELLS - 1), RANKS, st.integers(0, 9), st.integers(0, 4)),
    max_size=60,
    unique_by=lambda offer: (offer[0], offer[2]),  # an excerpt is offered to a cell once
)


def sorted_and_cut(offers: list[Offer], k: int, *, keys: bool) -> list[Offer]:
    kept: list[Offer] = []
    for cell, rank, identifier, key in sorted(offers, key=lambda offer: (offer[0], -offer[1], offer[2])):
        mine = [other for other in kept if other[0] == cell]
        if len(mine) < k and not (keys and any(other[3] == key for other in mine)):
            kept.append((cell, rank, identifier, key))
    return kept


def columns(offers: list[Offer]) -> dict[str, NDArray[Any]]:
    kinds = {"cell": np.int32, "rank": np.float32, "identifier": np.uint64, "key": np.uint64}
    return {
        name: np.array([offer[place] for offer in offers], kind)
        for place, (name, kind) in enumerate(kinds.items())
    }


def offer_in_portions(keeper: Keeper, offers: list[Offer], ends: list[int], *, keys: bool) -> None:
    """Each portion without what the bars exclude by then, as callers do."""
    bounds = sorted({0, len(offers), *(end % (len(offers) + 1) for end in ends)})
    for first, last in pairwise(bounds):
        part = columns(offers[first:last])
        able = part["rank"] >= keeper.bar[part["cell"]]
        part = {name: column[able] for name, column in part.items()}
        place = np.arange(first, last, dtype=np.int32)[able]
        key = part["key"] if keys else None
        keeper.offer(part["cell"], part["rank"], part["identifier"], place, key)
        if first % 2:  # not after every portion
            keeper.settle()
    keeper.settle()


@given(
    offers=OFFERS,
    order=st.randoms(use_true_random=False),
    ends=st.lists(st.integers(0, 60), max_size=5),
    k=st.integers(1, 4),
    keys=st.booleans(),
)
def test_any_order_in_any_portions_leaves_what_sorting_leaves(
    offers: list[Offer], order: Any, ends: list[int], k: int, keys: bool
) -> None:
    shuffled = list(offers)
    order.shuffle(shuffled)
    keeper = Keeper(CELLS, k)
    offer_in_portions(keeper, shuffled, ends, keys=keys)

    expected = sorted_and_cut(offers, k, keys=keys)
    found = list(zip(keeper.cell.tolist(), keeper.rank.tolist(), keeper.id.tolist(), strict=True))
    assert found == [(cell, np.float32(rank), identifier) for cell, rank, identifier, _ in expected]
    assert [shuffled[place][2] for place in keeper.place] == [offer[2] for offer in expected]
    if keys and expected:
        assert keeper.key.tolist() == [offer[3] for offer in expected]


@given(offers=OFFERS, k=st.integers(1, 4))
def test_the_bar_is_the_worst_rank_of_a_full_cell(offers: list[Offer], k: int) -> None:
    keeper = Keeper(CELLS, k)
    offer_in_portions(keeper, offers, [], keys=True)
    for cell in range(CELLS):
        ranks = keeper.rank[keeper.cell == cell]
        assert keeper.bar[cell] == (ranks.min() if len(ranks) == k else -np.inf)


def test_equal_ranks_go_by_id_and_equal_keys_keep_their_best() -> None:
    keeper = Keeper(1, 3)
    offer_in_portions(
        keeper, [(0, 1.0, 7, 1), (0, 1.0, 3, 2), (0, 2.0, 9, 2), (0, 1.0, 5, 3)], [1], keys=True
    )
    assert keeper.id.tolist() == [9, 5, 7]
    assert keeper.refused == 1


def test_nothing_offered_is_nothing_kept() -> None:
    keeper = Keeper(2, 3)
    keeper.settle()
    assert len(keeper.cell) == len(keeper.key) == 0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1),
            st.floats(width=32, allow_nan=False),
            st.integers(0, 2**64 - 1),
        ),
        max_size=40,
    )
)
def test_ranked_is_a_sort_for_all_floats(rows: list[tuple[int, float, int]]) -> None:
    cell = np.array([row[0] for row in rows], np.int64)
    rank = np.array([row[1] for row in rows], np.float32)
    identifier = np.array([row[2] for row in rows], np.uint64)
    order = ranked(cell, rank, identifier)
    assert [rows[place] for place in order] == sorted(rows, key=lambda row: (row[0], -row[1], row[2]))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_the_first_of_each_cell_and_key(rows: list[tuple[int, int]]) -> None:
    cell, key = np.array([r[0] for r in rows], np.int32), np.array([r[1] for r in rows], np.uint64)
    assert first_of_each(cell, key).tolist() == sorted({row: rows.index(row) for row in rows}.values())


def test_turns_count_within_runs() -> None:
    assert turns(np.array([4, 4, 4, 1, 7, 7])).tolist() == [0, 1, 2, 0, 0, 1]
    assert turns(np.zeros(0, np.int32)).tolist() == []
