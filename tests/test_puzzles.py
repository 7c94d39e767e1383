"""Puzzles: units whose truth is known, from their sentences to what is said of explainers and simulators."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import Run
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nxtools.errors import InputError
from nxtools.pattern.execute import execute
from nxtools.pattern.language import parse
from nxtools.puzzles.line import line
from nxtools.puzzles.marked import read
from nxtools.puzzles.puzzle import Puzzle, imported, ours
from nxtools.puzzles.results import Result, results, totals
from nxtools.records import SETS, check_unit
from nxtools.stream import dump
from nxtools.unit import Unit

Record = dict[str, Any]

PUZZLES = ours()
EVERY = pytest.mark.parametrize("puzzle", PUZZLES, ids=[puzzle.name for puzzle in PUZZLES])
PAGE = (Path(__file__).parents[1] / "docs" / "commands" / "nx-puzzles.md").read_text(encoding="utf-8")


# Marked sentences


def test_marks_name_tokens_and_strengths() -> None:
    sentence = read("Not «all» of «the guests=4» had «come=0.5».")
    assert sentence.tokens == ("Not", " all", " of", " the", " guests", " had", " come", ".")
    assert sentence.activations == (0, 10, 0, 4, 4, 0, 0.5, 0)
    assert read("a «b»↵c").tokens == ("a", " b", "\n", "c")


@given(
    st.lists(
        st.sampled_from(["all", "3141", "don't", "“So”", "</p>", "x += 1", "snake_case", "…", "¿"]),
        min_size=1,
    )
)
def test_tokens_are_the_text(words: list[str]) -> None:
    plain = read(" ".join(words))
    assert "".join(plain.tokens) == " ".join(words)
    assert not any(plain.activations)
    marked = read(" ".join(f"«{word}»" for word in words))
    assert marked.tokens == plain.tokens
    assert marked.activations == tuple(10.0 for _ in plain.tokens)


@pytest.mark.parametrize("wrong", ["«all", "all»", "«»", "« »", "«all=11»"])
def test_marks_that_are_none_are_refused(wrong: str) -> None:
    with pytest.raises(InputError):
        read(wrong)


# Ours


def test_they_cover_what_they_are_for() -> None:
    assert len(PUZZLES) >= 24
    assert {puzzle.kind for puzzle in PUZZLES} >= {
        "token", "phrase", "negation", "follows", "position", "repetition", "counting", "pattern break",
        "code", "markup", "wrong facts", "similes", "quotes", "casing", "languages",
    }  # fmt: skip
    assert {puzzle.difficulty for puzzle in PUZZLES} == {1, 2, 3, 4, 5}
    assert len({puzzle.name for puzzle in PUZZLES}) == len(PUZZLES)


@EVERY
def test_each_set_has_sentences_of_both_sorts_and_of_its_own(puzzle: Puzzle) -> None:
    for which, enough in zip(SETS, (10, 6, 9), strict=True):
        sentences = puzzle.sentences[which]
        firing = sum(sentence.peak > 0 for sentence in sentences)
        assert len(sentences) >= enough and min(firing, len(sentences) - firing) >= 3
    every = ["".join(sentence.tokens) for of_set in puzzle.sentences.values() for sentence in of_set]
    assert len(set(every)) == len(every)
    assert len(puzzle.false) == 3


@EVERY
def test_a_truth_that_is_a_pattern_reproduces_the_marks(puzzle: Puzzle) -> None:
    for said in (puzzle.truth, *puzzle.false):
        if said.pattern is None:
            continue
        pattern = parse(said.pattern)
        exact = [
            (execute(pattern, np.arange(len(s.tokens))[None], list(s.tokens))[0] * 10).round(3).tolist()
            == list(s.activations)
            for of_set in puzzle.sentences.values()
            for s in of_set
        ]
        assert all(exact) if said is puzzle.truth else not all(exact), said.text


@EVERY
def test_it_is_a_unit_line(puzzle: Puzzle) -> None:
    record = line(puzzle, 7)
    check_unit(record)
    unit = Unit(record)
    for which in SETS:
        shown = unit.shown(which)
        assert set(shown.picks) == {"top", "random"}
        tops = np.nanmax(shown.table.activations, axis=1)[: shown.picks.count("top")]
        assert np.all(tops > 0) and np.all(np.diff(tops) <= 0)
        random = np.nanmax(shown.table.activations, axis=1)[shown.picks.count("top") :]
        assert (random > 0).any() and not (random > 0).all()
    assert [e["candidate"] for e in record["explanations"]] == ["truth", *["false"] * 3, "tokens"]
    assert len({e["id"] for e in record["explanations"]}) == 5


def test_the_commonest_strong_tokens() -> None:
    (weekdays,) = [puzzle for puzzle in PUZZLES if puzzle.name == "weekdays"]
    assert weekdays.commonest is not None
    assert weekdays.commonest.text == '" Monday", " Sunday" or " Friday"'


# The whole way, and what the page says of it


def row(result: Record) -> str:
    false = [value for value in result["false"] if value is not None]
    cells = [
        result["puzzle"]["name"],
        result["puzzle"]["kind"],
        str(result["puzzle"]["difficulty"]),
        "absent" if result["answer"] is None else f"{result['answer']:.2f}",
        "" if result["truth"] is None else f"{result['truth']:.2f}",
        f"{max(false):.2f}" if false else "absent",
        "" if result["rank"] is None else f"{result['rank']} of {result['candidates'] + 1}",
    ]
    return f"| {' | '.join(cells)} |"


def test_the_pattern_explainer_solves_what_it_can_express_as_the_page_shows(run: Run) -> None:
    done = run("nx-puzzles | nx-explain -q | nx-score -q --baselines none > s; nx-puzzles --score --json s")
    assert (done.returncode, done.stderr) == (0, b"")
    *found, total = map(orjson.loads, done.stdout.splitlines())
    assert [r["puzzle"]["name"] for r in found] == [puzzle.name for puzzle in PUZZLES]
    expressible = {"token", "phrase", "negation", "casing", "repetition", "spelling"}
    by_name = {puzzle.name: puzzle for puzzle in PUZZLES}
    for r in found:
        puzzle = by_name[r["puzzle"]["name"]]
        if puzzle.truth.pattern is not None:
            assert r["truth"] == 1 and r["truth_first"] is True
            assert (r["answer"] is not None and r["answer"] >= 0.8) or puzzle.kind not in expressible
        else:
            assert r["truth"] is None and r["truth_first"] is None
    assert [line for line in PAGE.splitlines() if re.match(r"\| [a-z-]+ \| .* \| \d \|", line)] == [
        *map(row, found)
    ]
    for name in ("answer_first", "answer_over_0.8"):
        assert f"{total[name]['count']} of {total[name]['n']}" in PAGE
    told = run("nx-puzzles --score s").stdout.decode()
    assert told.startswith("explained by pattern, simulated by pattern\n")
    assert f"answer: mean {total['answer']['mean']:.2f} (n {total['answer']['n']}, 95%" in told


def test_simulations_pass_over_words_that_no_pattern_says(run: Run) -> None:
    done = run("nx-puzzles --only weekdays,french | nx-simulate -q")
    assert done.returncode == 0
    for record in map(orjson.loads, done.stdout.splitlines()):
        for explanation in record["explanations"]:
            assert bool(explanation.get("simulations")) == (explanation["pattern"] is not None)


def test_usage(run: Run) -> None:
    for wrong in (
        "nx-puzzles x.jsonl",
        "nx-puzzles --json",
        "nx-puzzles --score --only a",
        "nx-puzzles --only nosuch",
    ):
        done = run(wrong)
        assert (done.returncode, done.stdout) == (2, b""), wrong
    none = run(
        "nx-puzzles --score",
        stdin=dump({"kind": "unit", "v": 1, "unit": {"layer": 0, "index": 1}, "excerpts": []}),
    )
    assert none.returncode == 3 and b"this unit is no puzzle" in none.stderr
    assert run("nx-puzzles --only negation | wc -l").stdout.strip() == b"2"


# The paper's form


def exported(puzzle: Puzzle) -> Record:
    return {
        "name": puzzle.name,
        "explanation": puzzle.truth.text,
        "false_explanations": [said.text for said in puzzle.false],
        "sentences": [
            [[t, v] if v else t for t, v in zip(s.tokens, s.activations, strict=True)]
            for of_set in puzzle.sentences.values()
            for s in of_set
        ],
    }


def test_a_file_in_the_papers_form_is_read(run: Run) -> None:
    given = [exported(puzzle) for puzzle in PUZZLES]
    for puzzle, other in zip(PUZZLES, imported(given), strict=True):
        assert {s for of_set in other.sentences.values() for s in of_set} == {
            s for of_set in puzzle.sentences.values() for s in of_set
        }
        for which in SETS:
            assert any(s.peak for s in other.sentences[which]) and not all(
                s.peak for s in other.sentences[which]
            )
        assert other.truth.text == puzzle.truth.text and len(other.false) == 3
    pipe = "nx-puzzles --import p.json | nx-explain -q | nx-score -q --baselines none | nx-puzzles --score"
    by_name = {entry["name"]: entry for entry in given}  # as the paper's code has them
    assert imported(by_name) == imported(given)
    done = run(f"cat > p.json; {pipe}", stdin=dump(dict(list(by_name.items())[:3])))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines()[2].startswith(PUZZLES[0].name)


def test_where_only_three_sentences_fire_one_of_them_is_held_out() -> None:
    sentences = [[["a", 10], "b"], ["c", ["a", 5]], [["a", 1], "d"], ["b", "c"]]
    (puzzle,) = imported({"x": {"explanation": "a", "sentences": sentences}})
    firing = {which: sum(s.peak > 0 for s in puzzle.sentences[which]) for which in SETS}
    assert (puzzle.name, firing) == ("x", {"evidence": 2, "validation": 0, "held-out": 1})


@pytest.mark.parametrize(
    "wrong",
    [{}, [], {"a": 3}, [{"name": "a"}], [{"name": "a", "explanation": "b", "sentences": [[3]]}]],
)
def test_another_form_is_refused(run: Run, wrong: Any) -> None:
    with pytest.raises(InputError):
        imported(wrong)


# What is said of them


def scored(truth: float | None, false: list[float | None], answer: float | None) -> Record:
    def told(value: float | None, **more: Any) -> Record:
        return {"text": "t", "scores": [{"simulator": "s", "top_and_random": value}], **more}

    return {
        "puzzle": {"name": "p", "kind": "k", "difficulty": 1},
        "explanations": [
            told(truth, candidate="truth"),
            *(told(value, candidate="false") for value in false),
            told(answer, by={"explainer": "e"}),
        ],
    }


SCORES = st.one_of(st.none(), st.floats(-1, 1))


@given(SCORES, st.lists(SCORES, min_size=1, max_size=4), SCORES)
def test_ranks(truth: float | None, false: list[float | None], answer: float | None) -> None:
    (result,) = results(scored(truth, false, answer))
    there = [value for value in (truth, *false) if value is not None]
    assert result.candidates == 1 + len(false)
    if answer is None:
        assert result.rank is None
    else:
        assert result.rank == 1 + sum(value > answer for value in there)
    assert result.truth_first == (truth is not None and truth == max(there))


def made(answer: float | None) -> Result:
    return Result("p", "k", 1, "e", "s", "t", answer, 0.9, (0.1,), True)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20, unique=True))
def test_the_intervals_are_those_of_the_books(values: list[float]) -> None:
    (total,) = totals([made(value) for value in values] + [made(None)])
    margin = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    assert total["answer"]["n"] == len(values) and total["answer"]["absent"] == 1
    assert total["answer"]["interval"] == pytest.approx(
        [np.mean(values) - margin, np.mean(values) + margin], rel=2e-3, abs=1e-9
    )
    good = sum(value >= 0.8 for value in values)
    wilson = stats.binomtest(good, len(values) + 1).proportion_ci(method="wilson")
    assert total["answer_over_0.8"]["interval"] == pytest.approx(
        [wilson.low, wilson.high], rel=1e-3, abs=1e-9
    )
