"""Excerpts as a viewer shows them: grouped, with what was simulated, and what their tokens say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.records import PICKS, SETS, objects, tabulate
from nxtools.score.bootstrap import student
from nxtools.stream import Record
from nxtools.view.scores import author, reason

TOKENS = 20  # of a list of tokens with the highest mean
PEAKS = 12  # tokens of a unit that a search finds

Floats = NDArray[np.float64]
Simulated = dict[str, dict[int, list[float | None]]]  # by excerpt and place of the simulation


def shown(told: list[Record], record: Record, excerpts: Sequence[Record]) -> tuple[list[Record], Simulated]:
    """Who simulated what, and the values.

    A simulation has `explanation` (its place), `by`, and `failed`, why there are no values, or `line`, what
    brings it to the unit's scale: see `calibration`.
    """
    found: list[Record] = []
    values: Simulated = defaultdict(dict)
    for place, one in enumerate(objects(record, "explanations", optional=True)):
        by_author: dict[str, int] = {}
        for simulation in objects(one, "simulations", optional=True):
            key = repr(simulation.get("by"))
            if key not in by_author:
                by_author[key] = len(found)
                found.append({"explanation": place, "by": author(simulation.get("by"))})
            if "error" in simulation:
                found[by_author[key]]["failed"] = reason(simulation["error"])
            elif isinstance(simulation.get("expected"), list):
                values[str(simulation.get("excerpt"))][by_author[key]] = simulation["expected"]
    for place, each in enumerate(found):
        each["line"] = calibration(excerpts, values, place)
    return found, values


def calibration(excerpts: Sequence[Record], values: Simulated, place: int) -> Record | None:
    """The least squares line of true on simulated activations, fitted where nothing is scored.

    `set`: validation's excerpts, or held-out ones if only those were simulated; `slope`, `intercept`,
    `excerpts`, `tokens`; `correlation` of the held-out tokens.
    """
    there: dict[str, list[tuple[list[Any], list[Any]]]] = {"validation": [], "held-out": []}
    for excerpt in excerpts:
        expected = values.get(str(excerpt.get("id")), {}).get(place)
        if expected is not None and excerpt.get("pick") in ("top", "random") and excerpt["set"] in there:
            there[excerpt["set"]].append((expected, excerpt["activations"]))
    pairs = {name: _pairs(rows) for name, rows in there.items()}
    fitted_on = next((name for name, of_set in pairs.items() if of_set.shape[1] > 2), None)
    if fitted_on is None:
        return None
    slope, intercept, _ = _line(pairs[fitted_on])
    return {
        "set": fitted_on,
        "excerpts": len(there[fitted_on]),
        "tokens": pairs[fitted_on].shape[1],
        "slope": slope,
        "intercept": intercept,
        "correlation": _line(pairs["held-out"])[2],
    }


def _pairs(rows: Sequence[tuple[list[Any], list[Any]]]) -> Floats:
    """Simulated and true activations of all tokens that have both: (2, tokens)."""
    said, true = (
        np.array(list(chain.from_iterable(row[side] for row in rows)), dtype=np.float64) for side in (0, 1)
    )
    if len(said) != len(true):
        raise InputError("a simulation has another number of tokens than its excerpt")
    pairs = np.stack([said, true])
    return pairs[:, np.isfinite(pairs).all(0)]


def _line(pairs: Floats) -> tuple[float | None, float | None, float | None]:
    """Slope, intercept and correlation of (x, y); None where x or y never changes."""
    if pairs.shape[1] < 2:
        return None, None, None
    means = pairs.mean(1)
    (xx, xy), (_, yy) = np.cov(pairs, ddof=0)
    if xx == 0:
        return None, None, None
    slope = float(xy / xx)
    return slope, float(means[1] - slope * means[0]), float(xy / math.sqrt(xx * yy)) if yy > 0 else None


def groups(excerpts: Sequence[Record], values: Simulated) -> list[Record]:
    """Excerpts by `pick` and `set`, each with its `simulated` rows by place of the simulation.

    Spread ones, which are ranked within their stratum alone, by how strong they are.
    """
    found: dict[tuple[str, str], list[Record]] = {(pick, name): [] for pick in PICKS for name in SETS}
    for excerpt in excerpts:
        found.setdefault((str(excerpt.get("pick")), excerpt["set"]), []).append(
            {
                "id": str(excerpt.get("id", "")),
                "rank": excerpt.get("rank"),
                "document": excerpt.get("document"),
                "start": excerpt.get("start"),
                "probability": excerpt.get("probability"),
                "tokens": excerpt["tokens"],
                "activations": excerpt["activations"],
                "simulated": {str(n): row for n, row in values.get(str(excerpt.get("id")), {}).items()},
            }
        )
    for (pick, _), rows in found.items():
        if pick == "spread":
            rows.sort(key=_peak, reverse=True)
    return [{"pick": pick, "set": name, "excerpts": rows} for (pick, name), rows in found.items() if rows]


def _peak(excerpt: Record) -> float:
    return max((abs(value) for value in excerpt["activations"] if value is not None), default=0.0)


def peak_tokens(excerpts: Sequence[Record], sign: str) -> list[str]:
    """The tokens at which excerpts reach their extreme, most frequent first. InputError."""
    counts: dict[str, int] = defaultdict(int)
    for excerpt in excerpts:
        if not _is_sound(excerpt):
            tabulate([excerpt])  # says what is wrong
        values = excerpt["activations"]
        known = [value for value in values if value is not None]
        if known:
            lowest = sign == "-" or excerpt.get("pick") == "bottom"
            counts[excerpt["tokens"][values.index((min if lowest else max)(known))]] += 1
    return sorted(counts, key=lambda token: -counts[token])[:PEAKS]


def _is_sound(excerpt: Record) -> bool:
    """Whether tokens and activations are what they should be; much quicker than making arrays of them."""
    tokens, values = excerpt.get("tokens"), excerpt.get("activations")
    if not (isinstance(tokens, list) and isinstance(values, list) and len(tokens) == len(values)):
        return False
    return {str}.issuperset(map(type, tokens)) and {float, int, type(None)}.issuperset(map(type, values))


def token_means(excerpts: Sequence[Record], sign: str) -> Record:
    """Tokens with the `highest` and, on units with that side, the `lowest` mean activation in excerpts.

    Each has `token`, `n`, `mean` and the margin of its 95% interval (Student's).
    Tokens that occur once are left out.
    """
    by_token: dict[str, list[float]] = defaultdict(list)
    for excerpt in excerpts:
        for token, value in zip(excerpt["tokens"], excerpt["activations"], strict=False):
            if value is not None:
                by_token[token].append(value)
    means = [(fmean(found), token) for token, found in by_token.items() if len(found) > 1]
    means.sort(key=lambda pair: -pair[0])

    def rows(some: Sequence[tuple[float, str]]) -> list[Record]:
        return [
            {"token": token, "n": len(by_token[token]), "mean": mean, "margin": _margin(by_token[token])}
            for mean, token in some
        ]

    return {
        "tokens": sum(map(len, by_token.values())),
        "excerpts": len(excerpts),
        "highest": rows(means[:TOKENS]) if sign != "-" else [],
        "lowest": rows(means[: -TOKENS - 1 : -1]) if sign != "+" else [],
    }


def _margin(values: Sequence[float]) -> float:
    n, mean = len(values), fmean(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return student(n - 1) * math.sqrt(variance / n)
