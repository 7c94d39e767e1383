"""The simulator of pattern explanations: it runs the sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nxtools.errors import InputError
from nxtools.pattern.execute import execute
from nxtools.pattern.language import parse
from nxtools.pattern.lexicon import Lexicon
from nxtools.stage import Failure
from nxtools.unit import Shown, Unit

VERSION = 2  # of the question: raise it when a simulation would come out differently


def question(
    text: str, scale: float | None, shown: Sequence[Shown], unit: Unit, pool: str | None
) -> dict[str, Any]:
    """All that a simulation depends on. The vocabulary is the pool's, or that of the line."""
    words = pool if pool is not None else [unit.vocabulary[id] for id in sorted(unit.vocabulary)]
    return {
        "text": text,
        "scale": scale,
        "ids": [one.table.ids for one in shown],
        "left_out": [np.isnan(one.table.activations).astype(np.int32) for one in shown],
        "vocabulary": words,
    }


def simulate(
    text: str, scale: float | None, shown: Sequence[Shown], lexicon: Lexicon
) -> list[list[float | None]] | Failure:
    """Expected activations by excerpt, to four significant digits of the scale; None where left out."""
    try:
        pattern = parse(text)
        predicted = [execute(pattern, one.table.ids, lexicon) for one in shown]
    except InputError as error:  # no pattern, or one that needs what is not at hand
        return Failure("simulate", "no-pattern", str(error))
    factor = 1.0 if scale is None else scale
    digits = 3 - int(np.floor(np.log10(factor))) if factor > 0 else 3
    found: list[list[float | None]] = []
    for one, values in zip(shown, predicted, strict=True):
        rows = np.round(values.astype(np.float64) * factor, digits) + 0.0
        out = np.isnan(one.table.activations)
        for row, left_out in zip(rows.tolist(), out, strict=True):
            found.append(
                [None if gone else value for value, gone in zip(row, left_out.tolist(), strict=True)]
            )
    return found
