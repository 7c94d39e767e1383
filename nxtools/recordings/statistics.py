"""A unit's statistics over all the text, from what the shards summed up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nxtools.recordings.layer import Layer
from nxtools.stream import Record
from nxtools.subject.bins import bin_edges

ACTIVE_ABOVE = 0.3  # of the maximum, as in the field's definition of an active token
MOMENTS = ("mean", "variance", "skewness", "kurtosis")

Floats = dict[str, NDArray[np.float64]]  # (N,) of each name


def statistics(layer: Layer) -> list[Record]:
    """What a unit line has under `stats`, for all N units.

    Mean, variance, skewness and kurtosis (3 for a normal distribution) are over all tokens that count.
    `active` is the share of tokens above 0.3 of the maximum: counted on the spread sample, each excerpt
    standing for others of its stratum (Horvitz and Thompson's estimate). Where values are not finite there
    are no moments.
    """
    count = int(layer.tokens.sum())
    of_all = {**_moments(layer), **_extremes(layer), **_active(layer)}
    edges = bin_edges()
    found = []
    for unit in range(layer.units):
        stats: Record = {"tokens": count}
        bad = int(layer.nonfinite[unit])
        if bad:
            stats["nonfinite"] = bad
        stats |= {name: short(of[unit]) for name, of in of_all.items() if not (bad and name in MOMENTS)}
        stats["maxima"] = _histogram(layer.histogram["top"][:, unit].sum(axis=0), edges)
        if layer.minimum is not None:
            stats["minima"] = _histogram(layer.histogram["bottom"][:, unit].sum(axis=0), edges)
        found.append(stats)
    return found


def values(layer: Layer, name: str) -> list[float | None]:
    """One of the numbers NAMES for all units, as on their lines: no more is looked at than it takes."""
    kind = next(kind for kind, names in _FROM.items() if name in names)
    of_all = kind(layer).get(name)
    if of_all is None:
        return [None] * layer.units
    bad = layer.nonfinite if name in MOMENTS else np.zeros(layer.units, np.int64)
    return [None if bad[unit] else short(value) for unit, value in enumerate(of_all)]


def is_constant(layer: Layer) -> NDArray[np.bool_]:
    """Which units (N,) have the same value everywhere, as far as float32 can tell."""
    mean, square = layer.powers[:2].sum(axis=1) / max(int(layer.tokens.sum()), 1)
    same: NDArray[np.bool_] = square - mean**2 <= 1e-12 * square
    return same


def short(value: float, digits: int = 6) -> float | None:
    """The value in so many significant digits; None where it is not finite."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def _moments(layer: Layer) -> Floats:
    """NaN where there is none: a unit that hardly varies has no third and fourth."""
    raw = layer.powers.sum(axis=1) / max(int(layer.tokens.sum()), 1)  # (4, N) means of the powers
    mean = raw[0]
    variance = np.maximum(raw[1] - mean**2, 0.0)
    third = raw[2] - 3 * mean * raw[1] + 2 * mean**3
    fourth = raw[3] - 4 * mean * raw[2] + 6 * mean**2 * raw[1] - 3 * mean**4
    # With a spread of less than a thousandth of the values, little is left of the differences that the third
    # and fourth moments are.
    safe = np.where(variance <= 1e-6 * raw[1], np.nan, variance)
    variance[is_constant(layer)] = 0.0
    return {
        "mean": mean,
        "variance": variance,
        "skewness": third / safe**1.5,
        "kurtosis": fourth / safe**2,
    }


def _extremes(layer: Layer) -> Floats:
    lowest = {} if layer.minimum is None else {"min": layer.minimum.min(axis=0)}
    return {**lowest, "max": layer.maximum.max(axis=0)}


def _active(layer: Layer) -> Floats:
    """The share (N,) of tokens above 0.3 of the largest value, on each side."""
    peaks = {"top": layer.maximum.max(axis=0)}
    if layer.minimum is not None:
        peaks["bottom"] = -layer.minimum.min(axis=0)
    thresholds = {side: ACTIVE_ABOVE * np.maximum(peak, 0.0) for side, peak in peaks.items()}
    entries = layer.spread
    unit = (entries.cell // layer.strata) % layer.units
    kept = np.bincount(entries.cell, minlength=len(layer.drawn_from))[entries.cell]
    stands_for = layer.drawn_from[entries.cell] / kept
    totals = {side: np.zeros(layer.units) for side in peaks}
    step = 1 << 16
    for first in range(0, len(unit), step):
        here = slice(first, first + step)
        rows = layer.rows(entries.at(here))
        for side, threshold in thresholds.items():
            high = rows if side == "top" else -rows
            above = (high > threshold[unit[here]][:, None]).sum(axis=1) * stands_for[here]
            totals[side] += np.bincount(unit[here], above, minlength=layer.units)
    names = {"top": "active", "bottom": "active_negative"}
    return {names[side]: total / max(int(layer.tokens.sum()), 1) for side, total in totals.items()}


_FROM = {
    _moments: MOMENTS,
    _extremes: ("max", "min"),
    _active: ("active", "active_negative"),
}
NAMES = tuple(name for names in _FROM.values() for name in names)


def _histogram(counts: NDArray[np.int64], edges: NDArray[np.float64]) -> Record:
    """Excerpts by their maximum: how many lie below `edges[0]`, and from each edge up to the next."""
    filled = np.flatnonzero(counts[1:])
    if not len(filled):
        return {"below": int(counts[0]), "edges": [], "counts": []}
    first, last = int(filled[0]), int(filled[-1])
    return {
        "below": int(counts[0]),
        "edges": [short(edge, 4) for edge in edges[first : last + 1]],
        "counts": counts[1:][first : last + 1].tolist(),
    }
