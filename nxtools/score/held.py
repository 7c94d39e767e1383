"""A unit's held-out excerpts as the subject is run on them again, and what is put in the unit's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.records import Failure
from nxtools.score.ablation import FIGURES, PICKS, Ablated
from nxtools.score.calibration import Calibration, fitted
from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.score.expected import Expected
from nxtools.score.series import Target
from nxtools.subject.replacing import TOLERANCE, Replacement
from nxtools.unit import Shown

if TYPE_CHECKING:
    from nxtools.recordings.contexts import Contexts
    from nxtools.stream import Record

CALIBRATED_ON = "validation"

Activations = NDArray[np.float32]
Predict = Callable[[NDArray[Any]], Activations]  # token ids (excerpts, tokens) -> activations

# What was predicted, by excerpt; or what makes a predictor: InputError where that cannot be read, ValueError
# where there is nothing to learn it from.
Simulation = Mapping[str, Any] | Callable[[], Predict]


@dataclass(frozen=True)
class Calibrated:
    """A simulation (n, tokens) and, as `values`, the same on the scale of the unit.

    rows: the excerpts that it is whole on.
    """

    simulated: Activations
    values: Activations
    calibration: Calibration
    rows: list[int]


class Held:
    """The excerpts of a unit that an ablation score comes from, n of them: top, bottom and random ones."""

    def __init__(self, target: Target, record: Record, contexts: Contexts, dtype: str | None) -> None:
        """dtype: what the subject is to compute with, None for what it was recorded with."""
        self.target = target
        self._dtype = dtype or contexts.dtype
        self._tolerance = TOLERANCE.get(contexts.dtype, max(TOLERANCE.values()))
        self._unit = record["unit"]
        self._contexts = contexts
        self._shown = target.held_out
        self._rows = [place for place, pick in enumerate(self._shown.picks) if pick in PICKS]

    @cached_property
    def truth(self) -> Activations:
        """(n, tokens), NaN where left out."""
        return self._shown.table.activations[self._rows]

    @property
    def picks(self) -> list[str]:
        return [self._shown.picks[row] for row in self._rows]

    @property
    def documents(self) -> list[str]:
        return [self._shown.documents[row] for row in self._rows]

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """How many tokens of each count: (n,)."""
        counts: NDArray[np.int64] = np.count_nonzero(~np.isnan(self.truth), axis=1).astype(np.int64)
        return counts

    @cached_property
    def _seen(self) -> list[tuple[NDArray[np.int32], int]]:
        """Of each excerpt the ids of all that the subject saw, and how many of them stood before it."""
        found = []
        for row in self._rows:
            ids = self._shown.table.ids[row]
            ids = ids[ids >= 0]
            before = self._contexts.before(self._shown.excerpts[row], len(ids))
            found.append((np.concatenate([before, ids]).astype(np.int32), len(before)))
        return found

    @cached_property
    def firsts(self) -> list[int]:
        """The first excerpt of each pick: rounding is measured on those."""
        return [self.picks.index(pick) for pick in PICKS if pick in self.picks]

    @cached_property
    def evidence_mean(self) -> float | None:
        """The unit's mean on evidence: of its random pool, or else of the random excerpts on the line."""
        pool = self.target.pool
        if pool is not None:
            values = pool.activations(self.target.unit, "evidence")
        else:
            shown = self.target.unit.shown("evidence")
            values = shown.table.activations[[pick == "random" for pick in shown.picks]]
        return float(np.nanmean(values, dtype=np.float64)) if np.isfinite(values).any() else None

    def constant(self, value: float) -> Activations:
        return np.full(self.truth.shape, value, np.float32)

    @property
    def figures(self) -> list[str]:
        """The papers' two always, since they are absent for a reason; the third where it means something."""
        return [name for name, picks in FIGURES.items() if "bottom" not in picks or "bottom" in self.picks]

    def calibrated(self, simulation: Simulation, kind: str = "linear") -> dict[str, Calibrated] | Failure:
        """What a simulation puts in the unit's place, by figure. kind: one of calibration.KINDS."""
        try:
            made = simulation if isinstance(simulation, Mapping) else simulation()
            predicted = self._predicted(made, self._shown)[self._rows]
            fits = {figure: self._fitted(kind, made, FIGURES[figure]) for figure in self.figures}
        except InputError as error:
            return Failure("score", "no-pattern", str(error))
        except ValueError as error:
            return Failure("score", "no-evidence", str(error))
        missing = np.any(np.isnan(predicted) & ~np.isnan(self.truth), axis=1).tolist()
        found = {}
        for figure, fit in fits.items():
            if fit is None:
                message = "no simulation of validation, to calibrate: nx-simulate --sets held-out,validation"
                return Failure("score", "no-calibration", message)
            there = zip(self.picks, missing, strict=True)
            rows = [row for row, (pick, gone) in enumerate(there) if pick in FIGURES[figure] and not gone]
            found[figure] = Calibrated(predicted, fit(predicted), fit, rows)
        if not any(one.rows for one in found.values()):
            message = "no held-out excerpt has a simulation of all its tokens"
            return Failure("score", "no-simulation", message)
        return found

    def _fitted(
        self, kind: str, made: Mapping[str, Any] | Predict, picks: Sequence[str]
    ) -> Calibration | None:
        """Fitted on validation's excerpts of the same kind; random ones are those of the pool, if it is there
        and the simulator can run on it.
        """
        pool, unit = self.target.pool, self.target.unit
        if picks == ("random",) and pool is not None and not isinstance(made, Mapping) and kind != "scored":
            ids = pool.pool.ids(CALIBRATED_ON)
            return fitted(kind, made(ids), pool.activations(unit, CALIBRATED_ON))
        shown = self._shown if kind == "scored" else unit.shown(CALIBRATED_ON)
        rows = [pick in picks for pick in shown.picks]
        return fitted(kind, self._predicted(made, shown)[rows], shown.table.activations[rows])

    def _predicted(self, made: Mapping[str, Any] | Predict, shown: Shown) -> Activations:
        return Expected(made).on(shown) if isinstance(made, Mapping) else made(shown.table.ids)

    def ablated(
        self,
        simulated: Mapping[str, tuple[Calibrated, Mapping[str, Any]]],
        by_mean: Mapping[str, Any],
        by_itself: Mapping[str, Any],
    ) -> Ablated:
        """What came of it. simulated: what was put in the unit's place and the answer, by figure;
        by_itself: the answer for the `firsts`.
        """
        simulation = {}
        for figure, (calibrated, answer) in simulated.items():
            simulation[figure] = np.full(len(self._rows), np.nan)
            simulation[figure][calibrated.rows] = answer["jsd"]
        noise = {
            self.picks[row]: value / max(int(self.tokens[row]), 1)
            for row, value in zip(self.firsts, by_itself["jsd"], strict=True)
        }
        mean = np.array(by_mean["jsd"], np.float64)
        name = self.target.unit.name
        return Ablated(name, self.picks, self.documents, self.tokens, mean, simulation, noise)

    def correlation(self, calibrated: Calibrated) -> float:
        """Of the simulation with the unit's true values, over all tokens; NaN for none."""
        rows = calibrated.rows
        if not rows:
            return float("nan")
        return float(correlation(excerpt_sums(self.truth[rows], calibrated.simulated[rows]).sum(0)))

    def replacement(
        self,
        replaced: Activations | None,
        rows: Sequence[int] | None = None,
        *,
        moves: bool = False,
    ) -> Replacement:
        """replaced: (n, tokens), None for the unit itself; rows: of the n excerpts, None for all;
        moves: ask for the tokens whose logits move, on the excerpts of the unit's own side.
        """
        rows = range(len(self._rows)) if rows is None else rows
        side = "bottom" if self.target.unit.sign == "-" else "top"
        return Replacement(
            subject=str(self._unit.get("subject", "")),
            fingerprint=str(self._unit.get("fingerprint", "")),
            site=str(self._unit.get("site", "mlp")),
            dtype=self._dtype,
            layer=int(self._unit["layer"]),
            index=int(self._unit["index"]),
            contexts=[self._seen[row][0] for row in rows],
            before=[self._seen[row][1] for row in rows],
            truth=self.truth[rows],
            tolerance=self._tolerance,
            replaced=None if replaced is None else replaced[rows],
            moves=[moves and self.picks[row] == side for row in rows],
        )
