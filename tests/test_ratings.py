"""What people say of explanations: their judgements on unit lines, and how scores agree with them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import UNITS, Run
from gguf_model import CHAT, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from nxtools.errors import InputError
from nxtools.score.agreement import alpha, kendall, measured, measured_share, spearman
from nxtools.score.people import People
from nxtools.score.ratings import Ratings, check_rating, preferences, text_digest
from nxtools.stream import Record

LEVELS = st.integers(1, 5)
ONE = st.lists(st.tuples(st.integers(0, 6), LEVELS), min_size=2, max_size=30)


def once(rows: int) -> Any:
    return np.ones((rows, 1))


# The formulas


@given(ONE)
@settings(deadline=None, max_examples=80)
def test_rank_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    x, y = (np.array(column, float) for column in zip(*pairs, strict=True))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(spearman(x, y, once(len(x)))[0]) and np.isnan(kendall(x, y, once(len(x)))[0])
        return
    assert spearman(x, y, once(len(x)))[0] == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)
    assert kendall(x, y, once(len(x)))[0] == pytest.approx(kendalltau(x, y).statistic, abs=1e-9)


@pytest.mark.parametrize("rows", [20, 700])  # more than are compared at a time
def test_a_row_that_weighs_two_is_two_rows(rows: int) -> None:
    rng = np.random.default_rng(rows)
    x, y, times = rng.integers(0, 9, rows), rng.integers(1, 6, rows), rng.integers(0, 3, rows)
    x, y = x.astype(float), (x / 2 + y).round()
    weights = times[:, None].astype(float)
    many = np.repeat(x, times), np.repeat(y, times)
    assert spearman(x, y, weights)[0] == pytest.approx(spearmanr(*many).statistic, abs=1e-9)
    assert kendall(x, y, weights)[0] == pytest.approx(kendalltau(*many).statistic, abs=1e-9)
    lists = [list(map(int, rng.integers(1, 6, rng.integers(1, 4)))) for _ in range(rows)]
    repeated = [one for one, n in zip(lists, times, strict=True) for _ in range(n)]
    whole = alpha(repeated, range(1, 6), once(len(repeated)))[0]
    assert alpha(lists, range(1, 6), weights)[0] == pytest.approx(whole, abs=1e-9)


@given(st.lists(st.lists(LEVELS, min_size=1, max_size=4), min_size=2, max_size=12))
@settings(deadline=None, max_examples=60)
def test_alpha_is_disagreement_over_that_of_any_two_ratings(ratings: list[list[int]]) -> None:
    """By counting pairs one by one: Krippendorff's definition, without the matrices."""
    pairable = [one for one in ratings if len(one) > 1]
    everything = [value for one in pairable for value in one]

    def distance(a: int, b: int) -> float:
        low, high = min(a, b), max(a, b)
        between = sum(low <= value <= high for value in everything)
        return (between - (everything.count(a) + everything.count(b)) / 2) ** 2 if a != b else 0.0

    expected = sum(distance(a, b) for a, b in itertools.permutations(everything, 2))
    found = alpha(ratings, range(1, 6), once(len(ratings)))[0]
    if not expected:
        assert np.isnan(found)
        return
    observed = sum(
        distance(a, b) / (len(one) - 1) for one in pairable for a, b in itertools.permutations(one, 2)
    )
    n = len(everything)
    assert found == pytest.approx(1 - (observed / n) / (expected / (n * (n - 1))), abs=1e-9)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Some units are easier than others; they have one to three explanations and one to five pairs each."""
    inside, runs, rng = {"spearman": 0, "preferred": 0}, 150, np.random.default_rng(0)

    def rows(units: int) -> tuple[Any, Any, list[str]]:
        of = np.repeat(np.arange(units), rng.integers(1, 4, units))
        x = rng.normal(size=len(of)) + rng.normal(size=units)[of] / 2
        y = np.clip((0.7 * x + 0.7 * rng.normal(size=len(of)) + 3).round(), 1, 5)
        return x, y, [f"{unit:05}" for unit in of]

    truth = spearmanr(*rows(40_000)[:2]).statistic
    for _ in range(runs):
        x, y, units = rows(12)
        found = measured(lambda weights, x=x, y=y: spearman(x, y, weights), units).interval
        assert found is not None
        inside["spearman"] += found[0] <= truth <= found[1]
        of = np.repeat(np.arange(12), rng.integers(1, 6, 12))
        right = (rng.random(len(of)) < rng.beta(3, 1, 12)[of]).astype(float)
        share = measured_share(right, [f"{unit:05}" for unit in of]).interval
        assert share is not None
        inside["preferred"] += share[0] <= 0.75 <= share[1]
    assert all(0.9 <= count / runs <= 1 for count in inside.values()), inside


def test_few_that_are_all_right_are_not_certain() -> None:
    units = [f"u{number}" for number in range(6)]
    found = measured_share(np.ones(6), units)
    assert (found.value, found.n, found.units) == (1.0, 6, 6)
    assert found.interval is not None and found.interval[0] < 0.8 and found.interval[1] == 1.0
    assert measured_share(np.ones(4), units[:4]).interval is None  # of so few units nothing can be said
    assert measured_share(np.ones(0), []).value is None


# Judgements


def rating(text: str, value: int, *, index: int = 0, rater: str = "ada", time: str = "2026-01-01") -> Record:
    return judgement(index, rater, time) | {"explanation": text_digest(text), "rating": value}


def judgement(index: int = 0, rater: str = "ada", time: str = "2026-01-01") -> Record:
    unit = {"fingerprint": "f", "site": "mlp", "layer": 0, "index": index, "sign": "+"}
    return {"kind": "rating", "v": 1, "unit": unit, "rater": rater, "time": time}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rating": 6}, "is 6, not 1"),
        ({"rating": True}, "not an integer"),
        ({"explanation": 3}, "'explanation'"),
        ({"written": "x"}, "rating and written"),
        ({"kind": "unit"}, "not 'rating'"),
        ({"rater": 5}, "'rater'"),
    ],
)
def test_what_is_no_judgement_is_an_error(change: Record, complaint: str) -> None:
    check_rating(rating("a", 3))
    with pytest.raises(InputError, match=complaint):
        check_rating(rating("a", 3) | change)


@pytest.mark.parametrize("ranked", [["a"], ["a", "a"], ["a", ["b", 3]], [["a", "b"]]])
def test_a_ranking_names_several_explanations_once(ranked: list[Any]) -> None:
    check_rating(judgement() | {"ranked": ["a", ["b", "c"]]})
    with pytest.raises(InputError, match="ranked"):
        check_rating(judgement() | {"ranked": ranked})


def test_the_later_of_two_judgements_counts_whatever_their_order() -> None:
    early, late = rating("a", 2, time="2026-01-01T10:00:00Z"), rating("a", 5, time="2026-01-01T11:00:00Z")
    for lines in ([early, late], [late, early]):
        ratings = Ratings()
        for one in [*lines, rating("a", 1, rater="bob")]:
            ratings.add(one)
        line = {"unit": early["unit"], "ratings": []}
        assert sorted(one["rating"] for one in ratings.take(line)) == [1, 5]
        assert len(ratings) == 0


def test_preferences_come_from_ratings_and_rankings_and_not_from_ties() -> None:
    said = [
        {"explanation": "a", "rating": 5},
        {"explanation": "b", "rating": 2},
        {"explanation": "c", "rating": 2},
        {"rater": "bob", "ranked": ["c", ["a", "b"]]},
        {"rater": "cy", "ranked": ["b", "a"]},
    ]
    assert sorted(preferences(said)) == [
        *[("", "a", "b"), ("", "a", "c")],
        *[("bob", "c", "a"), ("bob", "c", "b")],
        ("cy", "b", "a"),
    ]


def unit(index: int, scores: dict[str, float | None], judgements: list[Record]) -> Record:
    found = [
        {"text": text, "scores": [{"method": "correlation", "simulator": "s", "top_and_random": score}]}
        for text, score in scores.items()
    ]
    return judgement(index) | {"explanations": found, "ratings": judgements}


def test_scores_are_compared_with_mean_ratings_and_with_preferences() -> None:
    """Against SciPy and counting, on units made so that people mostly follow the score."""
    rng, people = np.random.default_rng(3), People()
    x, y, right, gaps = [], [], [], []
    for index in range(25):
        scores = {f"{index} {name}": round(float(rng.random()), 3) for name in "abc"}
        said: list[Record] = []
        values = {}
        for text, score in scores.items():
            two = [int(np.clip(1 + 4 * score + rng.normal(), 1, 5)) for _ in range(2)]
            said += [rating(text, value, rater=who) for who, value in zip(("ada", "bob"), two, strict=True)]
            values[text] = two
            x.append(score)
            y.append(sum(two) / 2)
        for one, other in itertools.combinations(scores, 2):
            for a, b in zip(values[one], values[other], strict=True):
                if a != b:
                    gaps.append(abs(scores[one] - scores[other]))
                    right.append((a > b) == (scores[one] > scores[other]))
        people.add(unit(index, scores, said))
    ((method, by),) = people.columns()
    found = people.figures((method, by))
    assert found["spearman"].value == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)
    assert found["kendall"].value == pytest.approx(kendalltau(x, y).statistic, abs=1e-9)
    assert (found["spearman"].n, found["spearman"].units) == (75, 25)
    assert found["preferred"].value == pytest.approx(np.mean(right), abs=1e-9)
    narrow = [one for one, gap in zip(right, gaps, strict=True) if gap < 0.05]
    assert found["preferred, under 0.05 apart"].n == len(narrow)
    wide = [one for one, gap in zip(right, gaps, strict=True) if gap >= 0.4]
    assert found["preferred, 0.4 and more apart"].value == pytest.approx(np.mean(wide), abs=1e-9)
    assert found["preferred, 0.4 and more apart"].value > found["preferred, under 0.05 apart"].value
    among = people.among()
    assert among["alpha"].n == 75 and 0.3 < among["alpha"].value < 1
    assert among["preferred"].n > 20
    told = people.lines()
    assert "2 raters, 150 judgements of 25 units" in told[0] and "correlation by s" in told[0]


def test_what_has_no_score_is_left_out_and_what_is_on_no_line_is_counted() -> None:
    people = People()
    said = [rating("a", 1), rating("b", 4), rating("c", 5), rating("gone", 2)]
    people.add(unit(0, {"a": 0.5, "b": None, "c": 0.5}, said))
    column = ("correlation", "s")
    assert people.figures(column)["spearman"].n == 2
    assert people.figures(column)["spearman"].value is None  # all scores are equal
    assert people.figures(column)["preferred"].value == 0.5  # c before a, of equal scores
    assert (people.without(column), people.unknown) == (1, 1)
    assert people.lines()[-2].split() == ["rated", "without", "a", "score", "1"]
    assert people.lines()[-1] == "1 judged explanations are on no line"


# The command


@pytest.fixture
def explained(run: Run, tmp_path: Path) -> list[Record]:
    """Golden units with two explanations each, one of them short."""
    short = f"nx-explain -q --literals 1 {UNITS} | nx-explain -q --literals 6 -o {tmp_path}/two.jsonl"
    done = run(short)
    assert done.returncode == 0, done.stderr
    return [orjson.loads(line) for line in (tmp_path / "two.jsonl").read_bytes().splitlines()]


def ratings_of(lines: list[Record], rater: str) -> bytes:
    """The second explanation of every unit is liked."""
    found = []
    for line in lines:
        for place, one in enumerate(line.get("explanations") or ()):
            about = {"explanation": text_digest(one["text"]), "rating": 2 + 2 * place}
            found.append({"kind": "rating", "v": 1, "unit": line["unit"], "rater": rater, **about})
    return b"".join(orjson.dumps(one) + b"\n" for one in found)


@pytest.mark.parametrize("method", ["correlation", "detection"])
def test_a_pipe_puts_judgements_on_the_lines_and_says_how_scores_agree(
    run: Run, tmp_path: Path, explained: list[Record], method: str
) -> None:
    (tmp_path / "ada.jsonl").write_bytes(ratings_of(explained, "ada"))
    (tmp_path / "bob.jsonl").write_bytes(ratings_of(explained[:1], "bob"))
    files = [f"--ratings={tmp_path}/{name}.jsonl" for name in ("ada", "bob")]
    words = ["nx-score", "--method", method, "--allow-errors", "100%"]
    done = run(*words, *files, tmp_path / "two.jsonl")
    assert done.returncode == 0, done.stderr
    assert b"agreement with people, 95% (2 raters" in done.stderr
    assert b"rank correlation (Spearman)" in done.stderr
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert {one["rater"] for one in lines[0]["ratings"]} == {"ada", "bob"}
    assert "kind" not in lines[0]["ratings"][0] and "unit" not in lines[0]["ratings"][0]
    again = run(*words, stdin=done.stdout)  # they are on the lines now
    assert again.stdout == done.stdout and b"agreement with people, 95% (2 raters" in again.stderr
    assert b"agreement with people, 95% (2 raters" in run("nx-summary", stdin=done.stdout).stderr


def test_files_that_are_no_ratings_are_errors(run: Run, tmp_path: Path, explained: list[Record]) -> None:
    (tmp_path / "bad.jsonl").write_bytes(ratings_of(explained, "a").replace(b'"rating":2', b'"rating":0', 1))
    done = run("nx-score", "--ratings", tmp_path / "bad.jsonl", UNITS)
    assert done.returncode == 3 and b"bad.jsonl:1: the field 'rating' is 0" in done.stderr
    (tmp_path / "empty.jsonl").write_bytes(b"")
    done = run("nx-score", "--ratings", tmp_path / "empty.jsonl", UNITS)
    assert done.returncode == 3 and b"no line is a judgement" in done.stderr
    line = orjson.dumps(explained[0] | {"ratings": [{"explanation": "x", "rating": "good"}]}) + b"\n"
    for command in ("nx-score", "nx-summary"):
        done = run(command, stdin=line)
        assert done.returncode == 3 and b"the field 'rating' is a string" in done.stderr
    (tmp_path / "other.jsonl").write_bytes(orjson.dumps(rating("x", 3)) + b"\n")
    done = run("nx-score", "--ratings", tmp_path / "other.jsonl", tmp_path / "two.jsonl")
    assert b"1 judgements are about units that did not come in" in done.stderr


# What people write


def written(text: str, line: Record, **more: Any) -> bytes:
    return orjson.dumps({"kind": "rating", "v": 1, "unit": line["unit"], "written": text, **more}) + b"\n"


def test_what_people_write_is_explained_scored_and_simulated_like_any_other(
    run: Run, tmp_path: Path, units: list[Record]
) -> None:
    """A pattern runs as it is; words fail with a reason where nobody simulates them."""
    path = tmp_path / "written.jsonl"
    pattern = '"version"  or "  version" (9); "."'
    path.write_bytes(written(pattern, units[0], rater="ada") + written(" numbers of\nversions ", units[1]))
    done = run(f"nx-explain --explainer human:{path} {UNITS} | nx-score --allow-errors 1")
    assert done.returncode == 0, done.stderr
    assert b"1 explanations that are patterns, 1 in words" in done.stderr
    first, second = [orjson.loads(line) for line in done.stdout.splitlines()][:2]
    (told,) = first["explanations"]
    assert told["by"] == {"explainer": "human", "rater": "ada"}
    assert (told["text"], told["pattern"]) == (
        pattern,
        '"." (10); "version" or "  version" (9)',
    )
    alone = run(f"nx-explain -q --text '{told['pattern']}' {UNITS} | nx-score -q")
    (same,) = orjson.loads(alone.stdout.splitlines()[0])["explanations"]
    assert told["scores"] == same["scores"] and told["scores"][0]["top_and_random"] is not None
    (words,) = second["explanations"]
    assert (words["text"], words["by"]) == ("numbers of versions", {"explainer": "human"})
    assert words["scores"][0]["error"]["kind"] == "no-pattern"
    assert "--simulator" in words["scores"][0]["error"]["message"]
    assert b"human" in done.stderr
    detected = run("nx-score", "--method", "detection", stdin=done.stdout)
    errors = [
        score.get("error")
        for score in orjson.loads(detected.stdout.splitlines()[1])["explanations"][0]["scores"]
    ]
    assert [error["kind"] for error in errors] == ["no-pattern"] * 2


def test_words_of_people_are_judged_by_a_language_model(
    run: Run, tmp_path: Path, units: list[Record]
) -> None:
    model, path = write_gguf(tmp_path / "tiny.gguf", chat=CHAT), tmp_path / "written.jsonl"
    path.write_bytes(written("numbers of versions", units[0], rater="ada"))
    judge = f"nx-score --method fuzzing --simulation generate --simulator llama:{model}"
    done = run(f"head -n 1 {UNITS} | nx-explain -q --explainer human:{path} | {judge}")
    assert done.returncode == 0, done.stderr
    (told,) = orjson.loads(done.stdout)["explanations"]
    assert told["scores"][0]["simulator"] == "llama:tiny.gguf" and "judged" in told["scores"][0]
    assert "human" in done.stderr.decode()
