"""How right a judge was: balanced accuracy, F1, the area under the ROC curve, each with a 95% interval; and
recall by decile, which says whether weak activations are seen as well as strong ones.

The interval is a bootstrap over excerpts, the kinds apart. Few excerpts that are all judged rightly would
get one without any width, so every kind is drawn together with one excerpt more that is judged rightly and
one that is judged wrongly (Agresti and Caffo 2000, "Simple and effective confidence intervals for proportions
and differences of proportions"); the ROC curve has these at its ends. Excerpts that were not judged are not
drawn: they are failures, counted elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score.bootstrap import seeds
from nxtools.score.figures import short
from nxtools.score.summary import drawn_weights

Floats = NDArray[np.float64]

FIGURES = ("balanced_accuracy", "f1", "auroc")
DECILES = tuple(f"recall_decile_{number}" for number in range(1, 11))  # of the active excerpts' strengths
DRAWS = 1000
CHANCE = {"balanced_accuracy": 0.5, "auroc": 0.5}  # F1 has none: it depends on how many are said to be active


@dataclass(frozen=True)
class Verdict:
    """What was said of one excerpt. drawn_with: excerpts by this name are drawn together; score: how sure the
    judge is that it is active, on any scale; None where it does not say. strength: of an active one."""

    drawn_with: str
    document: str
    truth: bool
    said: bool
    score: float | None = None
    strength: float = 0.0


def figures(
    truth: NDArray[np.bool_], said: NDArray[np.bool_], scores: Floats, weights: Floats
) -> dict[str, Floats]:
    """Of excerpts (n,) under weights (n, draws): the figures (draws,), NaN where one does not exist.

    balanced accuracy: (TP/P + TN/N) / 2; F1: 2 TP / (2 TP + FP + FN); AUROC: the share of pairs of an active
    and a silent excerpt in which the active one has the higher score, ties counting half. scores: NaN where
    there is none; the pairs are then made of the others.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        hits, fires = weights[truth & said].sum(0), weights[truth].sum(0)
        alarms, quiet = weights[~truth & said].sum(0), weights[~truth].sum(0)
        balanced = (hits / fires + (quiet - alarms) / quiet) / 2
        f1 = 2 * hits / (hits + alarms + fires)
        known = ~np.isnan(scores)
        high, low = truth & known, ~truth & known
        above, below = scores[high][:, None], scores[low][None, :]
        wins = (above > below) + (above == below) / 2
        total = weights[high].sum(0) * weights[low].sum(0)
        auroc = np.einsum("hd,hd->d", weights[high], wins @ weights[low]) / total
    return {"balanced_accuracy": balanced, "f1": np.where(fires > 0, f1, np.nan), "auroc": auroc}


@dataclass(frozen=True)
class Figures:
    """By name: values, reasons for those that are absent, intervals, and values with documents reweighted.

    Deciles stand among values and replicates alone.
    """

    values: dict[str, float]
    absent: dict[str, str]
    intervals: dict[str, tuple[float, float]]
    replicates: dict[str, Floats]

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            name: short(self.values[name]) if name in self.values else None
            for name in FIGURES
            if name in self.values or name in self.absent
        }
        if any(name in self.values for name in DECILES):
            found["recall"] = [short(self.values[n]) if n in self.values else None for n in DECILES]
        found["intervals"] = {name: [short(one) for one in pair] for name, pair in self.intervals.items()}
        return found | ({"absent": self.absent} if self.absent else {})


def measure(verdicts: Sequence[Verdict], unit: str, names: Sequence[str] = FIGURES) -> Figures:
    """unit: the name that seeds the draws. names: of the figures that are wanted."""
    truth, said, scores = _columns(verdicts)
    ones = np.ones((len(verdicts), 1))
    values = {name: float(value[0]) for name, value in figures(truth, said, scores, ones).items()}
    there = {name: values[name] for name in names if not np.isnan(values[name])}
    absent = {name: _why(name, truth) for name in names if name not in there}
    reweighted = drawn_weights([one.document for one in verdicts], "document")
    under = figures(truth, said, scores, reweighted)
    replicates = {name: under[name] for name in there}
    intervals = _intervals(verdicts, unit, there)
    if "f1" in names:  # of judges that say 0 or 1
        strengths = np.array([one.strength for one in verdicts])
        for name, rows in by_decile(strengths, truth).items():
            there[name] = float(said[rows].mean())
            weights = reweighted[rows]
            replicates[name] = (weights * said[rows, None]).sum(0) / weights.sum(0)
    return Figures(there, absent, intervals, replicates)


def by_decile(strengths: Floats, truth: NDArray[np.bool_]) -> dict[str, NDArray[np.intp]]:
    """Rows of active excerpts by decile of their strength, the weakest first; empty deciles are left out.

    n of them are put in order, and the one at place i (from 0) is in decile ⌊10 (i + ½) / n⌋ + 1.
    """
    active = np.flatnonzero(truth)
    active = active[np.argsort(strengths[active], kind="stable")]
    decile = 10 * (2 * np.arange(len(active)) + 1) // (2 * max(len(active), 1))
    return {DECILES[number]: active[decile == number] for number in np.unique(decile).tolist()}


def _columns(
    verdicts: Sequence[Verdict],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats]:
    truth = np.array([one.truth for one in verdicts], bool)
    said = np.array([one.said for one in verdicts], bool)
    scores = np.array([np.nan if one.score is None else one.score for one in verdicts], np.float64)
    return truth, said, scores


def _why(name: str, truth: NDArray[np.bool_]) -> str:
    if not truth.any():
        return "no-active"
    return "no-probabilities" if truth.size and not truth.all() and name == "auroc" else "no-silent"


def _intervals(
    verdicts: Sequence[Verdict], unit: str, values: dict[str, float]
) -> dict[str, tuple[float, float]]:
    groups: dict[str, list[Verdict]] = {}
    for one in verdicts:
        groups.setdefault(one.drawn_with, []).append(one)
    kinds: dict[tuple[bool, ...], list[list[Verdict]]] = {}
    both = any(len({one.truth for one in group}) > 1 for group in groups.values())
    for group in groups.values():
        kinds.setdefault((False, True) if both else (group[0].truth,), []).append(group)
    columns, weights = [], []
    for (truths, members), seed in zip(sorted(kinds.items()), seeds(unit, len(kinds)), strict=True):
        made = [*members, _imagined(truths, right=True), _imagined(truths, right=False)]
        counts = _counts(len(made), seed)
        for group, row in zip(made, counts, strict=True):
            columns += group
            weights += [row] * len(group)
    drawn = figures(*_columns(columns), np.array(weights))
    found = {}
    for name, value in values.items():
        low, high = np.nanquantile(drawn[name], [0.025, 0.975])
        found[name] = (float(min(low, value)), float(max(high, value)))
    return found


def _imagined(truths: Sequence[bool], *, right: bool) -> list[Verdict]:
    return [
        Verdict("", "", truth, truth == right, float("inf") if truth == right else float("-inf"))
        for truth in truths
    ]


def resampled(values: Floats, unit: str) -> Floats:
    """Means of values (n,) in every draw of n of them: (draws,)."""
    means: Floats = values @ _counts(len(values), seeds(unit, 1)[0]) / len(values)
    return means


def _counts(size: int, seed: int) -> Floats:
    """How often each of so many is drawn: (size, draws). Made of raw generator output, which is the same in
    every version of numpy."""
    raw = np.random.PCG64(seed).random_raw(DRAWS * size).reshape(DRAWS, size)
    chosen = ((raw >> np.uint64(11)).astype(np.float64) * (2.0**-53 * size)).astype(np.int64)
    flat = (np.arange(DRAWS)[:, None] * size + chosen).ravel()
    counts = np.bincount(flat, minlength=DRAWS * size).reshape(DRAWS, size)
    return counts.T.astype(np.float64)
