"""Simulated activations by excerpt as arrays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nxtools.score.expected import Expected

ROWS = st.lists(st.none() | st.floats(-10, 10, width=32), max_size=4)


@given(st.dictionaries(st.sampled_from("abcdef"), ROWS), st.permutations("abcdef"), st.integers(0, 6))
def test_each_excerpt_has_what_was_said_of_it_and_nothing_else(
    said: dict[str, list[float | None]], order: list[str], count: int
) -> None:
    shown: Any = SimpleNamespace(
        excerpts=order[:count], table=SimpleNamespace(activations=np.zeros((count, 4)))
    )
    found = Expected(said).on(shown)
    assert found.shape == (count, 4) and found.dtype == np.float32
    for row, name in zip(found, shown.excerpts, strict=True):
        wanted = [*said.get(name, []), None, None, None, None][:4]
        np.testing.assert_array_equal(row, np.array(wanted, np.float32))


@given(st.dictionaries(st.text(max_size=3), ROWS), st.randoms())
def test_the_question_does_not_know_the_order(said: dict[str, list[float | None]], chance: Any) -> None:
    names = list(said)
    chance.shuffle(names)
    one, other = Expected(said).question(), Expected({name: said[name] for name in names}).question()
    np.testing.assert_array_equal(one.pop("values"), other.pop("values"))
    assert one == other
