"""Simulators that know only tokens: their values are means, the list is the best one of its size."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.simulate.tables import PRIOR, WEIGHTS, Excerpts, PoolIndex, TokenValues, learn, of_corpus


def text(rng, excerpts, tokens=32, vocabulary=60) -> np.ndarray:
    return np.minimum(rng.geometric(0.08, (excerpts, tokens)), vocabulary).astype(np.int32)


def unit(ids, seed=0, noise=0.3) -> np.ndarray:
    """Activations that depend on the token, and a left-out first position."""
    strength = np.random.default_rng(seed).gamma(0.3, size=1000)
    out = strength[ids] + noise * np.random.default_rng(seed + 1).normal(size=ids.shape)
    out[:, 0] = np.nan
    return out.astype(np.float32)


def case(seed=0, pool=True):
    """A unit's evidence and validation (4 top, 4 random each) and pools of 100 and 50 excerpts."""
    rng = np.random.default_rng(seed)
    pools = text(rng, 100), text(rng, 50)
    index = PoolIndex(*pools) if pool else PoolIndex()
    picks = ["top"] * 4 + ["random"] * 4
    sets = []
    for shared in pools:
        ids = np.concatenate([text(rng, 4), shared[:4]])
        sets.append(Excerpts(ids, unit(ids, seed), picks, unit(shared, seed) if pool else None))
    return index, *sets, pools


def token_means(ids, activations, weights) -> tuple[dict[int, float], float]:
    """Weighted mean per token and overall, by hand."""
    count: dict[int, float] = {}
    total: dict[int, float] = {}
    for row, values, weight in zip(ids, activations, weights, strict=True):
        for token, value in zip(row.tolist(), values.tolist(), strict=True):
            if value == value:
                count[token] = count.get(token, 0) + weight
                total[token] = total.get(token, 0) + weight * value
    mean = sum(total.values()) / sum(count.values())
    return {t: (total[t] + PRIOR * mean) / (count[t] + PRIOR) for t in count}, mean


def test_the_table_holds_means_over_the_pool_and_the_extreme_excerpts():
    index, evidence, validation, pools = case()
    table, _ = learn(index, evidence, validation)
    ids = np.concatenate([evidence.ids[:4], pools[0]])
    activations = np.concatenate([evidence.activations[:4], evidence.pool])
    means, mean = token_means(ids, activations, [table.weight] * 4 + [1] * 100)
    assert table.tokens.tolist() == sorted(means)
    np.testing.assert_allclose(table.values, [means[t] for t in sorted(means)], rtol=1e-5)
    assert table.background == pytest.approx(mean)


def test_without_a_pool_the_random_excerpts_on_the_line_take_its_place():
    index, evidence, validation, _ = case(pool=False)
    table, _ = learn(index, evidence, validation)
    means, _ = token_means(evidence.ids, evidence.activations, [table.weight] * 4 + [1] * 4)
    np.testing.assert_allclose(table.values, [means[t] for t in sorted(means)], rtol=1e-5)


def test_prediction_is_a_look_up_and_unknown_tokens_get_the_background():
    simulator = TokenValues(np.array([3, 7]), np.array([0.5, -1.0], np.float32), 0.1, 1.0)
    predicted = simulator.predict(np.array([[3, 7, 0], [100_000, 4, 7]], np.int32))
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, [[0.5, -1.0, 0.1], [0.1, 0.1, -1.0]])
    assert simulator.predict(np.empty((0, 4), np.int32)).shape == (0, 4)


def test_tokens_that_only_the_inline_excerpts_have_are_known_too():
    index, evidence, validation, _ = case()
    ids = evidence.ids.copy()
    ids[0, 5] = 90_000
    activations = evidence.activations.copy()
    activations[0, 5] = 50.0
    table, short_list = learn(index, Excerpts(ids, activations, evidence.picks, evidence.pool), validation)
    assert table.predict(np.array([90_000]))[0] > 10
    assert 90_000 in short_list.tokens


def test_the_list_names_so_many_tokens_and_the_others_share_their_mean():
    index, evidence, validation, pools = case()
    _, short_list = learn(index, evidence, validation, literals=7)
    assert len(short_list.tokens) == 7
    ids = np.concatenate([evidence.ids[:4], pools[0]])
    activations = np.concatenate([evidence.activations[:4], evidence.pool])
    weights = np.repeat([short_list.weight, 1], [4, 100])[:, None] * np.ones(ids.shape)
    rest = ~np.isin(ids, short_list.tokens) & ~np.isnan(activations)
    assert short_list.background == pytest.approx(np.average(activations[rest], weights=weights[rest]))


def test_the_list_removes_as_much_squared_error_as_any_of_its_size():
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 9, (40, 20)).astype(np.int32)
    strength = np.array([0, 0.1, 3, -2, 0.2, 1.5, 0.1, -0.1, 0.4])
    activations = (strength[ids] + 0.1 * rng.normal(size=ids.shape)).astype(np.float32)
    excerpts = Excerpts(ids, activations, ["random"] * 40)
    _, short_list = learn(PoolIndex(), excerpts, excerpts, literals=3)

    def error(named) -> float:
        rest = activations[~np.isin(ids, named)]
        return rest.var() * rest.size + sum(activations[ids == t].var() * (ids == t).sum() for t in named)

    assert short_list.tokens.tolist() == list(min(combinations(range(9), 3), key=error))


def test_a_list_of_more_tokens_than_there_are_is_the_whole_table():
    index, evidence, validation, _ = case()
    table, long_list = learn(index, evidence, validation, literals=10_000)
    np.testing.assert_array_equal(long_list.tokens, table.tokens)
    np.testing.assert_allclose(long_list.values, table.values, rtol=1e-6)


def test_negative_sides_are_learned_as_well():
    index, evidence, validation, _ = case()

    def negated(side):
        return Excerpts(side.ids, -side.activations, ["bottom"] * 4 + ["random"] * 4, -side.pool)

    for plus, minus in zip(
        learn(index, evidence, validation), learn(index, negated(evidence), negated(validation)), strict=True
    ):
        np.testing.assert_array_equal(plus.tokens, minus.tokens)
        np.testing.assert_allclose(plus.values, -minus.values, rtol=1e-5)


def test_the_weight_of_extreme_excerpts_is_the_one_that_validates_better(monkeypatch):
    chosen = set()
    for seed in range(12):
        index, evidence, validation, pools = case(seed)
        found = learn(index, evidence, validation, literals=5)
        for kind, simulator in enumerate(found):
            scores = {}
            for weight in WEIGHTS:
                monkeypatch.setattr("nxtools.simulate.tables.WEIGHTS", (weight,))
                only = learn(index, evidence, validation, literals=5)[kind]
                scores[weight] = sum(
                    correlation(excerpt_sums(truth, only.predict(ids)).sum(0))
                    for ids, truth in (
                        (validation.ids, validation.activations),
                        (pools[1], validation.pool),
                    )
                )
            monkeypatch.setattr("nxtools.simulate.tables.WEIGHTS", WEIGHTS)
            assert scores[simulator.weight] == pytest.approx(max(scores.values()), abs=1e-6)
            chosen.add(simulator.weight)
    assert chosen == set(WEIGHTS)


def test_they_predict_unseen_text_and_the_table_better_than_a_short_list():
    index, evidence, validation, _ = case()
    table, short_list = learn(index, evidence, validation, literals=5)
    ids = text(np.random.default_rng(99), 50)
    scores = [
        float(correlation(excerpt_sums(unit(ids), simulator.predict(ids)).sum(0)))
        for simulator in (table, short_list)
    ]
    assert scores[0] > scores[1] > 0.6


def test_a_constant_unit_gives_a_constant_prediction():
    index, evidence, validation, _ = case()

    def still(side):
        return Excerpts(side.ids, np.zeros_like(side.activations), side.picks, np.zeros_like(side.pool))

    for simulator in learn(index, still(evidence), still(validation)):
        assert not simulator.predict(evidence.ids).any()


def test_evidence_without_activations_is_an_error():
    index, evidence, validation, _ = case(pool=False)
    empty = Excerpts(evidence.ids, np.full(evidence.ids.shape, np.nan, np.float32), evidence.picks)
    with pytest.raises(ValueError, match="no token in the evidence has an activation"):
        learn(index, empty, validation)


def test_no_validation_is_no_obstacle():
    index, evidence, _, _ = case()
    nothing = Excerpts(np.empty((0, 32), np.int32), np.empty((0, 32), np.float32), [])
    table, _ = learn(index, evidence, nothing)
    assert table.weight == WEIGHTS[0]


def test_a_corpus_table_predicts_its_means_drawn_toward_that_of_all():
    tokens, count = np.array([2, 5, 9], np.int32), np.array([2, 4, 10])
    means = np.array([4.0, -1.0, 0.5], np.float32)
    table = of_corpus(tokens, count, means)
    background = (2 * 4.0 + 4 * -1.0 + 10 * 0.5) / 16
    expected = [(n * mean + background) / (n + 1) for n, mean in zip(count, means, strict=True)]
    np.testing.assert_allclose(table.predict(np.array([[2, 5], [9, 7]])).ravel()[:3], expected, rtol=1e-6)
    assert table.predict(np.array([7, 10_000])).tolist() == pytest.approx([background] * 2)


def test_a_corpus_table_without_tokens_is_an_error():
    nothing = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="no token"):
        of_corpus(nothing, nothing, nothing.astype(np.float32))
