"""nx-score --explanations-from: explanations of one run scored on the units of another."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
from conftest import UNITS, Run

from nxtools.stream import Record


def explained(run: Run, path: Path) -> list[Record]:
    done = run("nx-explain", "-q", UNITS, "-o", path)
    assert done.returncode == 0, done.stderr
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def texts(lines: list[Record]) -> list[list[str]]:
    return [[e["text"] for e in unit.get("explanations", [])] for unit in lines]


def scored(run: Run, *args: str) -> tuple[list[Record], str]:
    done = run("nx-score", "--baselines", "none", *args)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def test_a_run_given_its_own_explanations_scores_as_it_did(run: Run, tmp_path: Path) -> None:
    own = explained(run, path := tmp_path / "explained.jsonl")
    before, _ = scored(run, str(path))
    after, _ = scored(run, "--explanations-from", str(path), str(UNITS))
    assert texts(after) == texts(own)
    for one, other in zip(before, after, strict=True):
        pairs = zip(one.get("explanations", []), other.get("explanations", []), strict=True)
        for mine, theirs in pairs:
            assert theirs["scores"] == mine["scores"]
            assert theirs["explains"]["index"] == one["unit"]["index"]


def test_shifted_every_explanation_goes_to_the_unit_before_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "explained.jsonl"
    own = [unit for unit in explained(run, path) if unit.get("explanations")]
    moved, _ = scored(run, "--explanations-from", str(path), "--map", "shift", str(path))
    for layer in {unit["unit"]["layer"] for unit in own}:
        mine, theirs = (
            texts([u for u in lines if u["unit"]["layer"] == layer and u.get("explanations")])
            for lines in (own, moved)
        )
        assert theirs == mine[1:] + mine[:1]


def test_units_without_a_counterpart_are_counted(run: Run, tmp_path: Path) -> None:
    own = explained(run, tmp_path / "explained.jsonl")
    (tmp_path / "one.jsonl").write_bytes(orjson.dumps(own[0]) + b"\n")
    found, said = scored(run, "--explanations-from", str(tmp_path / "one.jsonl"), str(UNITS))
    assert f"{len(own) - 1} units have no counterpart" in said
    assert [bool(unit["explanations"]) for unit in found] == [True] + [False] * (len(own) - 1)


def test_a_file_without_explanations_is_an_error(run: Run) -> None:
    done = run("nx-score", "--explanations-from", UNITS, UNITS)
    assert done.returncode == 3 and "no unit has an explanation" in done.stderr.decode()
    assert run("nx-score", "--map", "shift", UNITS).returncode == 2
