"""The sentence shown is the program: what is printed reads back as the same rules, whatever it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxtools.errors import InputError
from nxtools.pattern.atoms import FORMS
from nxtools.pattern.language import CLASSES, Atom, Pattern, Rule, Shift, parse, token

HOSTILE = [
    '"',
    "'",
    "\\",
    "\n",
    "\t",
    "\r",
    "�",
    "“",
    ";",
    " (9)",
    "after",
    " or ",
    "not",
    "\ud800",
    "\0",
    "\xa0",
]
texts = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=8), st.text("\"'\\nu{}", min_size=1))
atoms = st.one_of(
    st.builds(token, texts),
    st.builds(Atom, st.sampled_from([form for form in FORMS if form not in ("token", "class")]), texts),
    st.builds(Atom, st.just("class"), st.sampled_from(sorted(CLASSES))),
)
steps = st.lists(atoms, min_size=1, max_size=4).map(tuple)
levels = st.integers(-100, 100)
patterns = st.builds(
    lambda rules, otherwise, shifts, early, lingering: Pattern(
        tuple(Rule(s, level) for s, level in rules.items()),
        otherwise,
        tuple(Shift(context, step) for context, step in shifts.items()),
        early,
        lingering,
    ),
    st.dictionaries(steps, levels, max_size=12),
    levels,
    st.dictionaries(steps, levels, max_size=5),
    levels,
    st.integers(0, 100),
)


@given(patterns)
def test_what_is_printed_reads_back_as_the_same_pattern(pattern: Pattern) -> None:
    assert parse(str(pattern)) == pattern


@given(patterns)
def test_reading_and_printing_again_changes_no_character(pattern: Pattern) -> None:
    assert str(parse(str(pattern))) == str(pattern)


@given(patterns)
def test_the_printed_sentence_is_one_line_that_can_be_seen(pattern: Pattern) -> None:
    assert str(pattern).isprintable()


@given(patterns)
def test_no_rule_is_lost_and_shared_names_count_once(pattern: Pattern) -> None:
    assert len({rule.steps for rule in pattern.rules}) == len(pattern.rules)
    before = sum(len(shift.context) for shift in pattern.shifts)
    before += (pattern.early != 0) + (pattern.lingering != 0)
    assert pattern.literals <= before + sum(len(rule.steps) for rule in pattern.rules)


CANONICAL = {
    '" all"': '" all" (10)',
    "' all' after ' not' (strong)": '" all" after " not" (8)',
    '" all" (9 , but 2 after " at" , not after " in")': '" all" (9, but 2 after " at", not after " in")',
    '" a" (5), " b" (5); " c" (very strong)': '" c" (10); " a" or " b" (5)',
    '" a", " b" and " c" (moderate)': '" a", " b" or " c" (5)',
    'Fires on "x" (3); goes NEGATIVE on "y" (8, but +2 after digit)': (
        'fires on "x" (3); goes negative on "y" (8, but +2 after digit)'
    ),
    'negative on "y"': 'goes negative on "y" (10)',
    '"y" (-4)': 'goes negative on "y" (4)',
    '" all" after " not" (strong); " none"; not after "at"': (
        '" none" (10, but not after "at"); " all" after " not" (8)'
    ),
    'capital (5), not " I", otherwise .5.': 'capital (5); not " I"; otherwise 0.5',
    'ending in "ing" (4); starting with " un" (3)': 'ending "ing" (4); starting " un" (3)',
    "“ curly ” (2)": '" curly " (2)',
    '"t" after "do" "n" or "ca" "n" (6)': '"t" after "do" "n" or "ca" "n" (6)',
    "otherwise 0": "otherwise 0",
    'goes negative on "b"; after " of" and like " the" (+2), " c"; after "d" (-.5)': (
        'goes negative on "b" or " c" (10); after " of" or like " the" (+2); after "d" (-0.5)'
    ),
    'goes negative on "b"; Lingering .3 and early (+2), after "c" (-1); otherwise faint': (
        'goes negative on "b" (10); after "c" (-1); early (+2); lingering 0.3; otherwise 1'
    ),
}


@pytest.mark.parametrize("typed", CANONICAL)
def test_a_person_can_type_freely_and_sees_the_one_way_of_saying_it(typed: str) -> None:
    assert str(parse(typed)) == CANONICAL[typed]


NO_PATTERNS = {
    "": ("at its end (character 1)", "it is empty"),
    '" all" (strng)': ("from character 9 on: strng)", "strength"),
    '" all" (11)': ("from character 9 on: 11)", "from -10 to 10"),
    '" all" (5': ("at its end (character 10)", 'expected ")"'),
    '" all" aftr " not"': ("from character 8 on: aftr", "expected"),
    '" all" after (5)': ("from character 14 on: (5)", "expected a token in quotes or a class"),
    '"" (5)': ('from character 1 on: "" (5)', "cannot be empty"),
    '"\\q" (5)': ("from character 2 on: \\q", "no such escape"),
    '"\\u{110000}"': ("from character 2 on", "no such character"),
    '" all (5)': ('from character 1 on: " all (5)', "not closed"),
    '"a" (4); "a" (5)': ('from character 10 on: "a" (5)', 'a second strength for "a"'),
    'after " of" (2)': ("from character 14 on: 2)", "what is added has a sign"),
    'after " of"; "a"': ('from character 12 on: ; "a"', "expected what is added"),
    'after "a" (+1); after "a" (+2)': ('from character 23 on: "a" (+2)', 'a second step after "a"'),
    "not after 'a'": ("at its end", "needs a token before it"),
    'otherwise 3; "a"': ('from character 14 on: "a"', "nothing can follow"),
    '"a" (5) * "b"': ("from character 9 on: *", "not expected here"),
    "fires in 'a'": ("from character 7 on: in", 'expected "on"'),
    "fires on nouns": ("from character 10 on: nouns", "expected a token in quotes or a class"),
}


@pytest.mark.parametrize("typed", NO_PATTERNS)
def test_a_sentence_that_is_no_pattern_says_where_it_stops_making_sense(typed: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(typed)
    for part in NO_PATTERNS[typed]:
        assert part in str(caught.value)


def test_a_misspelt_word_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match="did you mean strong"):
        parse('" all" (strng)')


@given(st.text(st.sampled_from("\"'()a;, 5\\.notafter"), max_size=30))
def test_any_text_is_a_pattern_or_an_input_error(text: str) -> None:
    try:
        pattern = parse(text)
    except InputError:
        return
    assert parse(str(pattern)) == pattern
