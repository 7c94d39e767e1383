"""The pooled correlation: an independent computation agrees, and it has the properties of a correlation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from nxtools.score.correlation import correlation, excerpt_sums, reason

NAN = float("nan")


def pooled(truth, predicted) -> float:
    return float(correlation(excerpt_sums(truth, predicted).sum(0)))


def why_not(truth, predicted) -> str | None:
    truth, predicted = np.asarray(truth, np.float32), np.asarray(predicted, np.float32)
    return reason(excerpt_sums(truth, predicted).sum(0))


def activations(shape=(6, 16), seed=0, shift=0.0, scale=1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=shape)
    predicted = 0.6 * truth + rng.normal(size=shape)
    return (scale * truth + shift).astype(np.float32), predicted.astype(np.float32)


@pytest.mark.parametrize("shift", [0.0, -30.0, 1000.0])
@pytest.mark.parametrize("left_out", [0.0, 0.3])
def test_agrees_with_scipy_over_all_tokens_of_all_excerpts(shift, left_out):
    truth, predicted = activations(shift=shift)
    gaps = np.random.default_rng(1).random(truth.shape) < left_out
    truth[gaps] = NAN
    t, p = truth[~gaps].astype(np.float64), predicted[~gaps].astype(np.float64)
    assert pooled(truth, predicted) == pytest.approx(stats.pearsonr(t, p).statistic, abs=1e-9)


def test_negative_activations_count_with_their_value():
    truth, predicted = activations()
    truth = -np.abs(truth)
    expected = np.corrcoef(truth.ravel().astype(float), predicted.ravel().astype(float))[0, 1]
    assert pooled(truth, predicted) == pytest.approx(expected, abs=1e-9)


def test_a_gap_in_the_prediction_is_left_out_too():
    truth, predicted = activations()
    predicted[2] = NAN
    kept = [0, 1, 3, 4, 5]
    sums = excerpt_sums(truth, predicted)
    assert sums[2].tolist() == [0.0] * 6
    assert pooled(truth, predicted) == pytest.approx(pooled(truth[kept], predicted[kept]), abs=1e-12)


def test_the_sums_are_sums_of_centred_values():
    truth = np.array([[1, 2, 3], [NAN, 4, 5]], np.float32)  # mean 3
    predicted = np.array([[2, 0, 1], [9, 1, 1]], np.float32)  # mean 1 where both are there
    assert excerpt_sums(truth, predicted).tolist() == [[3, -3, 0, 5, 2, -1], [2, 3, 0, 5, 0, 0]]


def test_many_units_at_once_give_the_same_bits_as_one_by_one():
    truth, predicted = (np.stack(x) for x in zip(*(activations(seed=s) for s in range(5)), strict=True))
    together = excerpt_sums(truth, predicted)
    for unit in range(5):
        assert np.array_equal(together[unit], excerpt_sums(truth[unit], predicted[unit]))


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([[1, 1, 1]], [[1, 2, 3]], "constant truth"),
        ([[1, 2, 3]], [[0, 0, 0]], "constant prediction"),
        ([[1, 2, 3]], [[0.1, 0.1 + 1e-8, 0.1 - 1e-8]], "constant prediction"),
        ([[5e-9, 5e-9, 5e-9]], [[1, 2, 3]], "constant truth"),
        ([[1, NAN, NAN]], [[2, 1, 1]], "fewer than 2 tokens"),
        ([[NAN, NAN]], [[1, 2]], "fewer than 2 tokens"),
        (np.empty((0, 4)), np.empty((0, 4)), "fewer than 2 tokens"),
        (np.empty((3, 0)), np.empty((3, 0)), "fewer than 2 tokens"),
        ([[1, 2, math.inf]], [[1, 2, 3]], "non-finite values"),
        ([[1, 2, 3]], [[1, 2, -math.inf]], "non-finite values"),
        ([[1e-30, 2e-30, 4e-30]], [[1e30, 2e30, 3e30]], None),
    ],
)
def test_where_there_is_no_correlation_there_is_a_reason(truth, predicted, expected):
    assert why_not(truth, predicted) == expected
    value = pooled(np.asarray(truth, np.float32), np.asarray(predicted, np.float32))
    assert math.isnan(value) == (expected is not None)


def test_constant_in_the_chosen_excerpts_only():
    """Excerpts that are constant on their own have no correlation though the unit as a whole has."""
    truth, predicted = activations()
    predicted[3:] = 0.1
    sums = excerpt_sums(truth, predicted)
    assert reason(sums.sum(0)) is None
    assert reason(sums[3:].sum(0)) == "constant prediction"


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        excerpt_sums(np.zeros((2, 3)), np.zeros((3, 2)))


values = arrays(np.float32, (4, 8), elements=st.floats(-100, 100, width=32))


@settings(deadline=None)
@given(values, values)
def test_is_between_minus_one_and_one(truth, predicted):
    value = pooled(truth, predicted)
    assert math.isnan(value) or -1.0 <= value <= 1.0


@settings(deadline=None)
@given(values, values, st.floats(0.01, 100), st.floats(-10, 10))
def test_does_not_see_a_positive_scale_nor_a_shift(truth, predicted, scale, shift):
    assume(truth.std() > 0.1 and predicted.std() > 0.1)
    other = (scale * truth.astype(np.float64) + shift * scale).astype(np.float64)
    assert pooled(other, predicted) == pytest.approx(pooled(truth, predicted), abs=1e-6)


@settings(deadline=None)
@given(values, values)
def test_negating_both_sides_changes_nothing_negating_one_turns_it(truth, predicted):
    value = pooled(truth, predicted)
    assert pooled(-truth, -predicted) == pytest.approx(value, abs=1e-12, nan_ok=True)
    assert pooled(-truth, predicted) == pytest.approx(-value, abs=1e-12, nan_ok=True)


@settings(deadline=None)
@given(values, values, st.permutations(range(4)))
def test_the_order_of_excerpts_does_not_matter(truth, predicted, order):
    assume(truth.std() > 1e-3 and predicted.std() > 1e-3)
    assert pooled(truth[order], predicted[order]) == pytest.approx(pooled(truth, predicted), abs=1e-9)


@settings(deadline=None)
@given(values)
def test_everything_correlates_perfectly_with_itself(truth):
    assume(truth.std() > 1e-3)
    assert pooled(truth, 3 * truth) == pytest.approx(1.0, abs=1e-12)
