"""What a score may not depend on: nothing learned from held-out excerpts, nothing left when order is lost."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nxtools.explain.pattern import explain
from nxtools.pattern.fit import Budget
from nxtools.records import SETS
from nxtools.score.calibration import KINDS
from nxtools.score.series import Job, Target, score
from nxtools.stage import Failure
from nxtools.stream import Record
from nxtools.unit import Unit

TOKENS = 24
WORDS = [f" w{n}" for n in range(40)]


def unit(seed: int, index: int = 0) -> Record:
    """A unit that fires on a few words, more after some others, with a little noise."""
    rng = np.random.default_rng([seed, index])
    level = np.where(rng.uniform(size=len(WORDS)) < 0.15, rng.gamma(4.0, size=len(WORDS)), 0.0)
    before = rng.uniform(size=len(WORDS)) < 0.3
    excerpts = []
    for which, (top, random) in zip(SETS, ((10, 10), (5, 5), (5, 5)), strict=True):
        ids = rng.integers(len(WORDS), size=(60, TOKENS))
        after = np.roll(before[ids], 1, axis=1)
        values = level[ids] * (1 + after) + np.maximum(rng.normal(0, 0.2, ids.shape), 0)
        order = np.argsort(-values.max(axis=1))
        rows = [("top", row) for row in order[:top]] + [("random", row) for row in order[top::4][:random]]
        excerpts += [
            {
                "id": f"{which} {row}",
                "document": f"{which} {row}",
                "set": which,
                "pick": pick,
                "ids": ids[row].tolist(),
                "tokens": [WORDS[token] for token in ids[row]],
                "activations": np.round(values[row], 4).tolist(),
            }
            for pick, row in rows
        ]
    return {"kind": "unit", "v": 1, "unit": {"layer": 0, "index": index}, "excerpts": excerpts}


def text_of(record: Record) -> str:
    made = explain(Unit(record), None, Budget(10, None))
    assert not isinstance(made, Failure)
    return str(made["text"])


def scored(record: Record, text: str, **more: Any) -> Record:
    (found,) = score([Job(Target(Unit(record), lambda unit: None), "explanation", text=text, **more)])
    assert not isinstance(found, Failure)
    return found["score"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_nothing_is_learned_from_held_out_excerpts(seed: int, other: int) -> None:
    """Whatever they hold: the pattern, the tables and the calibrations are the same."""
    record = unit(seed)
    changed = copy.deepcopy(record)
    rng = np.random.default_rng(other)
    for excerpt in changed["excerpts"]:
        if excerpt["set"] == "held-out":
            excerpt["activations"] = rng.gamma(1.0, size=TOKENS).round(4).tolist()
            excerpt["ids"] = rng.integers(len(WORDS), size=TOKENS).tolist()
            excerpt["tokens"] = [WORDS[token] for token in excerpt["ids"]]
    text = text_of(record)
    assert text_of(changed) == text
    every = np.arange(len(WORDS))
    for mine, theirs in zip(
        *(Target(Unit(one), lambda unit: None).baselines(10) for one in (record, changed)), strict=True
    ):
        assert (mine.predict(every) == theirs.predict(every)).all()
    for kind in KINDS[:-1]:  # "scored" is fitted on them, and says so
        one, two = (
            scored(each, text, calibration=kind)["calibrated"]["top_and_random"] for each in (record, changed)
        )
        told = ("slope", "intercept", "points")
        assert [one.get(name) for name in told] == [two.get(name) for name in told]


def test_shuffled_within_excerpts_nothing_is_left_to_explain() -> None:
    """The same numbers at other tokens: explanations of them score nothing on average."""
    kept, lost = [], []
    for index in range(24):
        record = unit(7, index)
        kept.append(scored(record, text_of(record))["random_only"])
        rng = np.random.default_rng(index)
        for excerpt in record["excerpts"]:
            excerpt["activations"] = rng.permutation(excerpt["activations"]).tolist()
        value = scored(record, text_of(record))["random_only"]
        lost.append(0.0 if value is None else value)
    assert np.mean(kept) > 0.7
    error = float(np.std(lost, ddof=1)) / len(lost) ** 0.5
    assert abs(float(np.mean(lost))) < 3 * error + 0.02


def test_the_order_of_tokens_ids_does_not_matter() -> None:
    """Numbered otherwise, the same words give the same explanation and score."""
    record = unit(3)
    other = copy.deepcopy(record)
    number = np.random.default_rng(0).permutation(1000)
    for excerpt in other["excerpts"]:
        excerpt["ids"] = number[excerpt["ids"]].tolist()
    mine, theirs = (scored(one, text_of(record)) for one in (record, other))
    assert theirs["top_and_random"] == pytest.approx(mine["top_and_random"], abs=1e-3)


@pytest.mark.parametrize("factor", [0.01, 1.0, 300.0])
def test_a_unit_scaled_out_scores_the_same(factor: float) -> None:
    record = unit(5)
    for excerpt in record["excerpts"]:
        excerpt["activations"] = [value * factor for value in excerpt["activations"]]
    base = unit(5)
    assert text_of(record) == text_of(base)
    assert scored(record, text_of(record))["top_and_random"] == pytest.approx(
        scored(base, text_of(base))["top_and_random"], abs=1e-3
    )
