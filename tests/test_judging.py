"""Detection and fuzzing: which excerpts are judged, what judges are asked, how right they were."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from assistants import Scripted, failing, run, said, unit
from fault_server import FaultServer, chat
from gguf_model import CHAT, write_folder, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from pooled import put_pool
from scipy.stats import mannwhitneyu

from nxtools.assistant.asking import Asking
from nxtools.errors import ModelError
from nxtools.judge import intruder
from nxtools.judge.asked import read_written
from nxtools.judge.choosing import Chosen, choose
from nxtools.judge.figures import FIGURES, Verdict, figures, measure
from nxtools.judge.judge import Judge, Judging
from nxtools.judge.similar import Similar
from nxtools.judge.surprisal import Surprisal
from nxtools.pool import Shared
from nxtools.recordings.pool import Pool
from nxtools.records import Failure
from nxtools.store import Store
from nxtools.unit import Unit

Record = dict[str, Any]

FIRES = [(" a", 0.0), (" mast", 5.0), (" and", 0.2), (" sail", 2.0), (" so", 0.0)]
FAINT = [(" one", 0.0), (" oar", 0.9), (" day", 0.3), (" it", 0.0), (" is", None)]
QUIET = [(" the", 0.0), (" dog", 0.3), (" ran", 0.0), (" off", 0.1), (" then", 0.0)]


def line(index: int = 0, pairs: int = 6) -> Record:
    """A unit with so many active and silent held-out excerpts, told apart by their first token."""
    rows: list[Any] = [("evidence", "top", [(" ship", 8.0)])]
    for number in range(pairs):
        fires = FIRES if number % 2 else FAINT
        rows.append(("held-out", "spread", [(f"<{number}>", 0.0), *fires]))
        rows.append(("held-out", "random", [(f"({number})", 0.0), *QUIET]))
    told = {"id": "e", "text": "parts of a ship", "by": {"explainer": "x"}}
    return unit(rows, index=index) | {"explanations": [told]}


def chosen(record: Record, **how: Any) -> Chosen:
    found = choose(Unit(record), "+", how.get("share", 0.1), how.get("most", 50), contrast=True)
    assert isinstance(found, Chosen)
    return found


# Which excerpts


def test_active_is_above_a_share_of_the_maximum_on_evidence() -> None:
    assert chosen(line()).threshold == pytest.approx(0.8)
    assert len(chosen(line()).active) == 6
    assert (
        len(chosen(line(), share=0.5).active) == 3
    )  # the faint ones are silent now, but were not drawn at random
    assert [len(chosen(line(), most=2).active), len(chosen(line(), most=2).silent)] == [2, 2]
    strengths = [chosen(line()).share(row) for row in chosen(line()).active]
    assert strengths == sorted(strengths, reverse=True)


def test_what_cannot_be_chosen_is_a_failure_with_its_reason() -> None:
    for rows, kind in [
        ([("held-out", "top", FIRES)], "no-evidence"),
        ([("evidence", "top", FIRES), ("held-out", "random", QUIET)], "no-active"),
        ([("evidence", "top", FIRES), ("held-out", "top", FIRES)], "no-silent"),
    ]:
        found = choose(Unit(unit(rows)), "+", 0.1, 50, contrast=True)
        assert isinstance(found, Failure)
        assert found.kind == kind


def test_the_order_is_drawn_by_unit_and_the_same_in_every_run() -> None:
    orders = {index: [item.row for item in chosen(line(index)).mixed()] for index in range(4)}
    assert orders == {index: [item.row for item in chosen(line(index)).mixed()] for index in range(4)}
    assert len(set(map(tuple, orders.values()))) == 4


@given(st.lists(st.lists(st.floats(0, 10, width=16), min_size=5, max_size=5), min_size=1, max_size=6))
def test_wrong_marks_are_as_many_and_on_other_tokens(values: list[list[float]]) -> None:
    rows: list[Any] = [("evidence", "top", [(" x", 1.0)])]
    rows += [("held-out", "top", [(f" {p}", v) for p, v in enumerate(row)]) for row in values]
    found = choose(Unit(unit(rows)), "+", 0.1, 50, contrast=False)
    if isinstance(found, Failure):
        return
    first, second = found.halves()
    assert [item.row for item in first] == [item.row for item in second]
    for one, other in zip(first, second, strict=True):
        assert one.truth != other.truth
        assert len(one.marks) == len(other.marks) > 0
        assert not one.marks & other.marks
        right = one if one.truth else other
        strengths = found.strengths[one.row]
        assert right.marks == {p for p, v in enumerate(strengths) if v >= 0.3 * strengths.max()}


# The random pool behind the line


def pooled(store: Store, held_out: Any = None) -> tuple[str, dict[str, Any]]:
    """A pool of 60 and 40 excerpts, and the values on them. Unit 1 mostly fires with unit 0, unit 2 never.

    held_out: chance for the 40, if it is to be another.
    """
    rng, rows, ids = np.random.default_rng(0), {}, {}
    for which, count in (("evidence", 60), ("held-out", 40)):
        rng = held_out if which == "held-out" and held_out is not None else rng
        fires = rng.random((3, count)) < 0.5
        fires[1] = fires[0] ^ (rng.random(count) < 0.2)
        fires[2] = ~fires[0]
        peaks = np.where(fires, rng.uniform(2, 8, (3, count)), 0.0)
        rows[which] = np.zeros((3, count, 6), np.float32)
        rows[which][..., 2] = peaks
        ids[which] = rng.integers(8, 10, (count, 6))
    line = [" ship", "top", *(token for token, _ in FIRES), "random"]
    return put_pool(store, [*line, " w8", " w9"], ids, rows), rows


def few(pool: str) -> Record:
    """A unit with two active excerpts, and none that is silent, as nx-top's own numbers may give it."""
    rows = [("evidence", "top", [(" ship", 8.0)])]
    rows += [("held-out", pick, [(f"{pick}", 0.0), *FIRES]) for pick in ("top", "random")]
    told = {"id": "e", "text": '" mast"', "by": {"explainer": "pattern"}}
    return unit(rows) | {"explanations": [told], "pool": {"blob": pool, "column": 0}}


def shared(store: Store, pool: str) -> Shared:
    return Shared(Pool(pool, store.open_blob))


@pytest.mark.parametrize("negatives", ["random", "similar"])
def test_silent_excerpts_that_the_line_lacks_come_from_the_held_out_pool(
    tmp_path: Path, negatives: str
) -> None:
    """As many as there are active ones, never one on which the unit is active."""
    store = Store(tmp_path)
    pool, rows = pooled(store)
    opened, similar = shared(store, pool), Similar() if negatives == "similar" else None
    found = choose(Unit(few(pool)), "+", 0.1, 50, contrast=True, pool=lambda unit: opened, similar=similar)
    assert isinstance(found, Chosen)
    assert (len(found.active), len(found.silent)) == (2, 2)
    numbers = [int(found.name(row), 16) - 61 for row in found.silent]  # behind the 60 of evidence
    assert all(rows["held-out"][0, number].max() <= found.threshold for number in numbers)
    assert all(found.tokens(row)[0].startswith(" w") and found.share(row) == 0 for row in found.silent)
    if similar is not None:
        assert {found.similar[row] for row in found.silent} == {("0:1", frozenset({2}))}
        silent = np.flatnonzero(rows["held-out"][0].max(axis=1) == 0)
        strongest = silent[np.argsort(-rows["held-out"][1, silent].max(axis=1))][:2]
        assert numbers == strongest.tolist()


def test_similar_are_units_whose_maxima_on_evidence_correlate(tmp_path: Path) -> None:
    """Against NumPy; those on held-out excerpts play no part."""
    store = Store(tmp_path)
    digest, rows = pooled(store)
    expected = np.corrcoef(rows["evidence"].max(axis=2))[0]
    found = Similar().nearest(shared(store, digest), 0, "+")
    assert found == [(1, pytest.approx(expected[1], abs=1e-3))]  # the pool is kept as float16
    assert expected[2] < 0
    other = pooled(store, held_out=np.random.default_rng(9))[0]
    assert other != digest and Similar().nearest(shared(store, other), 0, "+") == found


def test_in_fuzzing_the_tokens_of_the_similar_unit_are_the_wrong_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    pool, _ = pooled(store)
    opened = shared(store, pool)
    line = few(pool)
    found = choose(Unit(line), "+", 0.1, 50, contrast=False, pool=lambda unit: opened, similar=Similar())
    assert isinstance(found, Chosen)
    (items,) = found.halves()
    assert sorted((item.truth, item.marks) for item in items) == [
        *[(False, frozenset({2}))] * 2,
        *[(True, frozenset({2, 4}))] * 2,
    ]


def test_without_the_pool_the_reason_says_what_is_missing(tmp_path: Path) -> None:
    for similar, kind in ((None, "no-silent"), (Similar(), "no-pool")):
        found = choose(Unit(few("gone")), "+", 0.1, 50, contrast=True, similar=similar)
        assert isinstance(found, Failure) and found.kind == kind


def test_the_command_finds_the_pool_in_the_store(run: Any, tmp_path: Path) -> None:
    pool, _ = pooled(Store(tmp_path / "cache"))
    line = orjson.dumps(few(pool)) + b"\n"
    for negatives in ("random", "similar"):
        ran = run("nx-score", "--method", "detection", "--negatives", negatives, stdin=line)
        assert ran.returncode == 0, ran.stderr
        (score,) = orjson.loads(ran.stdout)["explanations"][0]["scores"]
        assert (score["active"], score["silent"], score["auroc"]) == (2, 2, 1.0)
        likes = [one.get("like") for one in score["judged"] if not one["truth"]]
        assert likes == ([None, None] if negatives == "random" else ["0:1", "0:1"])
        assert score.get("negatives", "random") == negatives


# What judges are asked


def judged(
    store: Store, script: Any, kind: str = "detection", abilities: Any = (), **how: Any
) -> tuple[list[Any], Scripted, Judge]:
    assistant = Scripted(script, abilities)
    judge = Judge(Judging(Asking(assistant), kind, **how))
    found: list[Any] = []

    def step(record: Record) -> Any:
        one = chosen(record)
        passes = [one.mixed()] if kind == "detection" else one.halves()
        said = yield from judge.judge(one, record["explanations"][0], passes)
        found.extend(zip((item.truth for items in passes for item in items), said, strict=True))
        return record

    run(step, [line()], store)
    return found, assistant, judge


def honest(payload: Any) -> Record:
    """Says 1 of excerpts that begin with <."""
    shown = payload.messages[-1].content.split("\n\n", 1)[1]
    texts = re.findall(r"Excerpt \d+: (.*)", shown)
    return said(json.dumps([int("<" in text) for text in texts]))


def test_five_excerpts_a_prompt_and_an_answer_for_each(tmp_path: Path) -> None:
    found, assistant, _ = judged(Store(tmp_path), honest)
    assert len(found) == 12
    assert all(answer.said == truth and answer.score is None for truth, answer in found)
    shown = [ask.messages[-1].content for ask in assistant.asked]
    assert [len(re.findall("Excerpt ", text)) for text in shown] == [5, 5, 2]
    assert all("parts of a ship" in text for text in shown)
    assert "mast" not in assistant.asked[0].messages[0].content


def test_marked_versions_of_an_excerpt_never_stand_in_one_prompt(tmp_path: Path) -> None:
    _, assistant, _ = judged(Store(tmp_path), lambda payload: said("[1,1,1,1,1]"), "fuzzing")
    for ask in assistant.asked:
        firsts = re.findall(r": (?:<<)?<(\d)>", ask.messages[-1].content)
        assert len(firsts) == len(set(firsts))
    everything = "".join(ask.messages[-1].content for ask in assistant.asked)
    assert everything.count("<< mast>>") >= 3
    assert everything.count("<<") == everything.count(">>")


def test_an_answer_that_cannot_be_read_is_a_failure_and_not_a_0(tmp_path: Path) -> None:
    found, _, judge = judged(Store(tmp_path), lambda payload: said("[1,0,maybe,1,1]"))
    assert judge.unread == 3
    assert all(isinstance(answer, Failure) and answer.kind == "unparseable" for _, answer in found)
    found, _, judge = judged(Store(tmp_path / "other"), lambda payload: failing())
    assert judge.unread == 0  # the loop counts those
    assert all(isinstance(answer, Failure) and answer.kind == "http-500" for _, answer in found)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("[1,0,1]", [1, 0, 1]),
        (" [1, 0, 1]\n", [1, 0, 1]),
        ("```json\n[1,0,1]\n```", [1, 0, 1]),
        ('{"1":1,"2":0,"3":1}', [1, 0, 1]),
        ("101", [1, 0, 1]),
        ("1 0 1", [1, 0, 1]),
        ("<think>[0,0,0]</think>[1,0,1]", [1, 0, 1]),
        ("[1,0]", None),
        ("[1,0,1,1]", None),
        ("[1,0,2]", None),
        ("[true,false,true]", None),
        ("[1.0,0,1]", None),
        ("The answer is [1,0,1]", None),
        ('{"2":1,"1":0,"3":1}', None),
        ("", None),
    ],
)
def test_nothing_is_guessed(text: str, numbers: list[int] | None) -> None:
    found = read_written({"text": text}, 3)
    assert (None if found is None else [int(one.said) for one in found]) == numbers


def test_probabilities_are_those_of_1_against_0_at_the_answers_own_tokens() -> None:
    texts = ["[", "1", ",", "0", "]"]
    half, most = math.log(0.5), math.log(0.75)
    tokens = [{"text": text, "logprobs": {text: 0.0}} for text in texts]
    tokens[1]["logprobs"] = {"1": most, "0": math.log(0.25)}
    tokens[3]["logprobs"] = {"0": half, " 1": math.log(0.25), "x": math.log(0.25)}
    found = read_written({"text": "[1,0]", "tokens": tokens}, 2)
    assert found is not None
    assert [one.score for one in found] == [pytest.approx(0.75), pytest.approx(1 / 3)]


def test_engines_that_read_are_asked_one_excerpt_at_a_time_behind_one_prefix(tmp_path: Path) -> None:
    def reading(payload: Any) -> Record:
        p = 0.8 if "<" in payload.excerpt[0] else 0.1
        return {"probabilities": [[1 - p, p] + [0.0] * 9], "mass": [0.9], "top": 10}

    found, assistant, judge = judged(Store(tmp_path), reading, abilities=["slots"])
    assert [answer.score for _, answer in found] == [0.8 if truth else 0.1 for truth, _ in found]
    assert len({ask.prefix for ask in assistant.asked}) == 1
    assert judge.by()["method"] == "all-at-once"

    def faint(payload: Any) -> Record:
        return reading(payload) | {"mass": [0.001]}

    found, _, judge = judged(Store(tmp_path / "faint"), faint, abilities=["slots"])
    assert judge.unread == len(found) == 12


# How right they were

PAIRS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=2, max_size=30
)


@given(PAIRS)
@settings(deadline=None, max_examples=60)
def test_figures_agree_with_scipy_and_with_counting(pairs: list[tuple[bool, bool, float]]) -> None:
    truth, told, scores = (np.array(column) for column in zip(*pairs, strict=True))
    found = {name: float(v[0]) for name, v in figures(truth, told, scores, np.ones((len(pairs), 1))).items()}
    count = {(t, s): sum(pair[:2] == (t, s) for pair in pairs) for t in (True, False) for s in (True, False)}
    active, silent = count[True, True] + count[True, False], count[False, True] + count[False, False]
    if not active or not silent:
        assert math.isnan(found["balanced_accuracy"])
        assert math.isnan(found["auroc"])
        return
    by_hand = (count[True, True] / active + count[False, False] / silent) / 2
    assert found["balanced_accuracy"] == pytest.approx(by_hand, abs=1e-9)
    precision_and_recall = 2 * count[True, True] + count[False, True] + count[True, False]
    assert found["f1"] == pytest.approx(2 * count[True, True] / precision_and_recall, abs=1e-9)
    wins = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert found["auroc"] == pytest.approx(wins / (active * silent), abs=1e-9)


def test_weights_count_excerpts_as_often() -> None:
    rng = np.random.default_rng(0)
    truth, told, scores = rng.random(12) < 0.5, rng.random(12) < 0.5, rng.random(12)
    times = rng.integers(1, 4, 12)
    one = figures(truth, told, scores, times[:, None].astype(float))
    many = figures(*(np.repeat(each, times) for each in (truth, told, scores)), np.ones((times.sum(), 1)))
    assert all(one[name] == pytest.approx(many[name]) for name in one)


def verdicts(count: int, skill: float, seed: int) -> list[Verdict]:
    rng = np.random.default_rng([count, seed])
    truth = np.arange(2 * count) < count
    scores = rng.normal(size=2 * count) + np.where(truth, skill, 0)
    return [
        Verdict(str(n), str(n), bool(t), bool(s > skill / 2), float(s))
        for n, (t, s) in enumerate(zip(truth, scores, strict=True))
    ]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Balanced accuracy and AUROC of a normal score that the active excerpts have `skill` more of."""
    inside = {"balanced_accuracy": 0, "auroc": 0}
    skill, runs = 1.5, 150
    truth = {
        "balanced_accuracy": 0.5 + math.erf(skill / 2 / math.sqrt(2)) / 2,
        "auroc": 0.5 + math.erf(skill / 2) / 2,
    }
    for seed in range(runs):
        found = measure(verdicts(10, skill, seed), str(seed)).intervals
        for name in inside:
            inside[name] += found[name][0] <= truth[name] <= found[name][1]
    assert all(0.9 <= count / runs <= 1.0 for count in inside.values()), inside


def test_a_judge_that_is_always_right_has_an_interval_with_a_width() -> None:
    perfect = [Verdict(str(n), str(n), n < 5, n < 5, float(n < 5)) for n in range(10)]
    found = measure(perfect, "unit")
    assert {found.values[name] for name in FIGURES} == {1.0}
    assert found.record()["recall"] == [None, 1.0] * 5
    assert all(low < 0.9 and high == 1.0 for low, high in found.intervals.values())
    assert found.intervals == measure(perfect, "unit").intervals
    assert measure(perfect[:5], "unit").absent == {"balanced_accuracy": "no-silent", "auroc": "no-silent"}


@given(st.lists(st.floats(0.125, 1, width=16), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_recall_by_decile_is_that_of_the_excerpts_of_those_strengths(
    strengths: list[float], random: Any
) -> None:
    """Against counting one by one. Every active excerpt is in one decile, and n >= 10 leaves none empty."""
    said = [random.random() < 0.6 for _ in strengths]
    active = [
        Verdict(f"a{n}", f"a{n}", True, one, None, strength)
        for n, (one, strength) in enumerate(zip(said, strengths, strict=True))
    ]
    silent = [Verdict(f"s{n}", f"s{n}", False, True, None) for n in range(3)]
    found = measure([*silent, *active], "unit").record()["recall"]
    by_strength = [one for _, one in sorted(zip(strengths, said, strict=True), key=lambda pair: pair[0])]
    expected: list[list[bool]] = [[] for _ in range(10)]
    for place, one in enumerate(by_strength):
        expected[math.floor(10 * (place + 0.5) / len(said))].append(one)
    if len(set(strengths)) == len(strengths):
        assert found == [pytest.approx(np.mean(some), abs=1e-3) if some else None for some in expected]
    assert [one is None for one in found] == [not some for some in expected]
    assert len(said) < 10 or None not in found


def test_summaries_say_recall_by_decile(run: Any) -> None:
    told = {"text": '" mast" (9)', "scale": 5.0, "by": {"explainer": "pattern"}}
    lines = [line(index, 12) | {"explanations": [told]} for index in range(3)]
    done = run(
        "nx-score", "--method", "detection", stdin=b"".join(orjson.dumps(one) + b"\n" for one in lines)
    )
    score = orjson.loads(done.stdout.splitlines()[0])["explanations"][0]["scores"][0]
    assert score["recall"] == [0.0] * 5 + [1.0] * 5  # of oars, and of masts
    table = {" ".join(one.split("  ")[0].split()): one for one in done.stderr.decode().splitlines()}
    assert "0.000 ±0.000 (3)" in table["nx-score: recall, decile 1, the weakest"]
    assert "1.000 ±0.000 (3)" in table["nx-score: recall, decile 10, the strongest"]
    summary = run("nx-summary", "--by", "run", "--format", "json", stdin=done.stdout)
    rows = [orjson.loads(row) for row in summary.stdout.splitlines()]
    means = [row["mean"] for row in rows if row["figure"].startswith("recall") and row["series"] == "pattern"]
    assert means == [0.0] * 5 + [1.0] * 5


# The command


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", chat=CHAT)


def explained(units: int) -> bytes:
    lines = [line(index) for index in range(units)]
    for index, one in enumerate(lines):
        one["explanations"][0]["text"] = f"parts of ship {index}"
    return b"".join(orjson.dumps(one) + b"\n" for one in lines)


@pytest.mark.parametrize("method", ["detection", "fuzzing"])
def test_patterns_judge_and_the_null_stands_beside(run: Any, method: str) -> None:
    told = {"text": '" mast" or " oar" (9)', "scale": 4.0, "by": {"explainer": "pattern"}}
    lines = [line(index) | {"explanations": [told]} for index in range(2)]
    lines[1]["explanations"] = [told | {"text": '" dog" (9)'}]
    ran = run("nx-score", "--method", method, stdin=b"".join(orjson.dumps(one) + b"\n" for one in lines))
    assert ran.returncode == 0, ran.stderr
    first, second = map(orjson.loads, ran.stdout.splitlines())
    score = first["explanations"][0]["scores"][0]
    assert (score["method"], score["simulator"]) == (method, "pattern")
    assert (score["balanced_accuracy"], score["auroc"]) == (1.0, 1.0)
    assert (score["active"], score["silent"]) == (6, 6)
    assert score["intervals"]["auroc"][0] < 1
    wrong = second["explanations"][0]["scores"][0]
    assert wrong["balanced_accuracy"] <= 0.5
    null = second["baselines"][0]
    assert (null["name"], null["explanation_of"]) == ("null", "0:0")
    assert null["scores"][0]["balanced_accuracy"] == 1.0  # here units are all alike
    assert b"balanced accuracy (chance 0.5)" in ran.stderr


@pytest.mark.parametrize("simulation", ["generate", "all-at-once"])
def test_a_real_model_judges_and_the_store_answers_the_second_time(
    run: Any, model: Path, simulation: str
) -> None:
    words = ["nx-score", "--method", "detection", "--simulator", f"llama:{model}", "--simulation", simulation]
    counted = run(*words, "--dry-run", stdin=explained(2))
    calls = {"generate": 9, "all-at-once": 36}[simulation]  # two explanations and a null, of 12 excerpts each
    assert f"{calls} calls to make" in counted.stderr.decode()
    first = run(*words, "--allow-errors", "100%", stdin=explained(2))
    assert first.returncode == 0, first.stderr
    again = run(*words, "--allow-errors", "100%", "--offline", stdin=explained(2))
    assert again.stdout == first.stdout
    score = orjson.loads(first.stdout.splitlines()[0])["explanations"][0]["scores"][0]
    assert score["by"]["method"] == simulation
    if simulation == "generate":  # held to a grammar, so that even random weights write what can be read
        assert score["active"] + score["silent"] == 12
        assert "failed" not in score
    assert b"excerpts failed" in first.stderr


def test_options_of_judges_are_refused_elsewhere(run: Any) -> None:
    for words in (["--each", "5"], ["--method", "ablation", "--active", "0.2"]):
        ran = run("nx-score", *words, stdin=b"")
        assert ran.returncode == 2
        assert b"is for --method detection" in ran.stderr
    ran = run("nx-score", "--method", "surprisal", "--simulator", "hf:x", "--together", "3", stdin=b"")
    assert b"means nothing with --method surprisal" in ran.stderr


def test_a_model_is_asked_about_the_null_of_so_many_units_of_each_layer(run: Any, model: Path) -> None:
    """One call a unit and one a null, which the first unit of a layer has not."""
    words = ["nx-score", "--method", "detection", "--simulator", f"llama:{model}", "--dry-run"]
    words += ["--simulation", "generate", "--each", "1"]
    for layers, calls in (([1], 1), ([20], 39), ([60], 85), ([60, 40, 2], 60 + 40 + 2 + 25 + 25 + 1)):
        lines = [orjson.loads(one) for one in explained(sum(layers)).splitlines()]
        for number, one in zip(np.repeat(range(len(layers)), layers).tolist(), lines, strict=True):
            one["unit"]["layer"] = number
        stdin = b"".join(orjson.dumps(one) + b"\n" for one in lines)
        assert f"{calls} calls to make" in run(*words, stdin=stdin).stderr.decode()
    assert "120 calls to make" in run(*words, "--baselines", "none", stdin=explained(120)).stderr.decode()


# Explanations of another run


@pytest.mark.parametrize("by", ["pattern", "model"])
@pytest.mark.parametrize("how", ["same", "shift"])
def test_explanations_of_another_run_are_judged_on_these_units(
    run: Any, tmp_path: Path, model: Path, by: str, how: str
) -> None:
    """Their own scores stay behind; a unit gets those of its namesake, or of the next of its layer."""
    texts = ['" mast" (9)', '" dog" (9)', '" oar" (9)']
    lines = [line(index) for index in range(3)]
    for text, one in zip(texts, lines, strict=True):
        one["explanations"] = [
            {"text": text, "by": {"explainer": "pattern"}, "scores": [{"method": "detection"}]}
        ]
    (tmp_path / "other.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in lines))
    units = b"".join(orjson.dumps(line(index)) + b"\n" for index in range(4))
    words = ["nx-score", "--method", "detection", "--explanations-from", str(tmp_path / "other.jsonl")]
    words += [] if by == "pattern" else ["--simulator", f"llama:{model}", "--simulation", "generate"]
    done = run(*words, "--map", how, "--allow-errors", "100%", stdin=units)
    assert done.returncode == 0, done.stderr
    assert b"1 units have no counterpart" in done.stderr
    found = [orjson.loads(one) for one in done.stdout.splitlines()]
    told = [[e["text"] for e in one["explanations"]] for one in found]
    assert told == [[text] for text in (texts if how == "same" else texts[1:] + texts[:1])] + [[]]
    for one in found[:3]:
        (score,) = one["explanations"][0]["scores"]
        assert score["simulator"] == ("pattern" if by == "pattern" else f"llama:{model.name}")
        assert one["explanations"][0]["explains"]["index"] == (
            one["unit"]["index"] if how == "same" else (one["unit"]["index"] + 1) % 3
        )
    names = [baseline["name"] for one in found for baseline in one.get("baselines", [])]
    assert names == ["null", "null"]  # of the second and third unit
    if by == "pattern":
        right = [one["explanations"][0]["scores"][0]["balanced_accuracy"] > 0.5 for one in found[:3]]
        assert right == ([True, False, True] if how == "same" else [False, True, True])
    else:
        again = run(*words, "--map", how, "--allow-errors", "100%", "--offline", stdin=units)
        assert again.stdout == done.stdout


# Intruders


def intruded(store: Store, script: Any, **how: Any) -> tuple[Record, Scripted, Judge]:
    assistant = Scripted(script, how.pop("abilities", ()))
    judge = Judge(Judging(Asking(assistant), "intruder", **how))
    found: list[Any] = []

    def step(record: Record) -> Any:
        one = chosen(record)
        tried = intruder.trials(one, 4)
        assert not isinstance(tried, Failure)
        said = yield from intruder.ask(judge, one, tried)
        found.append(intruder.scored(one, tried, said))
        return record

    run(step, [line()], store)
    return found[0], assistant, judge


def picks(payload: Any) -> Record:
    lines = payload.messages[-1].content.splitlines()
    (place,) = [number for number, text in enumerate(lines, start=1) if ": (" in text]
    return said(str(place))


def test_every_silent_excerpt_intrudes_once_on_active_ones(tmp_path: Path) -> None:
    found, assistant, _ = intruded(Store(tmp_path), picks)
    assert isinstance(found, intruder.Picked)
    assert found.record["accuracy"] == 1.0
    assert (found.record["trials"], found.record["chance"]) == (6, 0.25)
    assert found.record["intervals"]["accuracy"][0] < 0.9
    assert all(len(ask.messages[-1].content.splitlines()) == 4 for ask in assistant.asked)
    assert "ship" not in str(assistant.asked)
    assert len({one["intruder"] for one in found.record["judged"]}) == 6
    assert len({picks(ask)["text"] for ask in assistant.asked}) > 1  # not always at the same place


def test_what_is_not_the_number_of_an_excerpt_is_a_failure(tmp_path: Path) -> None:
    for number, text in enumerate(["5", "0", "2 or 3", "none", '{"number":true}', "[1]"]):
        found, _, judge = intruded(Store(tmp_path / str(number)), lambda payload, text=text: said(text))
        assert isinstance(found, Failure)
        assert (found.kind, judge.unread) == ("unparseable", 6)


def test_intruders_by_a_real_model(run: Any, model: Path) -> None:
    words = ["nx-score", "--method", "intruder", "--simulator", f"llama:{model}", "--simulation", "generate"]
    first = run(*words, stdin=explained(2))
    assert first.returncode == 0, first.stderr
    again = run(*words, "--offline", stdin=first.stdout)
    assert again.stdout == first.stdout
    (entry,) = orjson.loads(first.stdout.splitlines()[0])["baselines"]
    assert (entry["name"], entry["scores"][0]["trials"]) == ("intruder", 6)
    assert b"accuracy (chance 0.2)" in first.stderr
    assert run("nx-score", "--method", "intruder", stdin=b"").returncode == 2


# Surprisal


@pytest.mark.parametrize("engine", ["llama", "hf"])
def test_surprisal_is_what_the_model_itself_says_of_the_text(run: Any, tmp_path: Path, engine: str) -> None:
    """The loss with and without the explanation in front, against transformers' forward pass over each."""
    import torch
    import transformers

    folder = write_folder(tmp_path / "tiny")
    name = f"llama:{write_gguf(tmp_path / 'tiny.gguf')}" if engine == "llama" else f"hf:{folder}"
    ran = run("nx-score", "--method", "surprisal", "--simulator", name, stdin=explained(1))
    assert ran.returncode == 0, ran.stderr
    (score,) = orjson.loads(ran.stdout)["explanations"][0]["scores"]
    assert set(score["intervals"]) == {"auroc"}
    assert (score["active"], score["silent"]) == (6, 6)
    language = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    first = Unit(orjson.loads(ran.stdout)).shown("held-out")
    for told in score["judged"][:3]:
        text = "".join(first.table.texts[first.excerpts.index(told["excerpt"])])
        means = []
        for front in (" of a text in which there is parts of ship 0", " of a text"):
            before = tokenizer.encode(f"Here is an excerpt{front}:\n\n", add_special_tokens=False)
            ids = tokenizer.encode(text, add_special_tokens=False)
            with torch.no_grad():
                logits = language(torch.tensor([before + ids])).logits[0].double().log_softmax(-1)
            means.append(np.mean([float(logits[len(before) + n, ids[n + 1]]) for n in range(len(ids) - 1)]))
        assert told["score"] == pytest.approx(means[0] - means[1], abs=2e-3)
    again = run("nx-score", "--method", "surprisal", "--simulator", name, "--offline", stdin=explained(1))
    assert again.stdout == ran.stdout


def test_an_engine_that_cannot_say_so_ends_the_run(tmp_path: Path) -> None:
    surprised = Surprisal(Asking(Scripted(lambda payload: said(""))))

    def step(record: Record) -> Any:
        one = chosen(record)
        yield from surprised.judge(one, record["explanations"][0], [one.mixed()])
        return record

    with pytest.raises(ModelError, match="does not say how likely"):
        run(step, [line()], Store(tmp_path))


def test_an_api_that_does_not_echo_ends_the_run_with_status_4(run: Any) -> None:
    with FaultServer(answer=lambda path, body: chat("Hello.")) as server:
        words = ("nx-score", "--method", "surprisal", "--simulator", "openai:any", "--base-url", server.url)
        ran = run(*words, stdin=explained(1))
    assert ran.returncode == 4
    assert b"does not say how likely a given text is" in ran.stderr


# Embedding


@pytest.mark.parametrize("engine", ["llama", "hf"])
def test_nearness_is_the_cosine_of_mean_hidden_states(run: Any, tmp_path: Path, engine: str) -> None:
    """Against transformers' hidden states, one text at a time."""
    import torch
    import transformers

    folder = write_folder(tmp_path / "tiny")
    name = f"llama:{write_gguf(tmp_path / 'tiny.gguf')}" if engine == "llama" else f"hf:{folder}"
    words = ["nx-score", "--method", "embedding", "--simulator", name]
    ran = run(*words, stdin=explained(1))
    assert ran.returncode == 0, ran.stderr
    (score,) = orjson.loads(ran.stdout)["explanations"][0]["scores"]
    base = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def embedded(text: str) -> Any:
        with torch.no_grad():
            ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
            return base(ids).last_hidden_state[0].mean(0)

    shown = Unit(orjson.loads(ran.stdout)).shown("held-out")
    query = embedded("parts of ship 0")
    near = {}
    for told in score["judged"]:
        text = "".join(shown.table.texts[shown.excerpts.index(told["excerpt"])])
        near[told["excerpt"]] = float(torch.cosine_similarity(query, embedded(text), dim=0))
        assert told["score"] == pytest.approx(near[told["excerpt"]], abs=2e-3)
    active = [told["score"] for told in score["judged"] if told["truth"]]
    silent = [told["score"] for told in score["judged"] if not told["truth"]]
    assert score["auroc"] == pytest.approx(mannwhitneyu(active, silent).statistic / 36, abs=0.03)
    again = run(*words, "--offline", stdin=explained(1))
    assert again.stdout == ran.stdout


def test_embeddings_of_an_api(run: Any) -> None:
    """One call for each text: two explanations, twelve excerpts of both units, and one to try it out."""

    def answer(path: str, body: Record) -> Record:
        assert path.endswith("/embeddings")
        vector = [1.0, 0.5] if "ship" in body["input"] or "<" in body["input"] else [0.5, -1.0]
        return {"data": [{"embedding": vector}], "usage": {"prompt_tokens": 3}}

    with FaultServer(answer=answer) as server:
        ran = run(
            *("nx-score", "--method", "embedding", "--simulator", "openai:any", "--base-url", server.url),
            *("--identity", "test"),
            stdin=explained(2),
        )
        assert ran.returncode == 0, ran.stderr
        assert len(server.requests) == 15
    score = orjson.loads(ran.stdout.splitlines()[0])["explanations"][0]["scores"][0]
    assert score["auroc"] == 1.0
