"""Counterexamples: where an explanation says something else than the subject, and who gets to see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score.figures import short
from nxtools.stream import Record

SORTS = ("false-positive", "false-negative")
SHOWN = 5  # counterexamples of each sort and source that a reviser sees, and as many that only scores see
WRONG = 0.2  # of the activation that is 10: two levels of ten
AROUND = 8  # tokens of a counterexample that stand on the line

Floats = NDArray[np.floating[Any]]


def apart(said: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """By how much each text (n, tokens) is overpredicted where that is worst, and by how much under: (n,)."""
    over = np.nan_to_num(np.abs(said) - np.abs(truth), nan=0.0)
    return over.max(1, initial=0.0), (-over).max(1, initial=0.0)


def counterexamples(said: Floats, truth: Floats, scale: float) -> tuple[list[int], list[int]]:
    """Texts (n, tokens) that are false positives (more is said than there is) and false negatives, worst
    first. scale: the activation that is 10."""
    over, under = apart(said, truth)
    positive, wrong = over >= under, max(scale, 1e-12) * WRONG
    false_positives = [row for row in np.argsort(-over) if positive[row] and over[row] > wrong]
    false_negatives = [row for row in np.argsort(-under) if not positive[row] and under[row] > wrong]
    return list(map(int, false_positives)), list(map(int, false_negatives))


def dealt(rows: Sequence[int], known: Mapping[int, str] | None = None) -> list[tuple[int, str]]:
    """The worst of one sort, every other one for the reviser and for scores. known: what earlier rounds
    made of texts, which no later one changes: what a reviser has seen never scores it."""
    known = known or {}
    found: list[tuple[int, str]] = []
    turn = 0
    for row in rows:
        if len(found) == 2 * SHOWN:
            break
        role = known.get(row)
        if role is None:
            role = "reviser" if turn % 2 == 0 else "scores"
            turn += 1
        found.append((row, role))
    return found


def around(tokens: Sequence[str], truth: Floats, said: Floats) -> Record:
    """A counterexample for the line: tokens up to where it is worst, what is there, and what was said."""
    worst = int(np.nanargmax(np.abs(said - truth)))
    return {
        "tokens": list(tokens[max(0, worst - AROUND + 1) : worst + 1]),
        "activation": short(float(truth[worst])),
        "expected": short(float(said[worst])),
    }
