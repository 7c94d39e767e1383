"""Calibrations, and how near calibrated simulations come: each formula against an independent computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import isotonic_regression

from nxtools.score.calibration import KINDS, Curve, Line, fitted, isotonic, quantile
from nxtools.score.figures import Sample, as_record, score
from nxtools.score.fit import Paired, error_sums, fits, per_excerpt

PICKS = ["top"] * 5 + ["random"] * 5
WITHOUT = Line(1.0, 0.0)


def sample(truth: Any, predicted: Any, picks: list[str] | None = None) -> Sample:
    t, p = np.asarray(truth, np.float32), np.asarray(predicted, np.float32)
    return Sample("unit", t, p, picks or PICKS[-len(t) :], [str(row) for row in range(len(t))])


def raw(truth: Any, predicted: Any, figure: str = "random_only", peak: float = 4.0) -> dict[str, Any]:
    """The fit of uncalibrated predictions."""
    one = sample(truth, predicted)
    nothing = Paired(one.predicted, one.truth, one.picks)
    found: dict[str, Any] = fits(one, nothing, "none", peak)["calibrated"][figure]
    return found


def test_the_reference_formulas_on_numbers_worked_out_by_hand() -> None:
    """Errors 0, 1, 0, 5, 1: squares sum to 27, magnitudes to 7. Σt² = 17, Σ|t| = 5, Σ(t - 1)² = 12."""
    found = raw([[0, 1, 0, 4, 0]], [[0, 2, 0, 9, 1]])
    assert found["r2"] == pytest.approx(1 - 27 / 17, abs=1e-4)
    assert found["absolute_deviation"] == pytest.approx(1 - 7 / 5, abs=1e-4)
    assert found["explained_variance"] == pytest.approx(1 - 27 / 12, abs=1e-4)
    # Above 0.4 the unit fires at two tokens, and three are said to.
    assert (found["precision"], found["recall"], found["f1"]) == (pytest.approx(2 / 3, abs=1e-4), 1.0, 0.8)


@given(arrays.arrays(np.float32, (2, 6, 8), elements=st.floats(-8, 8, width=16)), st.floats(-0.5, 4))
def test_sums_by_excerpt_agree_with_sums_over_all(values: np.ndarray, threshold: float) -> None:
    t, c = values.astype(np.float64)
    t[0, 0] = c[1, 1] = np.nan
    there = ~(np.isnan(t) | np.isnan(c))
    n, s, tt, ee, abs_t, abs_e, hits, fires, said = error_sums(t, c, threshold).sum(0)
    a, b = t[there], c[there]
    assert (n, s, tt) == pytest.approx((len(a), a.sum(), a @ a), abs=1e-9)
    assert (ee, abs_t, abs_e) == pytest.approx(((a - b) @ (a - b), abs(a).sum(), abs(a - b).sum()), abs=1e-9)
    mine, theirs = (a > threshold, b > threshold) if threshold >= 0 else (a < threshold, b < threshold)
    assert (hits, fires, said) == ((mine & theirs).sum(), mine.sum(), theirs.sum())


def test_what_cannot_be_said_is_not_said() -> None:
    constant, empty = raw([[2.0] * 5], [[1.0] * 5]), raw([[np.nan] * 5], [[1.0] * 5])
    assert constant["explained_variance"] is None and constant["interval"] is None
    assert constant["r2"] == pytest.approx(0.75)
    assert "absent" in empty, "nothing to calibrate on"
    negative = raw([[-1.0, -2.0]], [[-1.0, -1.0]], peak=-2.0)
    assert (negative["recall"], negative["precision"]) == (1.0, 1.0), "it fires below zero"
    without = fits(sample([[1.0, 2.0]], [[1.0, 2.0]]), None, "linear", 1.0)
    assert "nx-simulate" in without["calibrated"]["random_only"]["absent"]


# Calibration

pairs = st.integers(2, 40).flatmap(
    lambda n: arrays.arrays(np.float64, (2, n), elements=st.floats(-9, 9, width=16))
)


@given(pairs)
def test_isotonic_is_the_best_fit_that_nowhere_falls(both: np.ndarray) -> None:
    x, y = both
    curve = isotonic(x, y)
    points, place, count = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(place, y) / count
    expected = isotonic_regression(means, weights=count.astype(float)).x
    assert curve(points) == pytest.approx(expected, abs=1e-5)
    assert (np.diff(curve.y) >= -1e-12).all()


@given(pairs)
def test_quantiles_give_the_distribution_of_the_truth(both: np.ndarray) -> None:
    x, y = both
    curve = quantile(x, y)
    assert (np.diff(curve.y) >= 0).all()
    if len(np.unique(x)) == len(x):
        assert np.sort(curve(x)) == pytest.approx(np.sort(y).astype(np.float32), abs=1e-6)
    assert float(np.mean([curve(np.array([value]))[0] for value in x])) == pytest.approx(y.mean(), abs=1e-4)


@given(pairs, st.sampled_from(KINDS))
def test_a_calibration_never_falls_and_leaves_gaps_as_they_are(both: np.ndarray, kind: str) -> None:
    calibration = fitted(kind, *both)
    assert isinstance(calibration, Line | Curve)
    out = calibration(np.array([-100.0, 0.0, np.nan, 100.0]))
    assert np.isnan(out[2]) and out[0] <= out[1] <= out[3]


def made(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = np.maximum(rng.normal(size=(10, 32)), 0).astype(np.float32)
    return truth, (0.1 * truth + 3 + 0.05 * rng.normal(size=truth.shape)).astype(np.float32)


def test_a_line_from_validation_makes_the_explained_variance_nearly_the_squared_correlation() -> None:
    rng = np.random.default_rng(0)
    (truth, predicted), (other, other_predicted) = made(rng), made(rng)
    one = sample(truth, predicted, PICKS)
    found = fits(one, Paired(other_predicted, other, PICKS), "linear", 4.0)
    rho = as_record(score(one))["top_and_random"]
    figure = found["calibrated"]["top_and_random"]
    assert rho**2 - 0.05 < figure["explained_variance"] < rho**2
    low, high = figure["interval"]
    assert low < figure["explained_variance"] < high < 1
    by_itself = fits(one, None, "scored", 4.0)["calibrated"]["top_and_random"]
    assert by_itself["explained_variance"] == pytest.approx(rho**2, abs=1e-3), "the paper's own way flatters"
    assert raw_r2(one) < 0 < figure["r2"], "on its own scale it is far off"


def raw_r2(one: Sample) -> float:
    own = Paired(one.predicted, one.truth, one.picks)
    value: float = fits(one, own, "none", 1.0)["calibrated"]["top_and_random"]["r2"]
    return value


def test_held_out_excerpts_do_not_move_the_calibration() -> None:
    rng = np.random.default_rng(1)
    (truth, predicted), (other, other_predicted) = made(rng), made(rng)
    validation = Paired(other_predicted, other, PICKS)
    for kind in ("linear", "isotonic", "quantile"):
        one, two = (
            fits(sample(t, predicted, PICKS), validation, kind, 4.0)["calibrated"]["top_and_random"]
            for t in (truth, truth[::-1])
        )
        same = ("slope", "intercept", "points")
        assert {key: one.get(key) for key in same} == {key: two.get(key) for key in same}


def test_by_excerpt_differences_between_excerpts_do_not_help() -> None:
    level = np.arange(5.0)[:, None] * 10
    rng = np.random.default_rng(0)
    truth, predicted = (level + rng.normal(size=(5, 40)) for _ in range(2))
    one = sample(truth, predicted)
    assert as_record(score(one))["random_only"] > 0.9
    found = per_excerpt(one)
    each = [np.corrcoef(t, p)[0, 1] for t, p in zip(one.truth, one.predicted, strict=True)]
    assert found["mean"] == pytest.approx(np.mean(each), abs=1e-4) and abs(found["mean"]) < 0.3
    assert (found["excerpts"], found["absent"]) == (5, 0)
