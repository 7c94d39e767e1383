"""The start page as plain data: what was run, and how well it did."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from nxtools.records import objects, sign_of
from nxtools.report.distribution import LEFT_OUT, Distribution
from nxtools.report.series import MAIN
from nxtools.score.figures import short
from nxtools.score.summary import THRESHOLDS
from nxtools.stream import Record
from nxtools.view.scores import author, plain

BIN = 0.05  # of the histograms of scores
_CELLS = (
    "series",
    "figure",
    "layer",
    "units",
    "mean",
    "low",
    "high",
    "interval_over",
    "median",
    "q25",
    "q75",
)


class Overview:
    """Takes unit lines one by one; `data` is what the start page shows."""

    def __init__(self) -> None:
        self._scores = Distribution()
        self._facts: dict[str, Counter[str]] = {}
        self._tokens = 0
        self._states: Counter[str] = Counter()
        self._layers: Counter[int] = Counter()

    def add(self, record: Record) -> None:
        """InputError when the line's scores cannot be read."""
        self._scores.add(record)
        unit, stats = record["unit"], record.get("stats")
        for state in ("dead", "constant", "error"):
            self._states[state] += bool(record.get(state))
        self._layers[int(unit["layer"])] += 1
        self._note("subject", unit.get("subject"))
        self._note("weights", unit.get("fingerprint"))
        self._note("site", unit.get("site"))
        self._note("side", sign_of(record))
        if isinstance(stats, dict) and isinstance(stats.get("tokens"), int):
            self._tokens = max(self._tokens, stats["tokens"])
        recorded = record.get("recorded")
        for name, value in (recorded if isinstance(recorded, dict) else {}).items():
            if name != "plans":
                self._note(name, value)
            elif isinstance(value, list):  # a line names its text by the plan of how it was cut
                self._note("text", ", ".join(f"plan {str(plan)[:16]}" for plan in value))
        for one in objects(record, "explanations", optional=True):
            self._note("explainer", _described(one.get("by")))
            for score in objects(one, "scores", optional=True):
                if score.get("simulator"):
                    self._note("simulator", score["simulator"])
                if score.get("method"):
                    self._note("method", score["method"])

    def _note(self, name: str, value: Any) -> None:
        self._facts.setdefault(name, Counter())[plain(value)] += 1

    def data(self) -> Record:
        """`facts`: each with its values and how many units have them; `counts`; `layers`; `scores`."""
        seen = self._scores.seen
        return {
            "facts": {name: dict(values.most_common()) for name, values in self._facts.items()},
            "counts": {
                "units": seen.units,
                "dead": self._states["dead"],
                "constant": self._states["constant"],
                "failed": self._states["error"],
                "unscored": seen.unscored,
                "tokens": self._tokens,
                "documents": self._scores.documents(),
            },
            "layers": {str(layer): count for layer, count in sorted(self._layers.items())},
            "scores": self._of_scores(),
        }

    def _of_scores(self) -> Record:
        """`figures`, the one that is shown first in front; `series`; `rows` of means; `histograms`."""
        figures = [name for name in self._scores.figures() if name not in LEFT_OUT]
        figures.sort(key=lambda name: MAIN.index(name) if name in MAIN else len(MAIN))
        labels = self._scores.labels()
        return {
            "figures": figures,
            "thresholds": list(THRESHOLDS),
            "series": [
                {"label": label, "baseline": one.baseline, "method": one.method, "simulator": one.simulator}
                for one, label in labels.items()
            ],
            "rows": [_cells(row) for row in self._scores.rows(figures, by_layer=True)],
            "histograms": {
                figure: {
                    label: _histogram(np.concatenate([layer.values for layer in layers.values()]))
                    for series, label in labels.items()
                    if (layers := self._scores.layers(series, figure))
                }
                for figure in figures
            },
        }


def _described(by: Any) -> str:
    who = author(by)
    settings = {
        key: value for key, value in who["settings"].items() if key not in ("version", "pool", "characters")
    }
    told = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"{who['name']} ({told})" if told else str(who["name"])


def _cells(row: Record) -> Record:
    kept = {name: row[name] for name in (*_CELLS, *(f"over_{t}" for t in THRESHOLDS), "absent", "failed")}
    return {name: short(value) if isinstance(value, float) else value for name, value in kept.items()}


def _histogram(values: np.ndarray[Any, np.dtype[np.float64]]) -> Record:
    """Counts of bins, BIN wide, from the one that holds the lowest value, whose lower end is `edge`."""
    if not len(values):
        return {"edge": 0.0, "width": BIN, "counts": []}
    first, last = (int(np.floor(round(float(end) / BIN, 9))) for end in (values.min(), values.max()))
    last = max(first, last - (last * BIN >= 1))  # a perfect score belongs to the bin below it
    places = np.clip(np.floor(np.round(values / BIN, 9)).astype(int), first, last) - first
    counts = np.bincount(places, minlength=last - first + 1)
    return {"edge": round(first * BIN, 9), "width": BIN, "counts": counts.tolist()}
