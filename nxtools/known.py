"""What questions need to know of a unit's excerpts: digests, found once for the same bytes.

The digests are of the excerpts as arrays, so that they do not depend on how the line was printed. To make
them all excerpts must be read, so what came of it is kept in the store under the line's bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from nxtools.errors import InputError
from nxtools.folded import Folded
from nxtools.records import SETS
from nxtools.stage import Failure, LocalEngine, Question
from nxtools.unit import Shown, Unit

VERSION = 2  # of the digests


@dataclass(frozen=True)
class Known:
    """digests: of the excerpts, by set; documents: those of the held-out excerpts, in order."""

    digests: dict[str, str]
    documents: tuple[str, ...]


def known(unit: Unit) -> Generator[Sequence[Question], list[Any], Known]:
    """For the step of a command: what is known of the unit. InputError when its excerpts cannot be read."""
    excerpts = unit.excerpts
    if not isinstance(excerpts, Folded):
        return _known(_look(unit))
    # Where each set is stands in the answer too.
    fields = {"bytes": hashlib.sha256(excerpts.raw).digest()}
    (found,) = yield [Question("excerpts", VERSION, fields, _engine, unit, kind="excerpts", counted=False)]
    if isinstance(found, Failure):
        found = _look(unit)  # raises what is wrong, where it can be told which line it is
    excerpts.sound = True
    excerpts.spans = found["spans"]
    return _known(found)


def _known(found: dict[str, Any]) -> Known:
    return Known(found["digests"], tuple(found["documents"]))


def _look(unit: Unit) -> dict[str, Any]:
    digests = {which: _digest(unit.shown(which)) for which in SETS}
    spans = unit.excerpts.spans if isinstance(unit.excerpts, Folded) else None
    return {"digests": digests, "documents": unit.shown("held-out").documents, "spans": spans}


def _digest(shown: Shown) -> str:
    """Of all of the excerpts that an answer can depend on."""
    import numpy as np

    from nxtools.store import question_digest

    fields: dict[str, Any] = {
        "ids": shown.table.ids,
        "activations": shown.table.activations,
        "picks": list(shown.picks),
        "documents": list(shown.documents),
        "probabilities": np.array(shown.probabilities, np.float32),  # None becomes NaN
    }
    return question_digest("excerpts", VERSION, fields)


def _look_at_many(units: list[Unit]) -> list[Any]:
    found: list[Any] = []
    for unit in units:
        try:
            found.append(_look(unit))
        except InputError as error:
            found.append(Failure("read", "unreadable", str(error)))
    return found


_engine = LocalEngine(_look_at_many)
