"""A pattern gives every position the level of the rule that says most about it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxtools.errors import InputError
from nxtools.pattern.execute import execute
from nxtools.pattern.language import Atom, Pattern, Rule, Shift, parse, token
from nxtools.pattern.lexicon import Lexicon

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


def test_naming_a_token_goes_before_its_spelling_and_its_class() -> None:
    sentence = 'word-start (1); ending "ing" (4); " sing" (7); " ran" after " he" (2)'
    assert run(sentence, [" sing", " ran", " he", " ran"]) == [7, 1, 1, 2]


def test_spellings_and_classes_add_up() -> None:
    assert run('word-start (1); ending "ing" (4)', [" ring", " ran", "ing"]) == [5, 1, 4]


def test_they_add_up_from_the_background() -> None:
    assert run("capital (3); word-part (2); otherwise 1", ["The", "the", "."]) == [4, 2, 1]


def test_a_refusal_holds_whatever_else_speaks() -> None:
    assert run('word-start (3); not ending "ing"; " sing" (2)', [" ring", " ran", " sing"]) == [0, 3, 2]


def test_a_class_has_contexts_and_exceptions_like_a_token() -> None:
    sentence = 'capital (3, but 8 after ".", not after " Mr")'
    assert run(sentence, ["The", ".", "The", " Mr", "The"]) == [3, 0, 8, 3, 0]


def test_the_class_of_the_token_before_says_less_than_the_token_before() -> None:
    sentence = '" all" (1, but 4 after word-start, 7 after " not")'
    assert run(sentence, [" not", " all", " at", " all", ".", " all"]) == [0, 7, 0, 4, 0, 1]


def test_anything_after_a_token() -> None:
    sentence = '" all" (3); anything after " not" (8)'
    assert run(sentence, [" not", " all", " not", " at"]) == [0, 3, 0, 8]


def test_anything_in_a_context_is_a_gap_of_one_token() -> None:
    assert run('" all" after " not" anything (8)', [" not", " at", " all", " all"]) == [0, 0, 8, 0]


def test_both_signs_and_a_background() -> None:
    sentence = 'fires on " all" (9); goes negative on " not" (4); not " at"; otherwise 0.5'
    assert run(sentence, [" all", " not", " at", "The"]) == [9, -4, 0, 0.5]


def test_ids_that_share_a_text_are_one_token() -> None:
    ids = np.array([[0, 1, 2]], dtype=np.int32)
    assert execute(parse('"�" (10)'), ids, ["�", "�", "x"]).tolist() == [[1, 1, 0]]


def test_ids_without_a_text_match_nothing_but_anything() -> None:
    ids = np.array([[0, 5, 9]], dtype=np.int32)
    assert execute(parse('"a" (10); otherwise 1'), ids, {0: "a", 5: "b"}).tolist() == [
        pytest.approx([1, 0.1, 0.1])
    ]
    assert execute(parse("anything (10)"), ids, {0: "a", 5: "b"}).tolist() == [[1, 1, 1]]


def test_rows_do_not_see_each_other() -> None:
    ids = np.array([[0, 1], [1, 0]], dtype=np.int32)
    assert execute(parse('"b" after "a" (10)'), ids, ["a", "b"]).tolist() == [[0, 1], [0, 0]]


def test_like_takes_the_tokens_whose_embedding_points_the_same_way() -> None:
    embedding = np.random.default_rng(0).normal(size=(6, 400)).astype(np.float16)
    embedding[1] = embedding[0] + 0.3 * embedding[2]
    lexicon = Lexicon(["a", "b", "c", "d", "e", "f"], embedding)
    ids = np.arange(6, dtype=np.int32)[None]
    assert execute(parse('like "a" (10)'), ids, lexicon).tolist() == [[1, 1, 0, 0, 0, 0]]
    assert execute(parse('like "a" (10); "b" (3)'), ids, lexicon).tolist() == [
        [1, pytest.approx(0.3), 0, 0, 0, 0]
    ]
    assert execute(parse('like "absent" (10)'), ids, lexicon).tolist() == [[0] * 6]


def test_a_closer_likeness_has_fewer_tokens_and_says_more() -> None:
    """In 100 dimensions tokens are roughly alike from a cosine of 0.3 on, alike from 0.5, much from 0.7."""
    cosines = np.array([1.0, 0.75, 0.55, 0.35, 0.2])
    embedding = np.zeros((10, 100))
    embedding[:5, 0], embedding[:5, 1] = cosines, np.sqrt(1 - cosines**2)
    embedding[5:] = -embedding[:5]  # so that the mean is nothing
    lexicon = Lexicon([f" {letter}" for letter in "abcdefghij"], embedding)
    ids = np.arange(10)[None]
    for form, members in (("much-like", 2), ("like", 3), ("roughly-like", 4)):
        said = execute(parse(f'{form} " a" (10)'), ids, lexicon)[0]
        assert said.tolist() == [1.0] * members + [0.0] * (10 - members)
    both = execute(parse('much-like " a" (5); roughly-like " a" (2)'), ids, lexicon)[0]
    np.testing.assert_allclose(both[:5], [0.7, 0.7, 0.2, 0.2, 0.0], atol=1e-6)


def test_like_without_an_embedding_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(InputError, match="embedding"):
        execute(parse('like "a" (10)'), np.zeros((1, 2), dtype=np.int32), ["a"])


named = st.one_of(
    st.sampled_from(WORDS).map(token),
    st.sampled_from(["ing", "t", " "]).map(lambda text: Atom("ending", text)),
    st.sampled_from([" n", " a", "T"]).map(lambda text: Atom("starting", text)),
    st.sampled_from(["anything", "capital", "digit", "word-start"]).map(lambda name: Atom("class", name)),
)


@given(
    st.dictionaries(st.lists(named, min_size=1, max_size=3).map(tuple), st.integers(-100, 100), max_size=8),
    st.dictionaries(st.lists(named, min_size=1, max_size=2).map(tuple), st.integers(-100, 100), max_size=3),
    st.lists(st.lists(st.integers(0, len(WORDS) - 1), min_size=6, max_size=6), min_size=1, max_size=3),
    st.integers(-100, 100),
    st.integers(0, 100),
)
def test_execution_is_the_definition_read_position_by_position(
    rules: dict[tuple[Atom, ...], int],
    steps: dict[tuple[Atom, ...], int],
    rows: list[list[int]],
    early: int,
    lingering: int,
) -> None:
    background = 5
    shifts = tuple(Shift(context, step) for context, step in steps.items())
    pattern = Pattern(
        tuple(Rule(steps, level) for steps, level in rules.items()), background, shifts, early, lingering
    )
    lexicon = Lexicon(WORDS)

    def matches(steps: tuple[Atom, ...], row: list[int], last: int) -> bool:
        first = last - len(steps) + 1
        return first >= 0 and all(row[first + i] in lexicon.ids(atom) for i, atom in enumerate(steps))

    def expected(row: list[int], position: int) -> float:
        """Both fade by half every eight tokens, and what lingers adds up to its share of what was said."""
        kept = 0.5 ** (1 / 8)
        before = [(ruled(row, i) - background) * kept ** (position - i - 1) for i in range(position)]
        lingers = lingering / 10 * (1 - kept) * sum(before)
        return ruled(row, position) + lingers + early * kept**position

    def ruled(row: list[int], position: int) -> int:
        added = sum(shift.step for shift in shifts if matches(shift.context, row, position - 1))
        return said(row, position) + added

    def said(row: list[int], position: int) -> int:
        spoken: dict[Atom, Rule] = {}
        for rule in pattern.rules:
            before = spoken.get(rule.current)
            if matches(rule.steps, row, position) and (before is None or strength(rule) > strength(before)):
                spoken[rule.current] = rule
        for atom, rule in spoken.items():
            if atom.form == "token":
                return rule.level
        if any(rule.level == 0 for rule in spoken.values()):
            return 0
        return background + sum(rule.level - background for rule in spoken.values())

    def strength(rule: Rule) -> tuple[object, ...]:
        return rule.specificity, abs(rule.level), rule.level

    predicted = execute(pattern, np.array(rows, dtype=np.int32), lexicon)
    for row, levels in zip(rows, predicted, strict=True):
        assert levels.tolist() == pytest.approx(
            [expected(row, i) / 100 for i in range(len(row))], rel=1e-5, abs=1e-5
        )
