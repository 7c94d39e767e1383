"""Explanations without a language model: a pattern learned from evidence and the random pool."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.corpus import Means
from nxtools.pattern.fit import Budget
from nxtools.pattern.learn import Learner, Sample
from nxtools.pattern.lexicon import Lexicon
from nxtools.records import NO_TOKEN
from nxtools.stage import Failure
from nxtools.stream import Record
from nxtools.unit import Unit

if TYPE_CHECKING:
    from nxtools.pool import Shared
    from nxtools.recordings.table import Column

VERSION = 13  # of the question: raise it when the learner would answer differently


# GELU goes down to -0.17, SiLU to -0.28: where a unit of one side goes no lower, that is its lowest level.
TAIL = 0.3


def question(
    unit: Unit,
    digests: Mapping[str, str],
    pool: str | None,
    budget: Budget,
    table: Sequence[Any] | None = None,
) -> Record:
    """All that a learned pattern depends on.

    digests: of the unit's excerpts, by set; pool, table: those of the pool and the corpus table at hand.
    """
    return {
        "sign": unit.sign,
        "evidence": digests["evidence"],
        "validation": digests["validation"],
        "pool": None if pool is None or unit.pool is None else [pool, unit.pool["column"]],
        "vocabulary": None if pool is not None else sorted(unit.vocabulary.items()),
        "literals": budget.literals,
        "characters": budget.characters,
        **({} if pool is None or table is None else {"table": table}),
    }


def identify(explanation: Record) -> Record:
    """The explanation with the id that its text and its author give it."""
    seed = repr((explanation["text"], sorted(explanation["by"].items()))).encode("utf-8", "replace")
    return {"id": hashlib.sha256(seed).hexdigest()[:12], **explanation}


def to_run(explanation: Record) -> str | None:
    """The sentence that stands for an explanation where patterns are run: its text, or what `pattern` says
    beside words; None where no pattern says them."""
    found = explanation.get("pattern", explanation.get("text"))
    return found if isinstance(found, str) else None


def explain(
    unit: Unit, shared: Shared | None, budget: Budget, table: Column | None = None
) -> Record | Failure:
    """What a learned pattern puts on the unit line, without its author: text, scale and coverage.

    table: the unit's column of the corpus table, which goes with a pool.
    """
    evidence, validation = (_own(unit, which, shared) for which in ("evidence", "validation"))
    if not np.isfinite(evidence.activations).any():
        return Failure("explain", "no-evidence", "no excerpt of the evidence has an activation")
    if shared is None:
        nothing = evidence.ids[:0]
        empty = nothing.astype(bool)
        seen = np.unique(np.concatenate([evidence.ids.ravel(), validation.ids.ravel()]))
        there = seen[None, seen != NO_TOKEN]  # kinds are made of these
        learner = Learner(Lexicon(unit.vocabulary), nothing, empty, there, np.zeros(there.shape, bool))
        pool, validation_pool = evidence.activations[:0], np.zeros(there.shape, np.float32)
    else:
        learner = shared.learner_with(None if table is None else table.table)
        pool, validation_pool = (shared.activations(unit, which) for which in ("evidence", "validation"))
    floor = _floor(unit.sign, evidence.activations, pool)

    def told(activations: NDArray[np.float32]) -> NDArray[np.float32]:
        return side(activations - floor, unit.sign)

    means = None if table is None or shared is None else Means(table.values, pool, told)
    learned = learner.learn(
        evidence._replace(activations=told(evidence.activations)),
        told(pool),
        validation._replace(activations=told(validation.activations)),
        told(validation_pool),
        budget,
        means=means,
        zero=-float(floor),
    )
    return {
        "text": str(learned.pattern),
        "scale": float(f"{learned.scale:.4g}"),
        "coverage": None if learned.coverage is None else round(learned.coverage, 3),
    }


def _floor(sign: str, *activations: NDArray[np.float32]) -> np.float32:
    """What a pattern calls 0: the bottom of a small tail beyond zero, so that nothing is called negative."""
    if sign == "+-":
        return np.float32(0)
    turn = np.float32(1 if sign == "+" else -1)
    lowest = min(float(np.fmin.reduce(turn * a, axis=None, initial=np.inf)) for a in activations)
    return turn * np.float32(lowest if -TAIL <= lowest < 0 else 0.0)


def _own(unit: Unit, which: str, shared: Shared | None) -> Sample:
    """The unit's own excerpts; without those picked at random where there is a pool, since they are in it."""
    shown = unit.shown(which)
    rows = [place for place, pick in enumerate(shown.picks) if shared is None or pick != "random"]
    return Sample(shown.table.ids[rows], shown.table.activations[rows])


def side(activations: NDArray[np.float32], sign: str) -> NDArray[np.float32]:
    """Activations with the side that is not explained set to 0."""
    if sign == "+":
        return np.maximum(activations, np.float32(0))
    return np.minimum(activations, np.float32(0)) if sign == "-" else activations
