"""One explanation in words under revision: what its reviser has been shown, and what only scores see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nxtools.assistant.prompts import Leveled
from nxtools.explain.showing import Evidence, levels, on_side, seen
from nxtools.revise.challenge import SORTS, apart, around, counterexamples, dealt
from nxtools.revise.evidence import New
from nxtools.score.expected import Expected
from nxtools.score.figures import short
from nxtools.stage import Failure
from nxtools.stream import Record
from nxtools.unit import Shown, Unit

CANDIDATES = 50  # texts that are simulated, to find counterexamples among them

Activations = NDArray[np.float32]


@dataclass
class Case:
    """evidence: what the explainer saw; sign: the side that is explained; view: next-token or activations.

    tested: what the reviser is shown besides; kept: what only scores see; roles: which of both, by name.
    found: counterexamples for the line; sentences: those that were written, with what became of them. said:
    what was simulated, by text and names of excerpts.
    """

    unit: Unit
    explanation: Record
    evidence: Evidence
    sign: str
    view: str
    tested: list[Leveled] = field(default_factory=list)
    kept: list[Shown] = field(default_factory=list)
    roles: dict[str, str] = field(default_factory=dict)
    found: list[Record] = field(default_factory=list)
    sentences: list[Record] = field(default_factory=list)
    said: dict[tuple[str, tuple[str, ...]], Activations] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        return self.evidence.scale

    def entry(self, text: str, scale: object) -> Record:
        """A version of the explanation as a simulator takes it."""
        side = {"sign": self.explanation["sign"]} if "sign" in self.explanation else {}
        return {"text": text, "scale": scale, **side, "view": self.view}

    def figure(self) -> tuple[str, tuple[str, str]]:
        """The figure that a version is judged by, and the picks of its excerpts."""
        pick = "top" if self.sign == "+" else "bottom"
        return f"{pick}_and_random", (pick, "random")

    def excerpts(self, which: str) -> Shown:
        """Those of a set that the figure is about."""
        shown, (_, picks) = self.unit.shown(which), self.figure()
        return shown.rows([row for row, pick in enumerate(shown.picks) if pick in picks])

    def unknown(self, new: New, ranked: Callable[[New], Activations]) -> New:
        """The texts that a simulator is to look at: those with no role yet, and of many the ones in which
        what `ranked` predicts is farthest from the truth, half of them over it and half under."""
        fresh = new.rows([row for row, name in enumerate(new.names) if name not in self.roles])
        if len(fresh.names) <= CANDIDATES:
            return fresh
        over, under = apart(self._side(ranked(fresh)), self._strengths(fresh.activations))
        first = [*np.argsort(-over)[: CANDIDATES // 2], *np.argsort(-under)[: CANDIDATES // 2]]
        return fresh.rows(sorted({int(row) for row in first}))

    def challenge(self, shown: Shown, predicted: Activations, round_: int, *, all_shown: bool) -> None:
        """Takes note of the counterexamples among texts of one source (n, tokens). all_shown: show the
        others as well, half of all by hash."""
        said, truth = self._side(predicted), self._strengths(shown.table.activations)
        sorts = counterexamples(said, truth, self.scale)
        if all_shown:
            by_hash = sorted(range(len(shown.excerpts)), key=lambda row: shown.excerpts[row])
            half = (len(by_hash) + 1) // 2
            roles = {row: "reviser" if place < half else "scores" for place, row in enumerate(by_hash)}
        else:
            roles = {row: role for rows in sorts for row, role in dealt(rows)}
        for sort, rows in zip(SORTS, sorts, strict=True):
            for row in rows:
                if row in roles:
                    self.found.append(self._counterexample(shown, row, sort, roles[row], round_, truth, said))
        self.give(shown, roles)

    def give(self, shown: Shown, roles: dict[int, str]) -> None:
        """Texts (by row) to the reviser, or to scores."""
        strengths = levels(self._strengths(shown.table.activations), self.scale)
        for row, role in roles.items():
            self.roles[shown.excerpts[row]] = role
            if role == "reviser":
                texts = tuple(shown.table.texts[row])
                leveled = Leveled(texts, tuple(strengths[row, : len(texts)].tolist()))
                self.tested.append(seen(leveled, self.view))
        if kept := [row for row, role in roles.items() if role == "scores"]:
            self.kept.append(shown.rows(kept))

    def peaks(self, shown: Shown) -> list[float]:
        """How strongly the unit reacts to each text, on the side that is explained."""
        strengths = np.nan_to_num(self._strengths(shown.table.activations))
        return [float(peak) for peak in strengths.max(1, initial=0.0)]

    def _counterexample(
        self,
        shown: Shown,
        row: int,
        sort: str,
        role: str,
        round_: int,
        truth: Activations,
        said: Activations,
    ) -> Record:
        turn = 1.0 if self.sign == "+" else -1.0
        return {
            "round": round_,
            "from": shown.picks[row],
            "excerpt": shown.excerpts[row],
            "sort": sort,
            "for": role,
            **around(shown.table.texts[row], turn * truth[row], turn * said[row]),
        }

    def silent(self, shown: Shown, row: int, role: str, peak: float, round_: int) -> Record:
        """A counterexample for the line: a sentence that was written to fit, and does not make it fire."""
        return {
            "round": round_,
            "from": shown.picks[row],
            "excerpt": shown.excerpts[row],
            "sort": SORTS[0],
            "for": role,
            "tokens": list(shown.table.texts[row]),
            "activation": short(peak if self.sign == "+" else -peak),
        }

    def _strengths(self, activations: Activations) -> Activations:
        return on_side(activations, self.sign)

    _side = _strengths


def predicted(simulations: Sequence[Record], shown: Shown) -> Activations | Failure:
    """What was simulated of excerpts (n, tokens), NaN where nothing was; a failure where all of it failed."""
    expected = {one["excerpt"]: one["expected"] for one in simulations if "expected" in one}
    if expected or not shown.excerpts:
        return Expected(expected).on(shown)
    error = simulations[0]["error"]
    return Failure(error["stage"], error["kind"], error["message"])
