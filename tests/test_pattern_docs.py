"""Everything that docs/pattern-language.md shows happens as it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nxtools.errors import InputError
from nxtools.pattern.atoms import CLASSES, FORMS, LIKENESSES
from nxtools.pattern.execute import execute
from nxtools.pattern.fit import LEVELS, Budget
from nxtools.pattern.language import parse
from nxtools.pattern.reading import WORDS_FOR_LEVELS

PAGE = (Path(__file__).parents[1] / "docs" / "pattern-language.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```pattern\nsentence  (.*)\ntokens    (.*)\nlevels    (.*)\n```", PAGE)


def table(heading: str) -> list[tuple[str, str]]:
    rows = re.search(rf"\| {heading} \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE)
    assert rows is not None
    return [(a, b) for a, b in re.findall(r"^\| (.*) \| (.*) \|$", rows[1], re.MULTILINE)]


def test_all_examples_are_found() -> None:
    assert len(EXAMPLES) == PAGE.count("```pattern") == 12


@pytest.mark.parametrize(("sentence", "tokens", "levels"), EXAMPLES)
def test_an_example_runs_as_shown(sentence: str, tokens: str, levels: str) -> None:
    texts = tokens.replace("·", " ").split("|")
    vocabulary = sorted(set(texts))
    ids = np.array([[vocabulary.index(text) for text in texts]])
    predicted = execute(parse(sentence), ids, vocabulary)[0] * 10
    assert predicted.tolist() == pytest.approx([float(level) for level in levels.split("|")], abs=1e-5)


@pytest.mark.parametrize("sentence", [sentence for sentence, _, _ in EXAMPLES])
def test_an_example_is_written_as_the_language_says_it(sentence: str) -> None:
    assert str(parse(sentence)) == sentence


@pytest.mark.parametrize(("typed", "said"), table(r"typed \| said"))
def test_what_is_typed_is_said_as_shown(typed: str, said: str) -> None:
    assert str(parse(typed.strip("`"))) == said.strip("`")


@pytest.mark.parametrize(("typed", "answer"), table(r"typed \| answer"))
def test_what_is_refused_is_refused_as_shown(typed: str, answer: str) -> None:
    with pytest.raises(InputError) as refused:
        parse(typed.strip("`"))
    assert str(refused.value).startswith(answer + " -- ")


def test_the_table_names_every_class_and_form() -> None:
    named = [written.strip("`") for written, _ in table(r"written \| stands for")]
    likenesses = {f'{form} " said"' for form in LIKENESSES}
    assert set(named) == {'"ing"', 'ending "ing"', 'starting " un"', *likenesses, *CLASSES}


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"at most {Budget().literals} *literals*" in PAGE
    assert f"{Budget().characters} characters" in PAGE
    assert ", ".join(f"{level / 10:g}" for level in LEVELS[::-1]) in PAGE
    assert all(f"{deviations:g}/√d" in PAGE for deviations in LIKENESSES.values())
    assert all(f'"{form}"' in PAGE for form in FORMS if form not in ("token", "class"))
    words = ", ".join(f"{word} ({level // 10})" for word, level in WORDS_FOR_LEVELS.items())
    assert words in PAGE
