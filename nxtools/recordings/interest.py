"""What units can be sorted by to find the interesting ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from nxtools.contexts.curve import rank
from nxtools.records import excerpts_of, objects, sides_of, sign_of, tabulate
from nxtools.stream import Record

ON_LINES = {"context": "nx-contexts", "score": "nx-score", "gap": "nx-score"}  # who puts them there
SCORED = ("score", "gap")  # take a figure
TABLES = ("token-table", "corpus-table")


def value(record: Record, key: str, figure: str = "top_and_random") -> float | None:
    """The number that a unit line has for a key: one of ON_LINES, `start`, or what its statistics have.

    None where it has none. InputError where a line is not what it should be.
    """
    if key == "context":
        shortest = (record.get("contexts") or {}).get("shortest")
        return None if shortest is None else rank(shortest)
    if key == "start":
        return _start(record)
    if key in SCORED:
        told = [e for e in objects(record, "explanations", optional=True) if "error" not in e]
        score = _score(told[0], figure) if told else None
        return score if key == "score" else _gap(record, score, figure)
    return _number((record.get("stats") or {}).get(key))


def _start(record: Record) -> float | None:
    """How far from the start of a document the unit is strongest, in tokens: mean over the top excerpts of
    the evidence, or the bottom ones where only the negative side is explained."""
    side = sides_of(sign_of(record))[0]
    excerpts = [e for e in excerpts_of(record, ["evidence"], [side]) if type(e.get("start")) is int]
    rows = tabulate(excerpts).activations * np.float32(-1 if side == "bottom" else 1)
    places = [
        e["start"] + int(np.nanargmax(row))
        for e, row in zip(excerpts, rows, strict=True)
        if not np.isnan(row).all()
    ]
    return sum(places) / len(places) if places else None


def _gap(record: Record, score: float | None, figure: str) -> float | None:
    """What the explanation scores beyond the best table of tokens: high where tokens alone do not explain."""
    baselines = objects(record, "baselines", optional=True)
    by_tokens = [_score(one, figure) for one in baselines if one.get("name") in TABLES]
    there = [one for one in by_tokens if one is not None]
    return None if score is None or not there else score - max(there)


def _score(entry: Record, figure: str) -> float | None:
    """The first score that has the figure."""
    scores = objects(entry, "scores", optional=True)
    found = (_number(score.get(figure)) for score in scores)
    return next((one for one in found if one is not None), None)


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None
