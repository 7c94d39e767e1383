"""How good a simulator is, measured where the truth is known: patterns have an exact executor.

The simulator is given sentences of the pattern language and a few texts, and what it predicts is correlated
with what the sentences predict when they are run. That is a ceiling: no score that is made with the simulator
can be expected to exceed it. Questions and answers are those of any simulation, so the store keeps them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nxtools.pattern.execute import execute
from nxtools.pattern.language import parse
from nxtools.score.bootstrap import student
from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.stream import Record
from nxtools.unit import Unit

VERSION = 1  # of sentences and texts
SET = "held-out"

SENTENCES = (
    '" not" (9)',
    '" the" (4); " a" or " an" (8)',
    '"," or "." (7)',
    '" all" (2, but 10 after " not")',
    '" one", " two" or " three" (9); " hundred" (5)',
    '" water" or " river" (10); " boat" (6); " shore" (4)',
    '" she" (8); " he" (3)',
    '" up" after " gave" (10)',
)

TEXTS = (
    "The river was low, and not all of the boats could leave the shore. She waited for the water to rise.",
    "He gave up after two hours. It was not a hard problem, she said, only a long one.",
    "Of the three hundred letters, one was not for him. An answer came within a week.",
    "She gave the boat a name and looked up at the sky, where all the clouds had gone.",
    "Not all is lost, he wrote, for the two of them still have a house, an orchard and one good horse.",
    "A hundred steps lead down to the water. The boat that he gave away lies there, not far from the shore.",
)


def units() -> list[Record]:
    """A made-up unit for each sentence, all with the same excerpts, that has it for its explanation."""
    vocabulary: dict[str, int] = {}
    excerpts = []
    for place, text in enumerate(TEXTS):
        tokens = re.findall(r" ?\w+|[^\w\s]", text)
        excerpts.append(
            {
                "id": f"check-{place}",
                "set": SET,
                "pick": "random",
                "ids": [vocabulary.setdefault(token, len(vocabulary)) for token in tokens],
                "tokens": tokens,
                "activations": [0.0] * len(tokens),
            }
        )
    return [
        {
            "kind": "unit",
            "v": 1,
            "unit": {"layer": 0, "index": number, "sign": "+"},
            "excerpts": excerpts,
            "explanations": [{"id": f"check-{number}", "text": sentence, "scale": 10.0, "by": {}}],
        }
        for number, sentence in enumerate(SENTENCES)
    ]


def question(by: Mapping[str, Any]) -> tuple[str, int, Record]:
    """What is asked when the simulator that signs as `by` is measured: operation, version and fields.

    A model's name, and which numbers its tokenizer has, follow from its identity.
    """
    fields = {name: value for name, value in by.items() if name not in ("simulator", "numbers", "prompt")}
    return "simulate.check", VERSION, fields | {"prompt": (by.get("prompt") or {}).get("sha256")}


def described(by: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    """The ceiling of a simulator for people; found: what `measured` said of it, if it was asked."""
    who = f"{by.get('simulator')}, {str(by.get('method')).replace('-', ' ')}"
    if found is None:
        return f"ceiling of {who}: not measured (nx-simulate --check, with the same options, does it)"
    if found["correlation"] is None:
        return f"ceiling of {who}: none, it follows no pattern at all"
    margin = "" if found["margin"] is None else f" ±{found['margin']:.2f}"
    failed = f", {found['failed']:.1%} of tokens without a number" if found["failed"] else ""
    return f"ceiling of {who}: {found['correlation']:.2f}{margin} ({found['sentences']} patterns){failed}"


def measured(simulated: Iterable[Record]) -> Record:
    """What comes of the simulated units: the mean correlation with exact execution over the sentences that
    have one, with its 95% interval (Student's, over the sentences) as `margin`; the mean mass on numbers, the
    share of tokens that failed."""
    values: list[float] = []
    masses: list[float] = []
    tokens = failed = 0
    by: Any = None
    for record in simulated:
        (explanation,) = record["explanations"]
        shown = Unit(record).shown(SET)
        exact = execute(parse(explanation["text"]), shown.table.ids, shown.table.vocabulary).astype(
            np.float64
        )
        exact[np.isnan(shown.table.activations)] = np.nan
        predicted = np.full(exact.shape, np.nan)
        for simulation in explanation["simulations"]:
            by = by or simulation["by"]
            if "expected" in simulation:
                row = shown.excerpts.index(simulation["excerpt"])
                expected = np.array(simulation["expected"], np.float64)
                predicted[row, : len(expected)] = expected
                masses += [mass for mass in simulation.get("mass", ()) if mass is not None]
        tokens += int((~np.isnan(exact)).sum())
        failed += int((~np.isnan(exact) & np.isnan(predicted)).sum())
        value = float(correlation(excerpt_sums(exact, predicted).sum(0)))
        values += [] if np.isnan(value) else [value]
    return {
        "kind": "check",
        "v": 1,
        "by": by,
        "correlation": round(float(np.mean(values)), 4) if values else None,
        "margin": round(_margin(values), 4) if len(values) > 1 else None,
        "sentences": len(values),
        "mass": round(float(np.mean(masses)), 4) if masses else None,
        "tokens": tokens,
        "failed": round(failed / tokens, 4),
    }


def _margin(values: list[float]) -> float:
    """Half of the 95% interval of a mean."""
    return student(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
