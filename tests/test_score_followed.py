"""What nx-score does with several explanations and simulations of a unit, and which its table follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import UNITS, Run
from pooled import put_pool

from nxtools.commands._explained import predictions
from nxtools.records import SETS, Failure
from nxtools.store import Store

Record = dict[str, Any]

MINE = "nx-explain -q --text 'word-start (10)'"


@pytest.mark.parametrize(
    ("pipe", "columns"),
    [
        (f"{MINE} {UNITS}", ["explanation"]),  # the only one
        (f"nx-explain -q {UNITS} | {MINE}", ["explanation", "human"]),  # beside that of another author
    ],
)
def test_a_pattern_of_ones_own_has_a_column(run: Run, pipe: str, columns: list[str]) -> None:
    done = run(f"{pipe} | nx-score --baselines none")
    assert done.returncode == 0, done.stderr
    head, *rows = done.stderr.decode().splitlines()
    assert head.split("(units)")[1].split() == columns
    assert len(rows[0].split("(")) == 1 + len(columns)
    assert not any("further" in row for row in rows)


def test_scores_that_the_table_does_not_follow_are_counted(run: Run) -> None:
    done = run(f"nx-explain -q {UNITS} | nx-explain -q --literals 2 | nx-score --baselines none")
    assert b"\nnx-score: 2 scores of further explanations stand on the lines (nx-summary)\n" in done.stderr
    series = run("nx-summary -q --by run --figure top_and_random", stdin=done.stdout).stdout.decode()
    assert "pattern literals=30" in series and "pattern literals=2" in series


def test_a_pattern_that_was_simulated_is_scored_on_the_pool_like_any_other(
    run: Run, tmp_path: Path, units: list[Record]
) -> None:
    unit = units[1]
    vocabulary = {
        number: text for e in unit["excerpts"] for number, text in zip(e["ids"], e["tokens"], strict=True)
    }
    numbers = sorted(vocabulary)
    drawn = np.random.default_rng(0)
    ids = {which: drawn.choice(numbers, (6, 8)) for which in SETS}
    rows = {which: drawn.uniform(0, 4, (1, 6, 8)).astype(np.float32) for which in SETS}
    with Store(tmp_path / "cache") as store:
        texts = [vocabulary.get(number, "?") for number in range(numbers[-1] + 1)]
        blob = put_pool(store, texts, ids, rows)
    line = orjson.dumps(unit | {"pool": {"blob": blob, "column": 0}}) + b"\n"
    found = [
        run(f"{MINE} | {simulated} nx-score -q --baselines none", stdin=line)
        for simulated in ("", "nx-simulate -q |")
    ]
    scores = [orjson.loads(done.stdout)["explanations"][0]["scores"] for done in found]
    assert scores[0] == scores[1] and scores[0][0]["pool"] is not None


def test_who_predicts_with_an_explanation() -> None:
    asked = {"text": "in words", "by": {"explainer": "openai:m"}}
    by = {"simulator": "openai:m"}
    simulations = [{"by": by, "excerpt": "a", "expected": [1.0]}, {"by": by, "excerpt": "b", "error": {}}]
    assert predictions(asked | {"simulations": simulations}) == [("openai:m", by, {"a": [1.0]})]
    ((_, _, none),) = predictions(asked | {"simulations": simulations[1:]})
    assert isinstance(none, Failure) and none.kind == "no-simulation"
    pattern = {"text": '" the"', "by": {"explainer": "pattern"}}
    assert predictions(pattern) == [("pattern", {}, '" the"')]
    ours = {"simulator": "pattern", "version": 2}
    stale = [{"by": ours, "excerpt": "a", "expected": [1.0]}]
    assert predictions(pattern | {"simulations": stale}) == [("pattern", ours, '" the"')]
    ((_, _, words),) = predictions({"text": "words of mine", "by": {"explainer": "human"}})
    assert isinstance(words, Failure) and words.kind == "no-pattern"
