"""The plan: text cut into excerpts and dealt into sets, by hash, so that nothing leaks and nothing moves."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import passages, plan_of, tokenize

from nxtools.errors import InputError, UsageError
from nxtools.records import SETS
from nxtools.subject.excerpts import Cut, Plan, draws, set_of, text_digest
from nxtools.subject.making import make_plan
from nxtools.subject.text import Passage

FEW = 30  # documents


def excerpts(plan: Plan) -> dict[int, tuple[str, int, int, tuple[int, ...]]]:
    """By id: document, start, set, token ids."""
    ids = plan.ids(np.arange(plan.size))
    return {
        int(plan.id[place]): (
            plan.documents[plan.document[place]],
            int(plan.start[place]),
            int(plan.set[place]),
            tuple(ids[place].tolist()),
        )
        for place in range(plan.size)
    }


# Cutting


def test_every_whole_excerpt_of_a_document_is_there() -> None:
    text = passages(FEW, tokens=43)
    plan = plan_of(text)

    assert plan.size == FEW * 5 and plan.dropped["tail_tokens"] == FEW * 3
    words = {hashlib.sha256(p.text.encode()).hexdigest()[:16]: tokenize([p.text])[0] for p in text}
    for name, start, _, ids in excerpts(plan).values():
        assert words[name][start : start + 8] == list(ids)


def test_an_excerpt_is_named_by_its_token_ids() -> None:
    for name, (_, _, _, ids) in excerpts(plan_of(passages(FEW))).items():
        digest = hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest()
        assert f"{name:016x}" == digest[:16]


def test_contexts_hold_their_excerpts_in_slots() -> None:
    plan = plan_of(passages(FEW, tokens=60), context=32)
    for place in range(plan.size):
        context = plan.contexts[plan.context[place]]
        first = 8 * plan.slot[place]
        assert plan.ids(np.array([place]))[0].tolist() == context[first : first + 8].tolist()
    assert plan.start[plan.slot == 0].tolist() == [start // 32 * 32 for start in plan.start[plan.slot == 0]]
    assert plan.size == FEW * 7  # the last context of a document is filled up
    assert (np.diff(plan.context) >= 0).all()


def test_the_first_position_of_a_context_is_left_out_where_no_bos_stands_before_it() -> None:
    text = passages(FEW, tokens=32)
    every = np.arange(plan_of(text, context=16).size)
    plan = plan_of(text, context=16, masked_first=True)
    assert plan.counted(every)[:, 1:].all()
    assert (plan.counted(every)[:, 0] == (plan.slot > 0)).all()
    assert plan_of(text, context=16, masked_first=False).counted(every).all()


def test_one_window_per_document_lies_anywhere_in_it() -> None:
    text = passages(200, tokens=40)
    plan = plan_of(text, windows="one")
    assert sorted(plan.document.tolist()) == list(range(200))
    assert len(set(plan.start.tolist())) > 25  # of 33 places
    words = {hashlib.sha256(p.text.encode()).hexdigest()[:16]: tokenize([p.text])[0] for p in text}
    for name, start, _, ids in excerpts(plan).values():
        assert words[name][start : start + 8] == list(ids)


def test_an_excerpt_must_divide_the_context() -> None:
    with pytest.raises(UsageError, match="multiple of --excerpt"):
        Cut(context=64, excerpt=48)
    with pytest.raises(UsageError, match="one token"):
        Cut(context=64, excerpt=1)


# Documents


def test_paragraphs_are_joined_until_a_document_is_long_enough() -> None:
    words = [f"{number} {number}" for number in range(FEW * 3)]
    text = [Passage("a.txt", word, continues=number > 0) for number, word in enumerate(words)]
    plan = make_plan(text, tokenize, Cut(context=2, excerpt=2, document_tokens=4), masked_first=False)
    assert len(plan.documents) == FEW * 3 // 2
    joined = "\n\n".join(words[:2])
    assert hashlib.sha256(joined.encode()).hexdigest()[:16] in plan.documents


def test_what_is_left_at_the_end_of_a_file_joins_the_document_before_it() -> None:
    text = [
        Passage("a.txt", f"{20 * file + number} 7", continues=number > 0)
        for file in range(FEW)
        for number in range(5)
    ]
    plan = make_plan(text, tokenize, Cut(context=2, excerpt=2, document_tokens=6), masked_first=False)
    assert Counter(plan.document.tolist()) == dict.fromkeys(range(FEW), 5)


def test_documents_that_were_there_before_are_dropped() -> None:
    text = passages(FEW)
    again = [Passage("other-name", passage.text) for passage in text[:7]]
    plan, twice = plan_of(text), plan_of([*text, *again])
    assert twice.dropped["duplicate_documents"] == 7
    assert excerpts(twice) == excerpts(plan)


def test_the_corpus_under_other_names_twice_changes_nothing() -> None:
    text = passages(FEW)
    twice = plan_of([*text, *(Passage("copy/" + p.source, p.text) for p in text)])
    assert excerpts(twice) == excerpts(plan_of(text))
    for name in ("contexts", "priority", "draw", "pool_rank", "set"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(plan_of(text), name))


def test_equal_excerpts_stay_once_and_rather_in_the_evidence() -> None:
    shared = " ".join(["1"] * 8)
    text = [Passage("a", f"{p.text} {shared}") for p in passages(FEW, tokens=16)]
    plan = plan_of(text)
    found = [rest for rest in excerpts(plan).values() if rest[3] == (1,) * 8]
    assert len(found) == 1 and SETS[found[0][2]] == "evidence"
    assert plan.dropped["duplicate_excerpts"] == FEW - 1
    assert plan.size == FEW * 3 - (FEW - 1)


def test_short_documents_are_counted() -> None:
    plan = plan_of([*passages(FEW), *(Passage("short", f"{number} 1 2") for number in range(4))])
    assert plan.dropped["short_documents"] == 4 and len(plan.documents) == FEW


def test_fewer_than_twenty_documents_are_not_enough() -> None:
    with pytest.raises(InputError, match=r"19 documents .* 20 are needed .*--separator") as error:
        plan_of([*passages(19), *(Passage("short", f"{number}") for number in range(4))])
    assert error.value.exit_status == 3
    assert "4 were too short" in str(error.value)


def test_why_there_are_too_few_documents_is_said() -> None:
    with pytest.raises(InputError, match="there is no text"):
        plan_of([])
    with pytest.raises(InputError, match=r"0 documents of 8 tokens .*30 were too short.*smaller --excerpt"):
        plan_of([Passage("short", f"{number} 1 2") for number in range(30)])
    with pytest.raises(InputError, match=r"1 document of 8 tokens .* parted at blank lines"):
        plan_of(passages(1, tokens=5000))


def test_every_set_needs_an_excerpt() -> None:
    with pytest.raises(InputError, match=r"no excerpt is left for .*--seed"):
        plan_of(passages(FEW), draw=2)


# Sets


def test_a_document_is_of_one_set_by_its_text_alone() -> None:
    text = passages(400)
    plan = plan_of(text)
    for name, _, number, _ in excerpts(plan).values():
        assert number == set_of(name, 0)
    shares = np.bincount([set_of(name, 0) for name in plan.documents], minlength=3) / 400
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.08)


def test_another_seed_deals_anew() -> None:
    names = plan_of(passages(100)).documents
    assert [set_of(name, 0) for name in names] != [set_of(name, 1) for name in names]


@settings(max_examples=15, deadline=None)
@given(
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 3),
    draw=st.sampled_from([None, 60, 100]),
    windows=st.sampled_from(["all", "one"]),
    context=st.sampled_from([8, 16]),
)
def test_the_order_of_the_text_changes_nothing(
    order: Any, seed: int, draw: int | None, windows: str, context: int
) -> None:
    text = passages(80, seed=seed)
    cut = {"draw": draw, "seed": seed, "windows": windows, "context": context}
    shuffled = list(text)
    order.shuffle(shuffled)
    plan, other = plan_of(text, **cut), plan_of(shuffled, **cut)
    assert excerpts(plan) == excerpts(other)
    np.testing.assert_array_equal(plan.contexts, other.contexts)
    np.testing.assert_array_equal(plan.pool_rank, other.pool_rank)


# Drawing


def test_drawn_excerpts_are_those_with_the_lowest_numbers() -> None:
    whole, plan = plan_of(passages(100)), plan_of(passages(100), draw=120)
    number = draws(whole.id, 0, "draw")
    assert set(plan.id.tolist()) == set(whole.id[np.argsort(number)[:120]].tolist())
    assert set(plan_of(passages(100), draw=60).id.tolist()) < set(plan.id.tolist())


def test_pruning_on_the_way_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = [*passages(100), *passages(60, seed=1), *passages(100)[:50]]
    text += [Passage("echo", f"{p.text} {text[0].text}") for p in passages(60, seed=2)]
    plan = plan_of(text, draw=90, context=16)
    monkeypatch.setattr("nxtools.subject.making.PRUNE_FROM", 20)
    pruned = plan_of(text, draw=90, context=16)
    assert pruned.to_bytes() == plan.to_bytes()


def test_the_pool_is_the_lowest_draws_of_each_set() -> None:
    plan = plan_of(passages(100))
    for number, size in enumerate((20, 10, 10)):
        members = np.flatnonzero(plan.set == number)
        lowest = members[np.argsort(plan.draw[members])[:size]]
        assert plan.pool_rank[lowest].tolist() == list(range(size))
    assert (plan.pool_rank >= 0).sum() == 40


def test_numbers_by_hash_are_uniform_and_independent() -> None:
    names = np.arange(100_000, dtype=np.uint64)
    numbers = np.stack([draws(names, seed, purpose) for seed in (0, 1) for purpose in ("pool", "spread +")])
    uniform = numbers / 2.0**64
    np.testing.assert_allclose(uniform.mean(axis=1), 0.5, atol=0.005)
    correlation = np.corrcoef(uniform) - np.eye(4)
    assert abs(correlation).max() < 0.015


def test_contexts_pass_in_the_order_of_their_lowest_priority() -> None:
    plan = plan_of(passages(100), context=16)
    lowest = [int(plan.priority[plan.context == number].min()) for number in range(len(plan.contexts))]
    assert lowest == sorted(lowest)


# Bytes


def test_a_plan_reads_back() -> None:
    plan = plan_of(passages(FEW))
    back = Plan.from_bytes(plan.to_bytes())
    for name, value in vars(plan).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)
    assert back.to_bytes() == plan.to_bytes()
    assert list(back.dropped) == sorted(plan.dropped)


def test_the_digest_of_text_goes_by_text_and_cuts_and_not_by_names() -> None:
    def digest(*parts: tuple[str, str, bool]) -> str:
        return text_digest(Passage(*part) for part in parts)

    assert digest(("a", "one", False), ("a", "two", False)) == digest(
        ("b", "one", False), ("c", "two", False)
    )
    different = [
        digest(("a", "one", False), ("a", "two", False)),
        digest(("a", "one", False), ("a", "two", True)),
        digest(("a", "two", False), ("a", "one", False)),
        digest(("a", "onetwo", False)),
        digest(("a", "one", False), ("a", "two", False), ("a", "", False)),
    ]
    assert len(set(different)) == len(different)
