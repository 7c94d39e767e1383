"""Which excerpts each figure pools, its interval, and the record that a unit line shows."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from nxtools.score import bootstrap
from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.score.figures import Pool, Sample, as_record, score, score_block

PICKS = ["top"] * 5 + ["random"] * 5


def excerpts(rng: np.random.Generator, shape, level=0.0) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted activations whose tokens hang together within an excerpt: (..., tokens)."""
    loud = rng.gamma(1.0, size=(*shape[:-1], 1)) + level
    truth = np.maximum(loud * (rng.normal(size=shape) + rng.normal(size=(*shape[:-1], 1))), 0.0)
    known = rng.uniform(0.2, 1.0, size=(*shape[:-1], 1))
    return truth.astype(np.float32), (known * truth + 0.5 * rng.normal(size=shape)).astype(np.float32)


def sample(seed=0, picks=PICKS, name="unit", pool=False, tokens=64) -> Sample:
    rng = np.random.default_rng(seed)
    truth, predicted = excerpts(rng, (len(picks), tokens))
    truth[:, 0] = np.nan
    documents = [f"document {seed} {i}" for i in range(len(picks))]
    many = excerpts(rng, (50, tokens)) if pool else None
    return Sample(
        name, truth, predicted, picks, documents, Pool(*many, tuple(map(str, range(50)))) if many else None
    )


def over(chosen: Sample, *picks: str) -> float:
    rows = [pick in picks for pick in chosen.picks]
    t, p = chosen.truth[rows].ravel(), chosen.predicted[rows].ravel()
    there = ~np.isnan(t)
    return stats.pearsonr(t[there].astype(np.float64), p[there].astype(np.float64)).statistic


def test_each_figure_pools_its_own_excerpts():
    one = sample(picks=[*PICKS, "bottom", "bottom", "generated"], pool=True)
    figures = score(one).figures
    expected = {
        "top_and_random": over(one, "top", "random"),
        "top_only": over(one, "top"),
        "random_only": over(one, "random"),
        "bottom_and_random": over(one, "bottom", "random"),
        "pool": np.corrcoef(one.pool.truth.ravel(), one.pool.predicted.ravel())[0, 1],
    }
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(expected, abs=1e-6)
    assert figures["top_and_random"].value == pytest.approx(expected["top_and_random"], abs=1e-9)
    assert {name: (f.excerpts, f.tokens) for name, f in figures.items()} == {
        "top_and_random": (10, 630),
        "top_only": (5, 315),
        "random_only": (5, 315),
        "bottom_and_random": (7, 441),
        "pool": (50, 3200),
    }


def test_figures_without_bottom_excerpts_or_pool_are_not_there():
    assert list(score(sample()).figures) == ["top_and_random", "top_only", "random_only"]


def test_missing_excerpts_are_a_reason():
    figures = score(sample(picks=["top"] * 5)).figures
    assert figures["random_only"].reason == "no random excerpts"
    assert figures["top_and_random"].value is None
    assert score(sample(picks=["spread"])).figures["top_and_random"].reason == "no top and no random excerpts"


def test_an_excerpt_without_tokens_is_no_excerpt():
    """A simulation that failed (all NaN) leaves the score of the others, and the count says so."""
    whole = sample()
    predicted = whole.predicted.copy()
    predicted[9] = np.nan
    holed = score(dataclasses.replace(whole, predicted=predicted))
    rest = dataclasses.replace(
        whole,
        truth=whole.truth[:9],
        predicted=whole.predicted[:9],
        picks=PICKS[:9],
        documents=whole.documents[:9],
    )
    assert holed.figures["top_and_random"].excerpts == 9
    assert holed.documents["random"] == tuple(whole.documents[5:9])
    assert as_record(holed) == as_record(score(rest))


def test_a_block_gives_what_single_samples_give_in_their_order():
    shapes = [PICKS, PICKS[2:], [*PICKS, "bottom", "bottom"], ["random"], []]
    block = [
        sample(seed, shapes[seed % 5], f"unit {seed}", seed % 3 == 0, 64 - seed % 2) for seed in range(100)
    ]
    together = score_block(block)
    assert [scored.name for scored in together] == [one.name for one in block]
    assert [scored.figures for scored in together] == [score(one).figures for one in block]
    assert score_block([]) == []


def test_the_order_of_excerpts_does_not_matter():
    one = sample()
    order = np.random.default_rng(1).permutation(10)
    other = Sample(
        one.name,
        one.truth[order],
        one.predicted[order],
        [one.picks[i] for i in order],
        [one.documents[i] for i in order],
    )
    for name, figure in score(one).figures.items():
        assert score(other).figures[name].value == pytest.approx(figure.value, abs=1e-12)


def test_picks_and_documents_must_fit_the_excerpts():
    with pytest.raises(ValueError, match="2 excerpts, 1 picks, 2 documents"):
        Sample("unit", np.zeros((2, 3)), np.zeros((2, 3)), ["top"], ["a", "b"])


def test_the_record_on_a_unit_line():
    record = as_record(score(sample(pool=True)))
    assert record == json.loads(json.dumps(record))
    assert list(record)[:3] == ["method", "top_and_random", "interval"]
    low, high = record["interval"]
    assert low < record["top_and_random"] < high
    assert record["excerpts"] == 10
    assert record["tokens"] == 630
    assert record["counts"]["pool"] == {"excerpts": 50, "tokens": 3200}
    assert set(record["intervals"]) == {"top_only", "random_only", "pool"}
    assert "absent" not in record
    numbers = [record["top_and_random"], *record["interval"], record["pool"]]
    assert numbers == [float(f"{number:.4g}") for number in numbers]


def test_the_record_of_a_constant_prediction_is_null_with_a_reason():
    one = dataclasses.replace(sample(), predicted=np.full((10, 64), 0.3, np.float32))
    record = as_record(score(one))
    assert record["top_and_random"] is None
    assert record["interval"] is None
    assert record["intervals"] == {}
    assert record["absent"] == dict.fromkeys(
        ["top_and_random", "top_only", "random_only"], "constant prediction"
    )


# Intervals


def test_the_interval_is_seeded_by_the_unit():
    intervals = [score(sample(name=name)).figures["top_and_random"].interval for name in ("a", "a", "b")]
    assert intervals[0] == intervals[1] != intervals[2]


def test_the_interval_of_a_figure_does_not_depend_on_what_else_is_scored():
    alone, accompanied = score(sample()), score(sample(pool=True))
    assert alone.figures["top_and_random"] == accompanied.figures["top_and_random"]


def test_without_draws_there_are_values_and_no_intervals():
    plain = score(sample(), draws=0).figures
    assert all(figure.interval is figure.no_interval is None for figure in plain.values())
    assert [f.value for f in plain.values()] == [f.value for f in score(sample()).figures.values()]


def test_one_excerpt_of_a_kind_says_nothing_about_the_spread():
    record = as_record(score(sample(picks=["top", "random", "random"])))
    assert record["top_and_random"] is not None
    assert record["interval"] is None
    assert list(record["intervals"]) == ["random_only"]
    assert record["absent"] == dict.fromkeys(
        ["interval", "intervals.top_only"], "fewer than 2 excerpts of a kind"
    )


def test_an_interval_that_hangs_on_one_excerpt_is_absent():
    """A third of the draws miss the only random excerpt that is active: they have no correlation."""
    one = sample()
    truth = one.truth.copy()
    truth[6:] = 0.0
    figure = score(dataclasses.replace(one, truth=truth)).figures["random_only"]
    assert figure.value is not None
    assert figure.interval is None
    assert figure.no_interval == "one excerpt carries the correlation"


def test_a_perfect_prediction_has_a_narrow_interval_at_one():
    one = sample()
    figure = score(dataclasses.replace(one, predicted=2 * one.truth)).figures["top_and_random"]
    assert figure.value == pytest.approx(1.0)
    assert figure.interval[0] > 0.9999
    assert figure.interval[1] == pytest.approx(1.0)


def test_draws_are_stratified_and_their_variance_is_unbiased():
    sums = np.eye(6)[None, :5]  # five excerpts, each counted in a column of its own
    drawn = bootstrap.resample(np.repeat(sums, 500, 0), seed=range(500), draws=200)
    assert drawn.shape == (500, 6, 200)
    np.testing.assert_allclose(drawn.sum(1), 5.0)
    weights = bootstrap.resample(sums, seed=[0], draws=4096)[0, :5]
    # Drawing n - 1 of n and weighing n / (n - 1): a weight's variance is exactly 1, not 1 - 1/n.
    np.testing.assert_allclose(weights.mean(1), 1.0, atol=0.05)
    np.testing.assert_allclose(weights.var(1), 1.0, atol=0.08)


def test_large_strata_and_any_seed_stay_within_the_bank():
    sums = np.random.default_rng(0).normal(size=(2, 3000, 6))
    drawn = bootstrap.resample(sums, seed=[2**32 - 1, 0], draws=50)
    assert drawn.shape == (2, 6, 50)
    spread = drawn.std(2) / (sums.std(1) * np.sqrt(3000))
    np.testing.assert_allclose(spread, 1.0, atol=0.4)


def test_students_t():
    for freedom in (1, 2, 3, 4, 8, 9, 30, 199, 1000):
        assert bootstrap.student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    with pytest.raises(ValueError, match="at least one degree of freedom"):
        bootstrap.student(0)


@pytest.mark.parametrize(("top", "random"), [(5, 5), (10, 10), (3, 20)])
def test_intervals_hold_the_true_correlation_as_often_as_they_say(top, random):
    rng = np.random.default_rng(top)
    population = excerpts(rng, (20_000, 32), level=2.0), excerpts(rng, (20_000, 32))
    truth, predicted = (np.concatenate([loud, quiet]) for loud, quiet in zip(*population, strict=True))
    weights = np.repeat([top, random], 20_000)
    true = float(correlation((excerpt_sums(truth, predicted) * weights[:, None]).sum(0)))

    cases = []
    for case in range(600):
        rows = np.r_[rng.integers(0, 20_000, top), rng.integers(20_000, 40_000, random)]
        cases.append(
            Sample(
                f"{case}",
                truth[rows],
                predicted[rows],
                ["top"] * top + ["random"] * random,
                [str(row) for row in rows],
            )
        )
    intervals = [scored.figures["top_and_random"].interval for scored in score_block(cases)]
    held = np.mean([low <= true <= high for low, high in intervals])
    assert 0.90 <= held <= 0.98
