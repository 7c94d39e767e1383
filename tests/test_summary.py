"""nx-summary: the figures of nx-score again, their distribution, the forms of the table, the plot."""

from __future__ import annotations

import os
import pty
import subprocess
import xml.etree.ElementTree

import numpy as np
import orjson
import pytest
import scipy.stats
from conftest import UNITS, Run
from hypothesis import given, settings
from hypothesis import strategies as st
from scored import PATTERN, Record, lines, samples, score_records, scores, without_replicates

from nxtools.errors import InputError
from nxtools.report.distribution import Distribution
from nxtools.report.series import entries, labels
from nxtools.score.replicates import unpacked
from nxtools.score.summary import Summary
from nxtools.stream import dump


def distribution(records: list[Record]) -> Distribution:
    run = Distribution()
    for record in records:
        run.add(record)
    return run


def rows_of(records: list[Record], by_layer: bool = True, figure: str = "top_and_random") -> list[Record]:
    return list(distribution(records).rows([figure], by_layer))


def explained(count: int = 40, **more: float) -> list[Record]:
    return lines(score_records(scores(samples(count, **more))))


def tsv(data: bytes) -> list[dict[str, str]]:
    head, *rows = [line.split("\t") for line in data.decode().splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


def cell(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else dump(value).decode().strip()


# The numbers


def test_means_and_intervals_are_those_that_nx_score_prints() -> None:
    records = explained()
    summary = Summary(["explanation"])
    for record, sample in zip(records, samples(), strict=True):
        score = record["explanations"][0]["scores"][0]
        drawn = unpacked(score["replicates"])
        summary.add("explanation", record["unit"]["layer"], sample.name, score, drawn, sample.documents)
    for figure in ("top_and_random", "random_only"):
        found = {row["layer"]: row for row in rows_of(records, figure=figure)}
        assert list(found) == ["all", 0, 1]
        for layer, row in found.items():
            wanted = summary.mean("explanation", figure, None if layer == "all" else int(layer))
            assert row["interval_over"] == "units and documents"
            assert row["mean"] == wanted.value
            assert (row["high"] - row["low"]) / 2 == pytest.approx(wanted.margin, rel=1e-9)


def test_without_replicates_the_interval_is_students_and_says_so() -> None:
    records = lines(without_replicates(score_records(scores(samples()))))
    row = rows_of(records)[0]
    values = [record["explanations"][0]["scores"][0]["top_and_random"] for record in records]
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert row["interval_over"] == "units"
    assert (row["low"], row["high"]) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_lines_without_excerpts_have_nearly_the_same_interval() -> None:
    """Their documents are not known: as many degrees of freedom as there are units."""
    slim = [record | {"excerpts": []} for record in explained()]
    row, known = rows_of(slim)[0], rows_of(explained())[0]
    assert row["interval_over"] == "units and documents"

    def factor(n: int) -> float:
        return float(scipy.stats.t.ppf(0.975, n - 1)) * ((n + 1) / (n - 1)) ** 0.5

    ratio = factor(40) / factor(30)  # units, documents
    assert row["high"] - row["low"] == pytest.approx(ratio * (known["high"] - known["low"]), rel=1e-6)


def test_one_score_without_replicates_makes_the_row_say_units() -> None:
    records = explained()
    records[7]["explanations"][0]["scores"][0].pop("replicates")
    found = {row["layer"]: row["interval_over"] for row in rows_of(records)}
    assert found == {"all": "units", 0: "units and documents", 1: "units"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=1, max_size=30))
def test_the_distribution_is_numpys(values: list[float | None]) -> None:
    scored = [
        {"method": "correlation", "simulator": "pattern", "top_and_random": value}
        | ({"absent": {"top_and_random": "constant prediction"}} if value is None else {})
        for value in values
    ]
    row = rows_of(lines(scored), by_layer=False)[0]
    known = np.array([value for value in values if value is not None])
    assert row["units"] == len(known) and row["absent"] == len(values) - len(known)
    assert row["over_0.7"] == np.sum(known > 0.7) / len(values)
    if len(known):
        assert row["mean"] == pytest.approx(known.mean(), abs=1e-12)
        assert row["mean_absent_as_0"] == pytest.approx(known.sum() / len(values), abs=1e-12)
        for name, share in {"min": 0, "q05": 5, "q25": 25, "median": 50, "q95": 95, "max": 100}.items():
            assert row[name] == pytest.approx(np.percentile(known, share), abs=1e-12)
    else:
        assert row["mean"] is row["median"] is row["low"] is None
    assert row["sd"] == (pytest.approx(known.std(ddof=1), abs=1e-12) if len(known) > 1 else None)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_units_does_not_matter(order: list[int]) -> None:
    records = explained(12)
    moved = rows_of([records[place] for place in order])
    for row, other in zip(rows_of(records), moved, strict=True):
        for name, value in row.items():
            assert other[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)


def test_failures_are_counted_and_never_a_zero() -> None:
    error = {"stage": "score", "kind": "no-pattern", "message": "?"}
    records = explained(6)
    records[0]["explanations"][0]["scores"] = [
        {"method": "correlation", "simulator": "pattern", "error": error}
    ]
    records[1]["explanations"] = [{"by": PATTERN, "error": error}]
    records[2]["explanations"], records[2]["dead"] = [], True
    run = distribution(records)
    found = {row["layer"]: (row["units"], row["failed"]) for row in run.rows(["top_and_random"], True)}
    assert found == {"all": (3, 2), 0: (1, 1), 1: (2, 1)}
    assert run.seen.described() == "6 units, 1 dead"


# Series and their names


def test_series_are_named_by_what_tells_them_apart() -> None:
    score = {"method": "correlation", "simulator": "pattern", "top_and_random": 0.5}
    by_model = score | {"simulator": "llama:x"}
    short, long = ({"explainer": "pattern", "literals": n, "version": 1} for n in (10, 30))
    record = {
        "explanations": [
            {"by": short, "scores": [score]},
            {"by": long, "scores": [score, by_model]},
            {"by": long, "scores": [score]},
            {"by": {"explainer": "person"}, "scores": [score]},
        ],
        "baselines": [{"name": "null", "scores": [score]}],
    }
    assert list(labels(entry.series for entry in entries(record)).values()) == [
        "pattern literals=10",
        "pattern literals=30",
        "pattern by llama:x literals=30",
        "pattern literals=30 #2",
        "person",
        "null",
    ]


def test_counts_are_no_figures_and_a_figure_may_be_1() -> None:
    records = explained(4)
    for record in records[:2]:
        record["explanations"][0]["scores"][0]["top_and_random"] = 1  # what some tools make of 1.0
    assert distribution(records).figures() == ["top_and_random", "top_only", "random_only"]


# The command


def test_a_pipe_ends_in_a_table(run: Run) -> None:
    done = run(f"nx-explain -q {UNITS} | nx-score -q > s.jsonl; nx-summary s.jsonl")
    assert done.returncode == 0, done.stderr
    rows = tsv(done.stdout)
    assert {row["series"] for row in rows} == {"pattern", "token-table", "token-list", "null"}
    assert done.stderr == b"nx-summary: 3 units, 1 dead; intervals over units and documents\n"
    scored = [orjson.loads(line) for line in run("cat s.jsonl").stdout.splitlines()]
    wanted = [e["scores"][0]["random_only"] for s in scored for e in s.get("explanations", [])]
    row = next(r for r in rows if (r["series"], r["figure"], r["layer"]) == ("pattern", "random_only", "all"))
    assert float(row["mean"]) == pytest.approx(np.mean(wanted), abs=1e-4)
    assert (row["units"], row["absent"], row["failed"]) == ("2", "0", "0")


def test_the_three_forms_say_the_same(run: Run) -> None:
    given = b"".join(map(dump, explained(8)))
    rows = tsv(run("nx-summary", stdin=given).stdout)
    said = run("nx-summary", "--format", "json", stdin=given).stdout.splitlines()
    assert [{name: cell(value) for name, value in orjson.loads(line).items()} for line in said] == rows
    assert len(rows) == 6
    table = run("nx-summary", "--format", "markdown", stdin=given).stdout.decode().splitlines()
    assert len(table) == 2 + len(rows) and len(set(map(len, table))) == 1
    assert f"{float(rows[0]['mean']):.3f} ± " in table[2]


@pytest.mark.parametrize("name", ["nx-summary", "nx-compare", "nx-convert --to neuron-explainer"])
def test_a_terminal_and_nothing_named_is_help_and_2(run: Run, name: str) -> None:
    ours, theirs = pty.openpty()
    done = run(*name.split(), stdin=theirs)
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(f"Usage: {name.split()[0]} ".encode())


def test_a_line_counts_as_a_whole_or_not_at_all() -> None:
    run, records = Distribution(), explained(2)
    records[1]["baselines"] = [{"name": "null", "scores": [{"x": 0.5, "replicates": {"x": "?"}}]}]
    run.add(records[0])
    with pytest.raises(InputError):
        run.add(records[1])
    assert run.seen.units == next(run.rows(["top_and_random"], False))["units"] == 1


def test_absences_have_their_reasons() -> None:
    records = explained(3)
    for record, why in zip(records, ("constant truth", "no top", "no top"), strict=True):
        score = record["explanations"][0]["scores"][0]
        score |= {"top_and_random": None, "absent": {"top_and_random": why}}
    row = rows_of(records)[0]
    assert row["absent_because"] == {"constant truth": 1, "no top": 2}


def test_rows_and_figures_can_be_chosen(run: Run) -> None:
    given = b"".join(map(dump, explained(8)))
    done = run("nx-summary", "--by", "run", "--figure", "top_only", "-q", stdin=given)
    assert [(row["figure"], row["layer"]) for row in tsv(done.stdout)] == [("top_only", "all")]
    wrong = run("nx-summary", "--figure", "skill", stdin=given)
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert b"no score has 'skill' (there are top_and_random, top_only, random_only)" in wrong.stderr


def test_nothing_in_is_nothing_out_and_units_without_scores_are_an_error(run: Run) -> None:
    done = run("nx-summary")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = run("nx-summary", UNITS)
    assert done.returncode == 3
    assert done.stderr == b"nx-summary: no unit has a score (pipe the output of nx-score in)\n"


def test_what_cannot_be_read_is_named_or_skipped(run: Run) -> None:
    spoiled = explained(3)
    spoiled[1]["explanations"][0]["scores"][0]["replicates"] = {"top_and_random": "AAAA"}
    given = b"".join(map(dump, spoiled))
    done = run("nx-summary", stdin=given)
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(b"nx-summary: stdin:2: the field 'replicates' holds 3 bytes, not 400")
    done = run("nx-summary", "--keep-going", "--by", "run", stdin=given)
    assert done.returncode == 1 and b"stdin:2" in done.stderr
    assert tsv(done.stdout)[0]["units"] == "2"
    assert run("nx-summary", "--keep-going", "--allow-errors", "1", stdin=given).returncode == 0


def test_plots_are_drawn_and_the_same_again(run: Run) -> None:
    given = b"".join(map(dump, explained(8)))
    for name in ("a.svg", "b.svg", "c.png"):
        assert run("nx-summary", "-q", "--plot", name, stdin=given).returncode == 0
    first, second = (run("cat", name).stdout for name in ("a.svg", "b.svg"))
    assert first == second
    text = "".join(xml.etree.ElementTree.fromstring(first).itertext())
    assert "pattern (n = 8)" in text and "by layer, with 95% intervals" in text
    assert run("cat", "c.png").stdout.startswith(b"\x89PNG")
    wrong = run("nx-summary", "--plot", "a.pdf", stdin=given)
    assert wrong.returncode == 2 and b".svg or .png" in wrong.stderr


def test_without_matplotlib_a_plot_is_a_usage_error_that_says_what_to_install(
    run: Run, environment: dict[str, str]
) -> None:
    hidden = "import sys; sys.modules['matplotlib'] = None"
    program = f"{hidden}; sys.argv = ['nx-summary', '--plot', 'a.svg']; "
    program += "from nxtools.commands.summary import main; main()"
    done: subprocess.CompletedProcess[bytes] = run(
        environment["NXTOOLS_PYTHON"], "-c", program, stdin=b"".join(map(dump, explained(4)))
    )
    assert done.returncode == 2
    assert b"--plot needs matplotlib (pip install 'nxtools[plot]')" in done.stderr
