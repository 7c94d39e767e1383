"""A unit's strongest tokens, and their contexts cut to the last few tokens.

The first position of a context always stays: the BOS token, or the first token where there is none. Subjects
put much of their attention there, and activations at a first position are outliers; a cut that moved other
tokens to it would measure that. So a context cut to n tokens is its first position and the last n tokens, the
strongest one included, and positions are counted from there anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.records import sides_of
from nxtools.stream import Record
from nxtools.unit import Unit

VERSION = 1  # of the question: raise it when an answer would come out differently
LENGTHS = (1, 2, 4, 8, 16)

Ids = NDArray[np.int32]
Before = Callable[[str, int], Ids]  # what stood before an excerpt of so many tokens


@dataclass(frozen=True)
class Peak:
    """The strongest token of an excerpt. context: all that the subject saw, this token the last."""

    side: str
    context: Ids
    activation: float
    document: str


class Peaks:
    """The strongest tokens of a unit's top and bottom excerpts in the evidence."""

    def __init__(self, unit: Unit, before: Before) -> None:
        self._unit, self._before = unit, before

    @cached_property
    def all(self) -> list[Peak]:
        """By side. InputError where what stood before an excerpt cannot be found out."""
        shown = self._unit.shown("evidence")
        found: list[Peak] = []
        for side in sides_of(self._unit.sign):
            for row in (row for row, pick in enumerate(shown.picks) if pick == side):
                values = shown.table.activations[row] * np.float32(-1 if side == "bottom" else 1)
                if not np.nanmax(values, initial=0.0) > 0:
                    continue  # nothing is left of what is not there
                at = int(np.nanargmax(values))
                length = int((shown.table.ids[row] >= 0).sum())
                context = np.concatenate(
                    [self._before(shown.excerpts[row], length), shown.table.ids[row, : at + 1]]
                )
                found.append(Peak(side, context, float(values[at]), shown.documents[row]))
        return found


def cut(context: Ids, tokens: int) -> Ids | None:
    """The first position and the last so many tokens; None where that is all of the context."""
    return None if len(context) <= tokens + 1 else np.concatenate([context[:1], context[-tokens:]])


@dataclass(frozen=True)
class Cut:
    """What is asked of the subject: a unit's activations at its peaks, with so many tokens of context.

    subject: its name on the line, which says nothing about the answer.
    """

    subject: str
    fingerprint: str
    site: str
    dtype: str
    layer: int
    index: int
    peaks: Peaks
    tokens: int

    @cached_property
    def _cuts(self) -> list[tuple[int, Ids]]:
        cuts = [(place, cut(peak.context, self.tokens)) for place, peak in enumerate(self.peaks.all)]
        return [(place, ids) for place, ids in cuts if ids is not None]

    @property
    def texts(self) -> Ids:
        """Token ids (n, tokens + 1) of the contexts that are longer than that."""
        return np.array([ids for _, ids in self._cuts], np.int32).reshape(-1, self.tokens + 1)

    def answer(self, activations: NDArray[np.float32]) -> Record:
        """By side, of every peak its document and its activation with all of its context and with the cut.

        activations: (n,) at the ends of `texts`. Where nothing was cut, nothing changed.
        """
        left = {place: float(value) for (place, _), value in zip(self._cuts, activations, strict=True)}
        found: dict[str, Record] = {}
        for place, peak in enumerate(self.peaks.all):
            of = found.setdefault(peak.side, {"full": [], "left": [], "cut": 0, "documents": []})
            sign = -1 if peak.side == "bottom" else 1
            of["full"].append(np.float32(peak.activation))
            of["left"].append(np.float32(sign * left[place] if place in left else peak.activation))
            of["cut"] += place in left
            of["documents"].append(peak.document)
        for of in found.values():
            names = list(dict.fromkeys(of["documents"]))
            of["full"], of["left"] = np.array(of["full"]), np.array(of["left"])
            of["documents"] = [names.index(name) for name in of["documents"]]
        return found


def question(cut: Cut, digests: Mapping[str, str], sides: Sequence[str], recorded: Record) -> dict[str, Any]:
    """All that an answer depends on.

    digests: of the unit's excerpts, by set; recorded: as it stands on the line.
    """
    return {
        "weights": cut.fingerprint,
        "site": cut.site,
        "dtype": cut.dtype,
        "layer": cut.layer,
        "columns": [cut.index],
        "evidence": digests["evidence"],
        "sides": list(sides),
        "before": [recorded["bos"], recorded["context"], recorded["plans"]],
        "tokens": cut.tokens,
    }
