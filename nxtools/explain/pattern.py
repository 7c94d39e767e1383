"""Explanations without a language model: a pattern learned from evidence and the random pool."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nxtools.stage import Failure
from nxtools.stream import Record
from nxtools.unit import Unit

if TYPE_CHECKING:
    from nxtools.pool import Shared

VERSION = 1  # of the question: raise it when the learner would answer differently


@dataclass(frozen=True)
class Budget:
    """How long an explanation may be."""

    literals: int = 30
    characters: int | None = 300


def question(unit: Unit, pool: str | None, budget: Budget) -> Record:
    """All that a learned pattern depends on; `pool` is the digest of the pool that is at hand."""
    return {
        "sign": unit.sign,
        "evidence": unit.shown("evidence").question(),
        "validation": unit.shown("validation").question(),
        "pool": None if pool is None or unit.pool is None else [pool, unit.pool["column"]],
        "vocabulary": None if pool is not None else sorted(unit.vocabulary.items()),
        "literals": budget.literals,
        "characters": budget.characters,
    }


def identify(explanation: Record) -> Record:
    """The explanation with the id that its text and its author give it."""
    seed = repr((explanation["text"], sorted(explanation["by"].items()))).encode("utf-8", "replace")
    return {"id": hashlib.sha256(seed).hexdigest()[:12], **explanation}


def explain(unit: Unit, shared: Shared | None, budget: Budget) -> Record | Failure:
    """What a learned pattern puts on the unit line, without its author: text, scale and coverage."""
    from nxtools.pattern.index import PoolIndex
    from nxtools.pattern.learn import Sample, learn
    from nxtools.pattern.lexicon import Lexicon

    shown = unit.shown("evidence")
    rows = [place for place, pick in enumerate(shown.picks) if shared is None or pick != "random"]
    ids, activations = shown.table.ids[rows], shown.table.activations[rows]
    if not np.isfinite(activations).any():
        return Failure("explain", "no-evidence", "no excerpt of the evidence has an activation")
    if shared is None:
        empty = ids[:0]
        index = PoolIndex(empty, empty.astype(bool), Lexicon(unit.vocabulary))
        pool = activations[:0]
    else:
        index, pool = shared.contexts, shared.activations(unit, "evidence")
    learned = learn(
        index, pool, Sample(ids, activations), literals=budget.literals, characters=budget.characters
    )
    return {
        "text": learned.text,
        "scale": float(f"{learned.scale:.4g}"),
        "coverage": round(learned.coverage, 3),
    }
