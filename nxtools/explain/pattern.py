"""Explanations without a language model: a pattern learned from evidence and the random pool."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.fit import Budget
from nxtools.pattern.learn import Learner, Sample
from nxtools.pattern.lexicon import Lexicon
from nxtools.records import NO_TOKEN
from nxtools.stage import Failure
from nxtools.stream import Record
from nxtools.unit import Unit

if TYPE_CHECKING:
    from nxtools.pool import Shared

VERSION = 3  # of the question: raise it when the learner would answer differently


def question(unit: Unit, digests: Mapping[str, str], pool: str | None, budget: Budget) -> Record:
    """All that a learned pattern depends on.

    digests: of the unit's excerpts, by set; pool: that of the pool that is at hand.
    """
    return {
        "sign": unit.sign,
        "evidence": digests["evidence"],
        "validation": digests["validation"],
        "pool": None if pool is None or unit.pool is None else [pool, unit.pool["column"]],
        "vocabulary": None if pool is not None else sorted(unit.vocabulary.items()),
        "literals": budget.literals,
        "characters": budget.characters,
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


def explain(unit: Unit, shared: Shared | None, budget: Budget) -> Record | Failure:
    """What a learned pattern puts on the unit line, without its author: text, scale and coverage."""
    own, validation = (_own(unit, which, shared) for which in ("evidence", "validation"))
    if not np.isfinite(own.activations).any():
        return Failure("explain", "no-evidence", "no excerpt of the evidence has an activation")
    if shared is None:
        nothing = own.ids[:0]
        empty = nothing.astype(bool)
        seen = np.unique(np.concatenate([own.ids.ravel(), validation.ids.ravel()]))
        there = seen[None, seen != NO_TOKEN]  # kinds are made of these
        learner = Learner(Lexicon(unit.vocabulary), nothing, empty, there, np.zeros(there.shape, bool))
        pool, validation_pool = own.activations[:0], np.zeros(there.shape, np.float32)
    else:
        learner = shared.learner
        pool, validation_pool = (
            side(shared.activations(unit, which), unit.sign) for which in ("evidence", "validation")
        )
    learned = learner.learn(own, pool, validation, validation_pool, budget)
    return {
        "text": str(learned.pattern),
        "scale": float(f"{learned.scale:.4g}"),
        "coverage": None if learned.coverage is None else round(learned.coverage, 3),
    }


def _own(unit: Unit, which: str, shared: Shared | None) -> Sample:
    """The unit's own excerpts; without those picked at random where there is a pool, since they are in it."""
    shown = unit.shown(which)
    rows = [place for place, pick in enumerate(shown.picks) if shared is None or pick != "random"]
    return Sample(shown.table.ids[rows], side(shown.table.activations[rows], unit.sign))


def side(activations: NDArray[np.float32], sign: str) -> NDArray[np.float32]:
    """Activations with the side that is not explained set to 0: the tail of a GELU below zero is no story."""
    if sign == "+":
        return np.maximum(activations, np.float32(0))
    return np.minimum(activations, np.float32(0)) if sign == "-" else activations
