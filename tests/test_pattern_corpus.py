"""What all the evidence says of single tokens, laid over a small pool."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nxtools.pattern.corpus import Corpus, Counted, Means
from nxtools.pattern.execute import execute
from nxtools.pattern.fit import levels_around
from nxtools.pattern.language import Atom, parse
from nxtools.pattern.learn import Learned, Learner, Sample
from nxtools.pattern.lexicon import Lexicon

WORDS = [f" w{number}" for number in range(40)]
LEXICON = Lexicon(WORDS)


def text(excerpts: int, seed: int, words: int = len(WORDS)) -> NDArray[np.int32]:
    """Words of rising rarity."""
    chance = np.random.default_rng(seed)
    share = 1 / np.arange(1, words + 1)
    return chance.choice(words, size=(excerpts, 16), p=share / share.sum()).astype(np.int32)


def counted(ids: NDArray[np.int32]) -> Counted:
    tokens, count = np.unique(ids, return_counts=True)
    return Counted(tokens[count > 1], count[count > 1])


def means_of(known: Counted, ids: NDArray[np.int32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.array([values[ids == token].mean() for token in known.tokens], np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 30))
def test_each_token_weighs_what_it_occurs_and_has_its_mean(seed: int, excerpts: int) -> None:
    every = text(300, seed)
    pool = every[:excerpts]
    valid = np.ones(pool.shape, bool)
    valid[:, 0] = False
    known = counted(every)
    unit = np.random.default_rng(seed).normal(size=every.shape).astype(np.float32)
    means = Means(means_of(known, every, unit), unit[:excerpts], lambda values: values)
    corpus = Corpus(LEXICON, pool, valid, known)
    values = corpus.values(unit[:excerpts], means)
    tokens = corpus.index.contexts.token[corpus.index.of_position[:, 0]]
    assert np.isclose(corpus.weight.sum(), valid.sum())
    weights = {token: corpus.weight[tokens == token].sum() for token in known.tokens.tolist()}
    share = weights[0] / known.count[0]
    for token, count, mean in zip(known.tokens.tolist(), known.count, means.values, strict=True):
        assert np.isclose(weights[token], share * count)
        assert np.isclose(values[tokens == token].mean(), mean, atol=1e-5)


def learned(sentence: str, *, table: bool, order: int = 1, times: float = 1.0) -> Learned:
    """From a pool of 20 excerpts, and where there is a table, from means over 2,000."""
    every, check, own = text(2000, 1), text(60, 2), text(4, 3)
    chance = np.random.default_rng(4)

    def unit(ids: NDArray[np.int32]) -> NDArray[np.float32]:
        exact = 5 * execute(parse(sentence), ids, LEXICON)
        return np.float32(times) * (exact + chance.normal(size=ids.shape)).astype(np.float32)

    values, pool = unit(every), every[:20]
    known = counted(every)
    known = Counted(known.tokens[::order], known.count[::order])
    everywhere = [np.ones(ids.shape, bool) for ids in (pool, check)]
    learner = Learner(LEXICON, pool, everywhere[0], check, everywhere[1], known if table else None)
    means = Means(means_of(known, every, values), values[:20], lambda values: values) if table else None
    own_sample = Sample(own, unit(own))
    return learner.learn(
        own_sample, values[:20], Sample(own[:0], own_sample.activations[:0]), unit(check), means=means
    )


TRUTH = '" w30" (10); " w2" (7); " w25", " w33" or " w38" (5)'


def test_rare_tokens_are_named_that_the_pool_hardly_has() -> None:
    pattern = learned(TRUTH, table=True).pattern
    ids = np.arange(40, dtype=np.int32)[:, None]
    wanted, found = (execute(one, ids, LEXICON).ravel() for one in (parse(TRUTH), pattern))
    assert np.corrcoef(wanted, found)[0, 1] > 0.96
    without = execute(learned(TRUTH, table=False).pattern, ids, LEXICON).ravel()
    assert np.corrcoef(wanted, without)[0, 1] < 0.9


def test_the_order_of_the_table_is_of_no_account() -> None:
    assert learned(TRUTH, table=True) == learned(TRUTH, table=True, order=-1)


def test_contexts_are_learned_beside_the_table() -> None:
    truth = '" w1" (3, but 10 after " w0")'
    pattern = learned(truth, table=True).pattern
    ids = np.array([[1, 0, 1, 2, 1]], np.int32)
    values = execute(pattern, ids, LEXICON)[0]
    assert values[2] > 2 * values[4] > 0


def test_what_a_token_adds_to_all_that_follow_it_is_said_once() -> None:
    truth = '" w1" (10); " w2" (7); " w3" (5); " w4" (3); after " w0" (+4)'
    pattern = learned(truth, table=True).pattern
    assert [(shift.context, shift.step) for shift in pattern.shifts] == [((Atom("token", " w0"),), 30)]
    ids = np.array([[9, 3, 0, 3, 0, 2, 0, 9]], np.int32)
    wanted, found = (execute(one, ids, LEXICON)[0] for one in (parse(truth), pattern))
    assert np.corrcoef(wanted, found)[0, 1] > 0.95


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.floats(-0.9, 0.9))
def test_levels_keep_the_order_of_values_and_the_strongest_is_ten(
    shares: list[float], otherwise: float
) -> None:
    shares = [1.0, *shares]
    levels, rest = levels_around(np.array(shares), otherwise)
    assert levels[0] == 100 and all(-100 <= level <= 100 for level in (*levels, rest))
    order = np.argsort(shares, kind="stable")
    assert (np.diff(np.array(levels)[order]) >= 0).all()


@pytest.mark.parametrize("table", [False, True])
def test_a_unit_turned_round_has_the_mirrored_pattern(table: bool) -> None:
    usual, mirrored = learned(TRUTH, table=table), learned(TRUTH, table=table, times=-1.0)
    assert {rule.steps: rule.level for rule in mirrored.pattern.rules} == {
        rule.steps: -rule.level for rule in usual.pattern.rules
    }
    assert mirrored.pattern.otherwise == -usual.pattern.otherwise
    assert (mirrored.scale, mirrored.coverage) == (usual.scale, usual.coverage)


@pytest.mark.parametrize("table", [False, True])
def test_a_unit_scaled_has_the_same_pattern(table: bool) -> None:
    usual, scaled = learned(TRUTH, table=table), learned(TRUTH, table=table, times=8.0)
    assert scaled.pattern == usual.pattern and scaled.scale == 8 * usual.scale
