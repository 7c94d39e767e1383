"""The learner finds the rules that made the activations, and keeps to its budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nxtools.pattern.adding import Adding
from nxtools.pattern.before import Before
from nxtools.pattern.evidence import Check, Choice, gathered
from nxtools.pattern.execute import execute, names
from nxtools.pattern.fading import Seen, Validation
from nxtools.pattern.fit import Budget
from nxtools.pattern.index import PoolIndex, first_of_best
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.language import parse
from nxtools.pattern.learn import Learned, Learner, Sample
from nxtools.pattern.lexicon import Lexicon
from nxtools.pattern.select import SETTLING, Search
from nxtools.pattern.text import Text

WORDS = [
    " all",
    " not",
    " at",
    " a",
    " the",
    " of",
    " cat",
    " dog",
    " sat",
    "The",
    "A",
    "Cat",
    ".",
    ",",
    "ing",
    "ed",
]
LEXICON = Lexicon(WORDS)


def excerpts(count: int, seed: int, vocabulary: int = len(WORDS)) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, vocabulary, (count, 16), dtype=np.int32)


def learn(sentence: str, budget: Budget | None = None, *, noise: float = 0.02, **options: bool) -> Learned:
    """Learn from activations that a pattern made, five times its levels and a little noise."""
    pools = excerpts(120, 1), excerpts(60, 2)
    own, check = excerpts(10, 3), excerpts(5, 4)
    random = np.random.default_rng(5)

    def activations(ids: NDArray[np.int32]) -> NDArray[np.float32]:
        exact = 5 * execute(parse(sentence), ids, LEXICON)
        return (exact + noise * random.normal(size=ids.shape)).astype(np.float32)

    everywhere = [np.ones(ids.shape, dtype=bool) for ids in pools]
    learner = Learner(LEXICON, pools[0], everywhere[0], pools[1], everywhere[1])
    return learner.learn(
        Sample(own, activations(own)),
        activations(pools[0]),
        Sample(check, activations(check)),
        activations(pools[1]),
        budget,
        **options,
    )


@pytest.mark.parametrize(
    "sentence",
    [
        '" all" (10); " cat" or " dog" (4)',
        '" all" (3, but 10 after " not")',
        '" all" (10, but not after " at")',
        '" cat" after " the" or " a" (10)',
        '" cat" (2, but 10 after " of" " the")',
        'fires on " all" (10); goes negative on " cat" or " dog" (5)',
        'goes negative on " all" (10, but 3 after " not")',
        'capital (10, but not after ",")',
        'capital (6); " cat" (10)',
        "punctuation (10); otherwise 1",
        '" all" (10); " cat" (5); early (-4)',
        '" all" (10); " not" (7); early (+2); lingering 2; otherwise 1',
    ],
)
def test_the_rules_that_made_the_activations_are_found(sentence: str) -> None:
    learned = learn(sentence, Budget(literals=10))
    ids = excerpts(40, 9)
    predicted, true = execute(learned.pattern, ids, LEXICON), execute(parse(sentence), ids, LEXICON)
    assert np.corrcoef(predicted.ravel(), true.ravel())[0, 1] > 0.97


def test_a_simple_unit_has_a_simple_sentence() -> None:
    learned = learn('" all" (5, but 10 after " not"); " cat" (7)')
    assert str(learned.pattern) == '" all" (5, but 10 after " not"); " cat" (7)'
    assert learned.scale == pytest.approx(5, rel=0.1)


def test_what_goes_along_the_text_is_said_only_where_it_does() -> None:
    early, lingering = (learn(f'" all" (10); {what}').pattern for what in ("early (+5)", "lingering 2"))
    assert (early.early, early.lingering, len(early.rules)) == (50, 0, 1) and abs(early.otherwise) <= 2
    assert str(lingering) == '" all" (10); lingering 2'
    both = learn('" all" (10); early (+5); lingering 2').pattern
    assert (both.early, both.lingering) == (50, 20)
    plain = learn('" all" (10)', noise=1.0).pattern
    assert (plain.early, plain.lingering) == (0, 0)


@settings(deadline=None)
@given(st.integers(-100, 100), st.integers(0, 100), st.integers(0, 2**32))
def test_how_well_a_pattern_fits_is_the_mean_of_two_correlations(
    early: int, lingering: int, seed: int
) -> None:
    pattern = replace(parse('" all" (10); capital (3, but 5 after " of")'), early=early, lingering=lingering)
    random, ids = np.random.default_rng(seed), excerpts(12, seed)
    truth = (execute(pattern, ids, LEXICON) + random.normal(size=ids.shape)).astype(np.float32)
    truth[:, 0] = truth[3, 7] = np.nan
    own, pool = (Seen(Text(ids[rows], LEXICON), truth[rows]) for rows in (slice(0, 3), slice(3, 12)))

    def correlation(rows: slice) -> float:
        there = ~np.isnan(truth[rows])
        return float(np.corrcoef(truth[rows][there], execute(pattern, ids[rows], LEXICON)[there])[0, 1])

    wanted = (correlation(slice(0, 6)) + correlation(slice(3, 12))) / 2  # own ones with as many of the pool
    assert Validation(own, pool).fits(pattern) == pytest.approx(wanted, abs=1e-5)


def test_a_kind_is_named_where_it_says_what_many_tokens_say() -> None:
    assert str(learn("capital (10)", Budget(literals=1)).pattern) == "capital (10)"
    assert "capital" not in str(learn("capital (10)", Budget(literals=3), use_kinds=False).pattern)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 12), st.one_of(st.none(), st.integers(12, 120)), st.integers(0, 3))
def test_the_budget_is_a_hard_limit(literals: int, characters: int | None, which: int) -> None:
    sentence = ['" all" (3, but 10 after " not"); " cat" (7)', "capital (5)", "otherwise 3", '"A" (2)'][which]
    pattern = learn(sentence, Budget(literals, characters), noise=0.5).pattern
    assert pattern.literals <= literals
    assert characters is None or len(str(pattern)) <= max(characters, len("otherwise -0.1"))
    assert parse(str(pattern)) == pattern


def test_more_literals_never_say_less() -> None:
    lengths = [
        learn('" all" (9); " cat" (7); "A" (5); "ing" (3)', Budget(n)).pattern.literals for n in range(5)
    ]
    assert lengths == [0, 1, 2, 3, 4]


def test_who_allows_more_literals_than_usual_hears_of_smaller_things() -> None:
    usual, more = (
        learn('" all" (10); " not" (0.5)', Budget(literals), noise=0.001).pattern for literals in (30, 100)
    )
    assert (str(usual), str(more)) == ('" all" (10)', '" all" (10); " not" (0.5)')


def test_a_silent_unit_has_no_rules() -> None:
    learned = learn('" all" (0)', noise=0)
    assert str(learned.pattern) == "otherwise 0"
    assert learned.coverage is None


def test_a_constant_unit_has_a_background_only() -> None:
    learned = learn("otherwise 4", noise=0)
    assert str(learned.pattern) == "otherwise 10"
    assert (learned.scale, learned.coverage) == (pytest.approx(2), 0)


def test_coverage_is_the_squared_activation_where_a_rule_matches() -> None:
    learned = learn('" all" (10); " cat" (5)', Budget(literals=1), noise=0)
    assert str(learned.pattern).startswith('" all" (10)')
    assert learned.coverage == pytest.approx(0.8, abs=0.05)  # 100 of 100 + 25


def test_names_are_the_positions_that_do_not_have_the_background() -> None:
    ids = excerpts(20, 7)
    pattern = parse('" all" (9); " cat" after "A" or "The" (3); capital after " of" (2)')
    assert (names(pattern, ids, LEXICON) == (execute(pattern, ids, LEXICON) != 0)).all()


def test_positions_left_out_teach_nothing() -> None:
    ids = excerpts(50, 1)
    valid = np.ones(ids.shape, dtype=bool)
    valid[:, 0] = False
    activations = (ids == 0).astype(np.float32)
    activations[:, 0] = np.nan
    learner = Learner(LEXICON, ids, valid, ids, valid)
    sample = Sample(ids[:5], activations[:5])
    assert str(learner.learn(sample, activations, sample, activations).pattern) == '" all" (10)'


def test_like_is_learned_from_the_embedding_and_says_something_of_unseen_tokens() -> None:
    random = np.random.default_rng(0)
    embedding = random.normal(size=(40, 64))
    embedding[:20] += 2 * random.normal(size=64)  # the first half are alike
    lexicon = Lexicon([f" w{i}" for i in range(40)], embedding.astype(np.float16))
    seen = np.array([i for i in range(40) if i != 7])
    pools = seen[random.integers(0, 39, (100, 16))], random.integers(0, 40, (50, 16))
    everywhere = [np.ones(ids.shape, dtype=bool) for ids in pools]
    learner = Learner(lexicon, pools[0], everywhere[0], pools[1], everywhere[1])

    def unit(ids: NDArray[np.integer]) -> NDArray[np.float32]:
        return (ids < 20).astype(np.float32)

    own, check = Sample(pools[0][:5], unit(pools[0][:5])), Sample(pools[1][:5], unit(pools[1][:5]))
    pattern = learner.learn(own, unit(pools[0]), check, unit(pools[1]), Budget(literals=1)).pattern
    assert str(pattern).startswith('like " w')
    unseen, unlike = execute(pattern, np.array([[7, 27]]), lexicon)[0]
    assert (unseen, unlike < 0.5) == (1, True)


def test_learning_twice_gives_the_same_bytes() -> None:
    sentence = '" all" (3, but 10 after " not"); capital (2)'
    assert str(learn(sentence, noise=1).pattern) == str(learn(sentence, noise=1).pattern)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(3, len(WORDS)), st.booleans(), st.booleans())
def test_the_running_sums_of_the_search_are_those_of_its_predictions(
    seed: int, vocabulary: int, use_kinds: bool, use_before: bool
) -> None:
    """After every step, sums and weights of all candidates equal those computed anew from all positions."""
    pool, mine = excerpts(12, seed, vocabulary), excerpts(3, seed + 1)
    everywhere = np.ones(pool.shape, dtype=bool)
    index = PoolIndex(pool, everywhere, LEXICON)
    of_own, contexts = index.lookup(mine, np.ones(mine.shape, dtype=bool))
    values = np.random.default_rng(seed).exponential(size=pool.size + mine.size)
    weights = np.random.default_rng(seed + 2).uniform(0.2, 3.0, len(values))
    trust = np.random.default_rng(seed + 3).uniform(0.5, 2.0, len(contexts) + 1)
    evidence = gathered(index, contexts, of_own, values, weights, trust, index.sums(weights[: pool.size]))
    search = Search(evidence, 2.0)
    kinds = Kinds(LEXICON, index.contexts.token[: index.alone], index.alone)
    use_before = use_before and use_kinds
    if use_kinds:
        everything = np.bincount(pool.ravel(), minlength=len(WORDS))[kinds.ids].astype(float)
        search.consider(kinds, Check(everything, 5 * everything))
    rows = np.concatenate([index.of_position, of_own])
    replayed = Replayed(search, rows, values.copy())
    places = np.concatenate([index.head, np.where(of_own[:, 0] < index.alone, of_own[:, 0], -1)])
    if use_before:
        check = [places[1:51], places[:50], values[1:51], np.ones(50)]  # as if they followed each other
        before = Before(kinds, np.roll(places, 1), *check)
        search.adding = Adding(search, before, 1.0)
    for _ in range(8):
        if not (choices := search.step()):
            break
        replayed.take(choices)
        residuals, open = replayed.residuals(), replayed.open()
        for number in range(len(contexts)):
            takes = ((rows == number) & open).any(axis=1)
            assert search.sum[number] == pytest.approx((weights * residuals)[takes].sum(), abs=1e-6)
            assert search.weight[number] == pytest.approx(weights[takes].sum(), abs=1e-6)
        for kind in range(len(kinds.atoms if search.kinds else [])):
            heads = replayed.of_kind(kind) & replayed.free()
            assert search.kind_sum[kind] == pytest.approx((weights * residuals)[heads].sum(), abs=1e-6)
            assert search.kind_weight[kind] == pytest.approx(weights[heads].sum(), abs=1e-6)
        if search.adding is not None:
            assert search.adding.sum == pytest.approx(before.sums(weights * residuals), abs=1e-6)
            assert search.adding.free == pytest.approx(before.sums(weights * replayed.free()), abs=1e-6)


class Replayed:
    """The same search position by position: what each is predicted, and the length of what took it."""

    def __init__(self, search: Search, rows: NDArray[np.integer], values: NDArray[np.float64]) -> None:
        self.search, self.rows, self.values = search, rows, values
        self.weights = search.evidence.weights
        self.predicted = np.full(len(values), float((self.weights * values).sum() / self.weights.sum()))
        self.taken = np.zeros(len(values), dtype=int)

    def residuals(self) -> NDArray[np.float64]:
        return self.values - self.predicted

    def free(self) -> NDArray[np.bool_]:
        return self.taken == 0

    def open(self) -> NDArray[np.bool_]:
        """(positions, LONGEST): whether a context of that length would take the position."""
        return self.taken[:, None] < np.arange(1, self.rows.shape[1] + 1)

    def of_kind(self, kind: int) -> NDArray[np.bool_]:
        assert self.search.kinds is not None
        named = LEXICON.ids(self.search.kinds.atoms[kind])
        return np.isin(self.search.contexts.token[self.rows[:, 0]], named)

    def take(self, choices: list[Choice]) -> None:
        shrink, trust = self.search.shrink, self.search.evidence.trust
        for choice in choices:
            if choice.kind >= 0:
                self._take_kind(self.of_kind(choice.kind) & self.free(), shrink)
            elif choice.before is not None:
                self.values[choice.positions] -= self._step(choice.positions, shrink)
            else:
                takes = ((self.rows == choice.context) & self.open()).any(axis=1)
                self.predicted[takes] += self._step(takes, trust[choice.context])
                self.taken[takes] = self.search.contexts.length[choice.context]
        if choices[0].kind < 0 and self.free().any():
            self.predicted[self.free()] += self._step(self.free(), 0.0)

    def _take_kind(self, members: NDArray[np.bool_], shrink: float) -> None:
        free = self.free()
        for _ in range(SETTLING):
            step = self._step(members, shrink)
            self.predicted[members] += step
            self.predicted[free] -= step * self.weights[members].sum() / self.weights[free].sum()

    def _step(self, positions: NDArray[np.generic], trust: float) -> float:
        weights = self.weights[positions]
        return float((weights * self.residuals()[positions]).sum() / (weights.sum() + trust))


def test_of_gains_that_only_rounding_tells_apart_the_first_is_taken() -> None:
    assert first_of_best(np.array([0.1, 2.0, 2.0 + 4e-16, 1.9])) == 1
    assert first_of_best(np.array([0.1, 2.0, 2.0 + 1e-6, 1.9])) == 2


def test_contexts_are_all_suffixes_that_occur_twice() -> None:
    ids = np.array([[0, 1, 2, 0, 1, 2, 3, 2]])
    index = PoolIndex(ids, np.ones(ids.shape, dtype=bool), LEXICON)
    found = {tuple(index.contexts.ids(number)) for number in range(len(index.contexts))}
    assert found == {(0,), (1,), (2,), (3,), (0, 1), (1, 2), (0, 1, 2)}


@given(st.integers(0, 100))
def test_excerpts_of_the_pool_are_looked_up_as_they_were_indexed(seed: int) -> None:
    ids = excerpts(6, seed, 5)
    valid = np.random.default_rng(seed).random(ids.shape) > 0.2
    index = PoolIndex(ids, valid, LEXICON)
    numbers, contexts = index.lookup(ids, valid)
    assert len(contexts) == len(index.contexts)
    assert (numbers == index.of_position).all()


def test_without_a_pool_the_unit_s_own_excerpts_are_all_there_is() -> None:
    nothing, ids = np.zeros((0, 16), dtype=np.int32), excerpts(20, 1)
    empty = nothing.astype(bool)
    sample = Sample(ids, (ids == 3).astype(np.float32))
    learned = Learner(LEXICON, nothing, empty, nothing, empty).learn(
        sample, nothing.astype(np.float32), sample, nothing.astype(np.float32)
    )
    assert str(learned.pattern) == '" a" (10)'


def test_tokens_without_a_text_cannot_be_named_and_are_passed_over() -> None:
    ids = excerpts(60, 1)
    everywhere = np.ones(ids.shape, dtype=bool)
    learner = Learner(Lexicon(["", *WORDS[1:]]), ids, everywhere, ids, everywhere)
    activations = ((ids == 0) + 0.7 * (ids == 1)).astype(np.float32)
    sample = Sample(ids[:5], activations[:5])
    pattern = learner.learn(sample, activations, sample, activations).pattern
    assert [str(rule.current) for rule in pattern.rules] == ['" not"']
