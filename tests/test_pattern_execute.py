"""A pattern gives every position the level of the rule that says most about it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxtools.pattern.execute import Lexicon, by_precedence, execute
from nxtools.pattern.language import Atom, Pattern, Rule, parse, token

WORDS = [" all", " not", " at", "The", "ing", " sing", ".", "7", " never", "�"]


def run(sentence: str, tokens: list[str]) -> list[float]:
    """Levels 0 to 10 for one excerpt of tokens."""
    vocabulary = sorted(set(tokens))
    ids = np.array([[vocabulary.index(text) for text in tokens]], dtype=np.int32)
    return [round(float(level) * 10, 1) for level in execute(parse(sentence), ids, vocabulary)[0]]


def test_a_token_has_its_strength_and_everything_else_has_none() -> None:
    assert run('" all" (9)', [" all", " not", " all"]) == [9, 0, 9]


def test_the_longest_context_that_fits_wins() -> None:
    sentence = '" all" (3, but 9 after " not", 1 after " at" " not")'
    assert run(sentence, [" all", " not", " all", " at", " not", " all"]) == [3, 0, 9, 0, 0, 1]


def test_an_exception_takes_the_strength_away() -> None:
    assert run('" all" (9, but not after " at" or " not")', [" at", " all", " all"]) == [0, 0, 9]


def test_a_token_goes_before_its_spelling_and_that_before_its_class() -> None:
    sentence = 'word-start (1); ending "ing" (4); " sing" (7)'
    assert run(sentence, [" sing", " ring", " ran"]) == [7, 4, 1]


def test_the_current_token_counts_more_than_the_context() -> None:
    assert run('" all" (3); anything after " not" (8)', [" not", " all", " not", " at"]) == [0, 3, 0, 8]


def test_anything_in_a_context_is_a_gap_of_one_token() -> None:
    assert run('" all" after " not" anything (8)', [" not", " at", " all", " all"]) == [0, 0, 8, 0]


def test_both_signs_and_a_background() -> None:
    sentence = 'fires on " all" (9); goes negative on " not" (4); not " at"; otherwise 0.5'
    assert run(sentence, [" all", " not", " at", "The"]) == [9, -4, 0, 0.5]


def test_of_two_classes_the_stronger_wins() -> None:
    assert run("capital (2); word-part (5)", ["The", "the", "A."]) == [5, 5, 2]


def test_ids_that_share_a_text_are_one_token() -> None:
    ids = np.array([[0, 1, 2]], dtype=np.int32)
    assert execute(parse('"�" (10)'), ids, ["�", "�", "x"]).tolist() == [[1, 1, 0]]


def test_ids_without_a_text_match_nothing() -> None:
    ids = np.array([[0, 5, 9]], dtype=np.int32)
    assert execute(parse('"a" (10); otherwise 1'), ids, {0: "a", 5: "b"}).tolist() == [
        pytest.approx([1, 0.1, 0.1])
    ]


def test_rows_do_not_see_each_other() -> None:
    ids = np.array([[0, 1], [1, 0]], dtype=np.int32)
    assert execute(parse('"b" after "a" (10)'), ids, ["a", "b"]).tolist() == [[0, 1], [0, 0]]


named = st.one_of(
    st.sampled_from(WORDS).map(token),
    st.sampled_from(["ing", "t", " "]).map(lambda text: Atom("ending", text)),
    st.sampled_from([" n", " a", "T"]).map(lambda text: Atom("starting", text)),
    st.sampled_from(["anything", "capital", "digit", "word-start"]).map(lambda name: Atom("class", name)),
)


@given(
    st.dictionaries(st.lists(named, min_size=1, max_size=3).map(tuple), st.integers(-100, 100), max_size=8),
    st.lists(st.lists(st.integers(0, len(WORDS) - 1), min_size=6, max_size=6), min_size=1, max_size=3),
)
def test_execution_is_the_definition_read_position_by_position(
    rules: dict[tuple[Atom, ...], int], rows: list[list[int]]
) -> None:
    pattern = Pattern(tuple(Rule(steps, level) for steps, level in rules.items()), 5)
    lexicon = Lexicon(WORDS)

    def matches(rule: Rule, row: list[int], position: int) -> bool:
        first = position - len(rule.steps) + 1
        return first >= 0 and all(
            row[first + i] in lexicon.ids(atom).tolist() for i, atom in enumerate(rule.steps)
        )

    predicted = execute(pattern, np.array(rows, dtype=np.int32), lexicon)
    for row, levels in zip(rows, predicted, strict=True):
        for position, level in enumerate(levels):
            matching = [rule for rule in by_precedence(pattern.rules) if matches(rule, row, position)]
            expected = matching[-1].level if matching else 5
            assert level == np.float32(expected) / 100
