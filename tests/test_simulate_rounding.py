"""Activations in whole numbers from 0 to 10, and the best score that such numbers can reach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nxtools.errors import UsageError
from nxtools.simulate.rounding import ceiling, rounded

NAN = float("nan")


@pytest.mark.parametrize(
    ("sign", "activations", "levels"),
    [
        ("+", [[0.0, 0.19, 0.2, 1.0, 2.0, -2.0]], [[0, 0, 1, 5, 10, 0]]),
        ("-", [[0.0, -0.19, -0.2, -1.0, -2.0, 4.0]], [[0, 0, -1, -5, -10, 0]]),
        ("+-", [[0.0, 0.5, -0.5, 1.0, -2.0]], [[0, 2, -2, 5, -10]]),
        ("+", [[NAN, 1.0]], [[NAN, 10]]),
        ("+", [[-1.0, -2.0, NAN]], [[0, 0, NAN]]),
        ("+", [[0.5], [5.0]], [[1], [10]]),
    ],
)
def test_levels(sign, activations, levels):
    out = rounded(np.array(activations, np.float32), sign)
    np.testing.assert_array_equal(out, np.array(levels, np.float32))
    assert out.dtype == np.float32


def test_nothing_is_rounded_to_nothing():
    assert rounded(np.empty((0, 4), np.float32), "+").shape == (0, 4)


def test_an_unknown_sign_is_a_usage_error():
    with pytest.raises(UsageError, match='"±" is not known'):
        rounded(np.ones((1, 2), np.float32), "±")


@settings(deadline=None)
@given(arrays(np.float32, (3, 8), elements=st.floats(-100, 100, width=32)))
def test_levels_are_whole_numbers_that_never_exceed_the_true_share(activations):
    levels = rounded(activations, "+-")
    exact = np.abs(activations.astype(np.float64))
    share = exact / (exact.max() or 1.0)
    assert np.array_equal(levels, np.trunc(levels))
    assert np.abs(levels).max(initial=0) in (0, 10)
    assert np.all(np.abs(levels) <= 10 * share)
    assert np.all(np.abs(levels) > 10 * share - 1.001)


def test_the_ceiling_is_high_for_spread_out_values_and_low_for_many_small_ones():
    even = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 64)
    assert 0.99 < ceiling(even, "+") < 1.0
    skewed = 0.0999 * even
    skewed[0, -1] = 1.0  # one outlier takes up the scale: all others become 0
    assert ceiling(skewed, "+") < 0.98
    assert ceiling(-even, "-") == pytest.approx(ceiling(even, "+"))


def test_there_is_no_ceiling_where_rounding_leaves_nothing():
    assert ceiling(np.array([[-1.0, -2.0, -3.0]], np.float32), "+") is None
