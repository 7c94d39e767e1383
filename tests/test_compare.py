"""nx-compare: pairs by unit, differences with intervals that hold, tests, corrections, what is counted."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import orjson
import pytest
import scipy.stats
from conftest import Run as Shell
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scored import Record, lines, samples, score_records, scores, without_replicates

from nxtools.commands.compare import _alike
from nxtools.report.comparison import Comparison, Run, corrected
from nxtools.report.estimate import BOTH, Gathered
from nxtools.report.significance import holm, sign_test
from nxtools.score.replicates import Drawn, packed
from nxtools.score.replicates import drawn as unpack
from nxtools.score.summary import drawn_weights
from nxtools.stream import dump

COUNT = 40


def explained(seed: int = 0, skill: float = 0.7, count: int = COUNT) -> list[Record]:
    return lines(score_records(scores(samples(count, seed, skill))))


def run_of(records: list[Record], name: str = "a", by_place: bool = False) -> Run:
    run = Run(name, ("top_and_random",), by_place)
    for record in records:
        run.add(record)
    return run


def compared(a: list[Record], b: list[Record], by_place: bool = False) -> Comparison:
    sides = [
        run.side(run.name, next(iter(run.series().values())))
        for run in (run_of(a, "a", by_place), run_of(b, "b", by_place))
    ]
    return Comparison("top_and_random", *sides)


def values(records: list[Record]) -> np.ndarray:
    return np.array([r["explanations"][0]["scores"][0]["top_and_random"] for r in records])


def write(folder: Path, **files: list[Record]) -> dict[str, Path]:
    paths = {name: folder / f"{name}.jsonl" for name in files}
    for name, records in files.items():
        paths[name].write_bytes(b"".join(map(dump, records)))
    return paths


def table(data: bytes) -> list[Record]:
    return [orjson.loads(line) for line in data.splitlines()]


# The numbers


def test_differences_are_paired() -> None:
    a, b = explained(0), explained(1, skill=0.5)
    row = next(compared(a, b[::-1]).rows(False, "bootstrap"))
    x, y = values(a), values(b)
    assert row["units"] == COUNT
    assert row["mean_a"] == pytest.approx(x.mean(), abs=1e-12)
    assert row["mean_b"] == pytest.approx(y.mean(), abs=1e-12)
    assert row["difference"] == pytest.approx((x - y).mean(), abs=1e-12)
    assert (row["wins"], row["losses"], row["ties"]) == (sum(x > y), sum(x < y), 0)
    assert row["interval_over"] == "units and documents"
    assert row["low"] < row["difference"] < row["high"]


def test_without_replicates_it_is_the_paired_t_test() -> None:
    a, b = (lines(without_replicates(score_records(scores(samples(COUNT, seed))))) for seed in (0, 1))
    row = next(compared(a, b).rows(False, "bootstrap"))
    known = scipy.stats.ttest_rel(values(a), values(b))
    low, high = known.confidence_interval(0.95)
    assert row["interval_over"] == "units"
    assert (row["low"], row["high"]) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert row["p"] == pytest.approx(known.pvalue, abs=1e-9)


def test_a_run_is_no_better_than_itself() -> None:
    row = next(compared(explained(), explained()).rows(False, "bootstrap"))
    assert (row["difference"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)
    assert (row["wins"], row["losses"], row["ties"]) == (0, 0, COUNT)


def test_p_is_below_5_percent_where_the_interval_leaves_0_out() -> None:
    for seed, skill in itertools.product((1, 2), (0.5, 0.65, 0.7)):
        for row in compared(explained(), explained(seed, skill)).rows(True, "bootstrap"):
            assert (row["p"] < 0.05) == (row["low"] > 0 or row["high"] < 0)


def kept(values: NDArray[np.float64]) -> Drawn:
    return unpack(packed({"figure": values})["figure"])


@pytest.mark.parametrize(("units", "documents"), [(40, 40), (60, 25)])
def test_95_percent_intervals_of_differences_hold_in_90_to_98_of_100_cases(
    units: int, documents: int
) -> None:
    """Units and documents both have effects of their own on the difference; documents are shared."""
    rng, truth, runs, inside = np.random.default_rng(0), 0.05, 300, 0
    for case in range(runs):
        effects = rng.normal(scale=0.1, size=documents)
        shown = np.stack([rng.permutation(documents)[:10] for _ in range(units)])
        of_units = truth + rng.normal(scale=0.15, size=units)
        weights = drawn_weights([f"{case} {name}" for name in range(documents)], "document")
        gathered = Gathered()
        for unit, rows in enumerate(shown):
            drawn = of_units[unit] + effects[rows] @ weights[rows] / weights[rows].sum(0)
            value = float(of_units[unit] + effects[rows].mean())
            gathered.add_difference(f"{case} {unit}", (value, kept(drawn)), (0.0, kept(0 * drawn)))
        mean = gathered.mean(documents)
        assert mean.over == BOTH and mean.low is not None and mean.high is not None
        inside += mean.low < truth < mean.high
    assert 0.90 <= inside / runs <= 0.98


@given(st.integers(0, 3000), st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_the_sign_test_is_scipys(wins: int, losses: int) -> None:
    known = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(known, rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_its_steps_reject(p: list[float]) -> None:
    """At every level: walk up the sorted p as long as each is within level / how many are left."""
    found = holm(p)
    for level in [*(0.9999 * value for value in found), *(1.0001 * value for value in found), 0.05]:
        rejected: set[int] = set()
        for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if (len(p) - rank) * p[place] > level:
                break
            rejected.add(place)
        if level < 1:
            assert rejected == {place for place, value in enumerate(found) if value <= level}


# What is counted


def test_every_unit_is_in_one_of_the_counts() -> None:
    a, b = explained(0), explained(1)
    a, b = a[:30], b[10:]
    a[20]["explanations"][0]["scores"][0]["top_and_random"] = None
    b[5]["explanations"][0]["scores"][0] = {"method": "correlation", "simulator": "pattern", "error": {}}
    comparison = compared(a, b)
    for row in comparison.rows(True, "sign"):
        at = [r for r in a if row["layer"] in ("all", r["unit"]["layer"])]
        other = [r for r in b if row["layer"] in ("all", r["unit"]["layer"])]
        assert row["units"] + row["absent"] + row["only_a"] == len(at)
        assert row["units"] + row["absent"] + row["only_b"] == len(other)
        assert row["wins"] + row["losses"] + row["ties"] == row["units"]
    row = next(comparison.rows(False, "sign"))
    assert (row["units"], row["absent"], row["only_a"], row["only_b"]) == (18, 2, 10, 10)
    assert row["p"] == pytest.approx(scipy.stats.binomtest(row["wins"], 18).pvalue, rel=1e-9)


def test_units_of_a_twin_pair_by_place() -> None:
    a, b = explained(0), explained(1)
    for record in b:
        record["unit"]["fingerprint"] = "sha256:1"
    apart, together = (next(compared(a, b, by_place).rows(False, "sign")) for by_place in (False, True))
    assert (apart["units"], apart["only_a"], apart["p"]) == (0, COUNT, None)
    assert together["units"] == COUNT


def test_holm_takes_all_rows_of_one_kind_together() -> None:
    rows = [
        row
        for b in (explained(1), explained(2, skill=0.6))
        for row in compared(explained(), b).rows(True, "bootstrap")
    ]
    corrected(rows)
    for overall in (True, False):
        same = [row for row in rows if (row["layer"] == "all") == overall]
        assert [row["p_holm"] for row in same] == holm([row["p"] for row in same])


# The command


def test_two_files(run: Shell, tmp_path: Path) -> None:
    files = write(tmp_path, a=explained(), b=explained(1, skill=0.5))
    done = run("nx-compare", "--format", "json", files["a"], files["b"])
    assert done.returncode == 0
    rows = table(done.stdout)
    assert [(row["a"], row["layer"]) for row in rows] == [(str(files["a"]), at) for at in ("all", 0, 1)]
    assert rows[0]["difference"] > 0 and rows[0]["p_holm"] < 0.05
    said = f"nx-compare: top_and_random of 40 units in {files['a']}, 40 units in {files['b']}; "
    assert done.stderr.decode() == f"{said}intervals over units and documents\n"


def test_series_of_one_file(run: Shell) -> None:
    of_explanation, of_table = (score_records(scores(samples(8, seed))) for seed in (0, 1))
    given = b"".join(map(dump, lines(of_explanation, {"token-table": of_table, "null": of_table[::-1]})))
    done = run("nx-compare", "-q", "--by", "run", "--format", "json", stdin=given)
    assert [(row["a"], row["b"]) for row in table(done.stdout)] == [
        ("pattern", "token-table"),
        ("pattern", "null"),
    ]
    done = run("nx-compare", "-q", "--by", "run", "--format", "json", "--all-pairs", stdin=given)
    assert len(table(done.stdout)) == 3
    chosen = ["--series", "null", "--series", "token-table"]
    done = run("nx-compare", "-q", "--by", "run", "--format", "json", *chosen, stdin=given)
    assert [(row["a"], row["b"]) for row in table(done.stdout)] == [("null", "token-table")]


def test_scores_by_other_methods_are_other_numbers() -> None:
    record = explained(count=2)[0]
    scores_of_both = record["explanations"][0]["scores"]
    scores_of_both.append(scores_of_both[0] | {"method": "ablation"})
    record["baselines"] = [{"name": "null", "scores": list(scores_of_both)}]
    known = run_of([record]).series()
    assert list(known) == [
        f"{name} ({method})" for name in ("pattern", "null") for method in ("correlation", "ablation")
    ]
    assert _alike(known) == ["pattern (correlation)", "null (correlation)"]


def test_judged_runs_are_compared_by_their_own_figure(run: Shell, tmp_path: Path) -> None:
    runs = explained(count=6), explained(1, count=6)
    for place, records in enumerate(runs):
        for record in records:
            judged = {"method": "detection", "simulator": "pattern", "above": 7.5, "f1": 0.5}
            record["explanations"][0]["scores"] = [judged | {"balanced_accuracy": 0.75 - 0.25 * place}]
    files = write(tmp_path, a=runs[0], b=runs[1], other=explained(2, count=6))
    done = run("nx-compare", "--by", "run", "--format", "json", files["a"], files["b"])
    row = orjson.loads(done.stdout)
    assert (row["figure"], row["units"], row["difference"]) == ("balanced_accuracy", 6, 0.25)
    assert b"nx-compare: balanced_accuracy of 6 units in" in done.stderr
    mixed = run("nx-compare", files["a"], files["other"])
    assert mixed.returncode == 0 and b"top_and_random of 6 units in" in mixed.stderr
    rows = run("nx-summary", "--format", "json", files["a"]).stdout.splitlines()
    assert {orjson.loads(row)["figure"] for row in rows} == {
        "balanced_accuracy",
        "f1",
    }  # a threshold is no score


def test_plots_and_markdown(run: Shell, tmp_path: Path) -> None:
    files = write(tmp_path, a=explained(count=8), b=explained(1, count=8), c=explained(2, count=8))
    done = run("nx-compare", "-q", "--plot", "a.svg", "--format", "markdown", *files.values())
    assert done.returncode == 0 and done.stdout.decode().count("\n") == 2 + 2 * 3
    assert f"{files['a']} - {files['c']} (n = 8)" in run("cat", "a.svg").stdout.decode()


def test_what_cannot_be_compared_is_said(run: Shell, tmp_path: Path) -> None:
    other = explained(1, count=4)
    for record in other:
        record["unit"]["fingerprint"] = "sha256:1"
    files = write(tmp_path, a=explained(count=4), twice=explained(count=4) * 2, other=other)
    for words, status, message in [
        ([files["a"]], 2, "there is nothing to compare with"),
        ([files["a"], files["a"]], 2, "a file is named twice"),
        ([files["a"], files["twice"]], 3, "twice.jsonl:5: unit 0:0 is in"),
        ([files["a"], files["other"]], 3, "units of different subjects pair with --match place"),
        (["--figure", "skill", files["a"], files["other"]], 2, "no score has 'skill'"),
        (["--series", "skill", files["a"]], 2, "there is no 'skill' (there are pattern)"),
    ]:
        done = run("nx-compare", *words)
        assert (done.returncode, done.stdout) == (status, b""), words
        assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert run("nx-compare", "-q", "--match", "place", files["a"], files["other"]).returncode == 0
    assert run("nx-compare").stdout == b""
