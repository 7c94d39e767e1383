"""The search for rules that mend a pattern: what it corrects instead of summing again, and what it skips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nxtools.pattern.atoms import token
from nxtools.pattern.fit import Budget
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.lexicon import Lexicon
from nxtools.revise.adding import KIND_GAIN, Search
from nxtools.revise.fitting import Evidence, Fitted
from nxtools.revise.giving import literals_of, offers
from nxtools.revise.rows import Rows
from nxtools.revise.step import budget_of

WORDS = [" not", " all", " of", " them", " ran", ".", " king", " ring"]
IDS = st.lists(st.lists(st.integers(0, len(WORDS) - 1), min_size=6, max_size=6), min_size=2, max_size=8)
RULES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), max_size=6)


def searched(rows: list[list[int]], rules: list[list[str]], seed: int) -> tuple[Search, Fitted]:
    """A search on some evidence of uneven weights, with rules that are fitted to it."""
    draw = np.random.default_rng(seed)
    ids = np.array(rows)
    lexicon = Lexicon(WORDS)
    values = draw.normal(size=ids.shape).astype(np.float32)
    evidence = Evidence(lexicon, Rows(ids, values, draw.uniform(1, 9, len(ids))), 3)
    fitted = evidence.fit(list(dict.fromkeys(tuple(map(token, steps)) for steps in rules)))
    return Search(evidence, Kinds(lexicon, np.arange(len(WORDS)), 0)), fitted


@settings(deadline=None, max_examples=60)
@given(IDS, RULES, st.integers(0, 2**32 - 1))
def test_without_a_rule_what_is_left_is_as_if_it_were_summed_again(
    rows: list[list[int]], rules: list[list[str]], seed: int
) -> None:
    search, fitted = searched(rows, rules, seed)
    left = search.left(fitted)
    for offer in offers(search.evidence, fitted):
        assert offer.gone is not None
        predicted, rank = fitted.predicted.copy(), fitted.rank.copy()
        predicted[offer.gone.at], rank[offer.gone.at] = offer.gone.predicted, offer.gone.rank
        again = search.left(replace(fitted, predicted=predicted, rank=rank))
        for one, other in zip(search.without(left, fitted, offer.gone), again, strict=True):
            assert all(np.allclose(a, b, atol=1e-9) for a, b in zip(one, other, strict=True))


@settings(deadline=None, max_examples=60)
@given(IDS, RULES, st.integers(0, 2**32 - 1))
def test_giving_up_costs_what_comes_back_and_frees_what_is_said(
    rows: list[list[int]], rules: list[list[str]], seed: int
) -> None:
    search, fitted = searched(rows, rules, seed)
    evidence = search.evidence
    for offer in offers(evidence, fitted):
        assert offer.gone is not None
        predicted = fitted.predicted.copy()
        predicted[offer.gone.at] = offer.gone.predicted
        error = float((evidence.weights * (evidence.values - predicted) ** 2).sum())
        assert np.isclose(offer.cost, error - fitted.error)
        others = [steps for steps in fitted.rules if steps not in offer.rules]
        assert offer.freed == literals_of(fitted.rules) - literals_of(others)


@settings(deadline=None, max_examples=60)
@given(IDS, RULES, st.integers(0, 2**32 - 1))
def test_no_kind_beside_a_token_removes_more_than_its_bound(
    rows: list[list[int]], rules: list[list[str]], seed: int
) -> None:
    search, fitted = searched(rows, rules, seed)
    of_pairs = search.left(fitted)[-len(search.pairs) :]
    for back, (pairs, left) in enumerate(zip(search.pairs, of_pairs, strict=True)):
        for place, bound in enumerate(pairs.bounds(left)):
            assert search.removed(back, place, left).most <= KIND_GAIN * bound + 1e-9


def test_a_revision_may_spend_what_the_explainer_could() -> None:
    assert budget_of({"literals": 60, "characters": 300}, Budget()) == Budget(60, 300)
    assert budget_of({"literals": 60}, Budget()) == Budget(60, None)
    assert budget_of({"explainer": "person"}, Budget(10)) == Budget(10)
