"""The ablation score: how much of what a unit does to the subject's output its simulation does as well.

    1 - Σ JSD(simulation in its place ‖ original) / Σ JSD(its mean in its place ‖ original)

over the tokens of excerpts (Bills et al. 2023; a ratio of sums, as one of means over tokens is). 1: nothing
is lost by the simulation; 0: as much as by the mean; below 0: more. The simulation is calibrated first, since
one that rises and falls with the unit but on another scale says the right thing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score import bootstrap
from nxtools.score.figures import FIGURES as ALL_FIGURES
from nxtools.score.figures import Figure, short
from nxtools.score.replicates import packed
from nxtools.score.summary import drawn_weights

Floats = NDArray[np.float64]
Activations = NDArray[np.float32]

PICKS = ("top", "random", "bottom")  # each has its own seed, whatever others there are
FIGURES = {name: ALL_FIGURES[name] for name in ("top_and_random", "random_only", "bottom_and_random")}

# What the mean does must be so many times what rounding does. Divergences are squares: a hundredth of the
# divergence is a tenth of the distance, at which a token's score may still be off by a fifth, at random.
ABOVE_NOISE = 100.0
IN_NOISE = "the mean in its place does no more than rounding"


@dataclass(frozen=True)
class Ablated:
    """What replacing one unit did on n held-out excerpts: sums of JSD over tokens, in nats.

    tokens: (n,) that count; mean: (n,) with the mean in the unit's place;
    simulation: (n,) by figure, since each is calibrated on excerpts of its own kind; NaN where there is none;
    noise: by pick, the divergence per token that rounding makes.
    """

    name: str  # the unit's full name: it seeds the bootstrap
    picks: Sequence[str]
    documents: Sequence[str]
    tokens: NDArray[np.int64]
    mean: Floats
    simulation: Mapping[str, Floats]
    noise: Mapping[str, float]

    def rows(self, figure: str) -> list[NDArray[np.intp]]:
        """Where the excerpts of a figure stand that have a simulation, by pick."""
        there = ~np.isnan(self.simulation[figure])
        picks = np.array(self.picks)
        return [np.flatnonzero((picks == pick) & there) for pick in FIGURES[figure]]


def score(ablated: Ablated) -> dict[str, Figure]:
    """The score by figure, or the reason why there is none."""
    return {name: _figure(ablated, name) for name in ablated.simulation}


def _figure(ablated: Ablated, name: str) -> Figure:
    rows = ablated.rows(name)
    empty = [pick for pick, found in zip(FIGURES[name], rows, strict=True) if not len(found)]
    if empty:
        return Figure(None, None, 0, 0, f"no simulated {' and no '.join(empty)} excerpts")
    every = np.concatenate(rows)
    tokens = int(ablated.tokens[every].sum())
    extent = len(every), tokens
    lost, all_lost = sums(ablated, name).sum(1).tolist()
    if not is_above_noise(ablated, name):
        return Figure(None, None, *extent, IN_NOISE)
    value = 1.0 - lost / all_lost
    if min(map(len, rows)) < 2:
        return Figure(value, None, *extent, no_interval="fewer than 2 excerpts of a kind")
    return Figure(value, _interval(ablated, name, lost / all_lost), *extent)


def sums(ablated: Ablated, figure: str) -> Floats:
    """Σ JSD with the simulation and with the mean, of a figure's excerpts: (2, excerpts)."""
    every = np.concatenate(ablated.rows(figure))
    return np.stack([ablated.simulation[figure][every], ablated.mean[every]])


def is_above_noise(ablated: Ablated, figure: str) -> bool:
    """Whether what the mean does on a figure's excerpts can be told from rounding."""
    every = np.concatenate(ablated.rows(figure))
    tokens = int(ablated.tokens[every].sum())
    least = ABOVE_NOISE * noise(ablated, figure) * tokens
    return tokens > 0 and float(ablated.mean[every].sum()) > least


def noise(ablated: Ablated, figure: str) -> float:
    """The divergence per token that rounding makes: the most that was seen on an excerpt of the figure."""
    return max((ablated.noise[pick] for pick in FIGURES[figure] if pick in ablated.noise), default=0.0)


def _interval(ablated: Ablated, figure: str, ratio: float) -> tuple[float, float]:
    """95%: excerpts drawn anew by pick, the spread of the ratio taken on a logarithmic scale, Student's t.
    See `bootstrap`. A unit does most of what it does on few excerpts: where they are fewer than the smallest
    pick has, as weights, they are the degrees of freedom, plus one.
    """
    seeds = bootstrap.seeds(ablated.name, len(PICKS))
    drawn = np.zeros((2, bootstrap.DRAWS))
    rows = ablated.rows(figure)
    for pick, found in zip(FIGURES[figure], rows, strict=True):
        both = np.stack([ablated.simulation[figure][found], ablated.mean[found]], axis=1)
        drawn += bootstrap.resample(both[None], [seeds[PICKS.index(pick)]])[0]
    carried = bootstrap.effective(ablated.mean[np.concatenate(rows)])
    freedom = max(min(carried, *map(len, rows)) - 1, 1.0)
    return between(ratio, drawn[0], drawn[1], freedom)


def between(ratio: float, lost: Floats, all_lost: Floats, freedom: float) -> tuple[float, float]:
    """The interval of 1 - ratio from numerators and denominators (draws,) of the ratio."""
    if ratio <= 0:
        return 1.0, 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(lost / all_lost)
    logs = logs[np.isfinite(logs)]
    half = bootstrap.student_between(freedom) * float(np.std(logs, ddof=1)) if len(logs) > 1 else 0.0
    return 1.0 - ratio * math.exp(half), 1.0 - ratio * math.exp(-half)


def as_record(ablated: Ablated, figures: Mapping[str, Figure]) -> dict[str, Any]:
    """The entry for `scores` on a unit line, in the same form as that of correlations."""
    main = figures["top_and_random"]
    record: dict[str, Any] = {}
    for name, figure in figures.items():
        record[name] = None if figure.value is None else short(figure.value)
        if figure is main:
            record["interval"] = _pair(main.interval)
    others = {name: figure for name, figure in figures.items() if figure is not main}
    record["intervals"] = {name: _pair(one.interval) for name, one in others.items() if one.interval}
    record["excerpts"], record["tokens"] = main.excerpts, main.tokens
    record["counts"] = {
        name: {"excerpts": one.excerpts, "tokens": one.tokens} for name, one in others.items()
    }
    absent = {name: figure.reason for name, figure in figures.items() if figure.reason}
    for name, figure in figures.items():
        if figure.no_interval:
            absent["interval" if figure is main else f"intervals.{name}"] = figure.no_interval
    if absent:
        record["absent"] = absent
    record["jsd"] = {name: _divergences(ablated, name) for name in figures}
    missing = np.isnan(ablated.simulation["top_and_random"])
    if failed := int(missing[[pick in FIGURES["top_and_random"] for pick in ablated.picks]].sum()):
        record["failed_excerpts"] = failed
    there = {name: reweighted(ablated, name) for name, figure in figures.items() if figure.value is not None}
    record["replicates"] = packed({name: 1 - lost / of_mean for name, (lost, of_mean) in there.items()})
    return record


def reweighted(ablated: Ablated, figure: str) -> Floats:
    """Σ JSD with the simulation and with the mean, in every draw of the documents that all units share:
    (2, draws).
    """
    documents = [ablated.documents[row] for row in np.concatenate(ablated.rows(figure))]
    drawn: Floats = sums(ablated, figure) @ drawn_weights(documents, "document")
    return drawn


def _divergences(ablated: Ablated, figure: str) -> dict[str, float] | None:
    """By how much a token's output changes, in nats: means over a figure's excerpts."""
    every = np.concatenate(ablated.rows(figure))
    tokens = int(ablated.tokens[every].sum())
    if not tokens:
        return None
    simulation, mean = (sums(ablated, figure).sum(1) / tokens).tolist()
    return {"simulation": short(simulation), "mean": short(mean), "noise": short(noise(ablated, figure))}


def _pair(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [short(interval[0]), short(interval[1])]
