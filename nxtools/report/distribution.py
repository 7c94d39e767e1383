"""The distribution of one run's scores: by series, figure and layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nxtools.records import SETS, excerpts_of
from nxtools.report.estimate import Floats, Gathered
from nxtools.report.series import Series, entries, figures, labels, replicates, why_absent
from nxtools.report.table import Row
from nxtools.score.replicates import Drawn
from nxtools.score.summary import THRESHOLDS
from nxtools.stream import Record
from nxtools.unit import full_name

# What stands in a table when nothing else is asked for; figures of other methods always do.
LEFT_OUT = frozenset({"top_only", "ceiling"})
QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}
COUNTED = 256  # units whose documents are counted: enough that Student's t no longer depends on more


@dataclass
class Seen:
    """What the lines were, whatever scores they have."""

    units: int = 0
    dead: int = 0
    errors: int = 0
    unscored: int = 0

    def described(self) -> str:
        more = {"dead": self.dead, "with errors": self.errors, "without scores": self.unscored}
        return ", ".join(
            [f"{self.units} units", *(f"{count} {what}" for what, count in more.items() if count)]
        )


class Distribution:
    """Takes unit lines one by one; keeps their values and, in sums, their replicates."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._documents: set[str] = set()
        self._gathered: dict[Series, dict[str, dict[int, Gathered]]] = {}
        self._figures: set[str] = set()  # those that are not counts
        self._failed: Counter[tuple[Series, int]] = Counter()

    def add(self, record: Record) -> None:
        """InputError when the line's scores cannot be read."""
        found = list(entries(record))
        drawn = [
            {figure: replicates(score, figure) for figure, _ in figures(score)}
            for score in (entry.score or {} for entry in found)
        ]
        documents = held_out_documents(record) if self.seen.units < COUNTED else ()
        self._documents.update(list(documents))
        # Nothing of the line was taken until here, where all of it has been read.
        layer, name = int(record["unit"]["layer"]), full_name(record)
        for entry, of_figures in zip(found, drawn, strict=True):
            if entry.score is None or "error" in entry.score:
                self._failed[entry.series, layer] += 1
            else:
                self._take(entry.series, entry.score, layer, name, of_figures)
        self._count(record, bool(found))

    def _take(
        self, series: Series, score: Record, layer: int, name: str, drawn: dict[str, Drawn | None]
    ) -> None:
        by_figure = self._gathered.setdefault(series, {})
        for figure, value in figures(score):
            by_layer = by_figure.setdefault(figure, {})
            gathered = by_layer.get(layer)
            if gathered is None:
                gathered = by_layer[layer] = Gathered()
            if value is None:
                gathered.absent[why_absent(score, figure)] += 1
            else:
                gathered.add(name, value, drawn[figure])
            if type(value) is not int:
                self._figures.add(figure)

    def _count(self, record: Record, scored: bool) -> None:
        self.seen.units += 1
        self.seen.dead += bool(record.get("dead"))
        self.seen.errors += bool(record.get("error"))
        self.seen.unscored += not (scored or record.get("dead") or record.get("error"))

    def figures(self) -> list[str]:
        """All figures, in the order in which scores have them."""
        found = dict.fromkeys(figure for by_figure in self._gathered.values() for figure in by_figure)
        return sorted((figure for figure in found if figure in self._figures), key=_decile)

    def labels(self) -> dict[Series, str]:
        """Explanations first, as they came, and what stands for each in tables."""
        series = dict.fromkeys([*self._gathered, *(one for one, _ in self._failed if one.method)])
        return labels(sorted(series, key=lambda one: one.baseline))

    def layers(self, series: Series, figure: str) -> dict[int, Gathered]:
        by_layer = self._gathered.get(series, {}).get(figure, {})
        return {layer: by_layer[layer] for layer in sorted(by_layer)}

    def documents(self) -> int:
        return len(self._documents)

    def rows(self, wanted: Sequence[str], by_layer: bool) -> Iterator[Row]:
        """A row for each series and figure over all units and, `by_layer`, for each layer behind it."""
        for figure in wanted:
            for series, label in self.labels().items():
                layers = self.layers(series, figure)
                if layers:
                    yield self._row(label, series, figure, "all", Gathered(layers.values()))
                if by_layer:
                    for layer, gathered in layers.items():
                        yield self._row(label, series, figure, layer, gathered)

    def _row(self, label: str, series: Series, figure: str, layer: int | str, gathered: Gathered) -> Row:
        mean, values = gathered.mean(self.documents()), gathered.values
        absent = gathered.absent.total()
        return {
            "series": label,
            "baseline": series.baseline,
            "method": series.method,
            "simulator": series.simulator,
            "figure": figure,
            "layer": layer,
            "units": mean.units,
            "mean": mean.value,
            "low": mean.low,
            "high": mean.high,
            "interval_over": mean.over,
            "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            **quantiles(values),
            **{f"over_{threshold}": gathered.over(threshold) for threshold in THRESHOLDS},
            "mean_absent_as_0": math.fsum(values) / (len(values) + absent) if len(values) else None,
            "absent": absent,
            "absent_because": dict(sorted(gathered.absent.items())) or None,
            "failed": self._failures(series, layer),
        }

    def _failures(self, series: Series, layer: int | str) -> int:
        """Scores that are errors, and explanations of the same kind that were never made."""
        return sum(
            count
            for (one, at), count in self._failed.items()
            if layer in ("all", at) and (one == series or (not one.method and _alike(one, series)))
        )


def _decile(figure: str) -> int:
    """Puts the figures of deciles in order behind the others: a unit may not have all of them."""
    name, _, number = figure.rpartition("_")
    return int(number) if name == "recall_decile" else 0


def _alike(one: Series, other: Series) -> bool:
    return (one.name, one.settings, one.baseline) == (other.name, other.settings, other.baseline)


def quantiles(values: Floats) -> dict[str, float | None]:
    """Interpolated between the two nearest values."""
    if not len(values):
        return dict.fromkeys(QUANTILES)
    found = np.quantile(values, list(QUANTILES.values())).tolist()
    return dict(zip(QUANTILES, found, strict=True))


def held_out_documents(record: Record) -> Iterator[str]:
    """The documents that the unit was scored on."""
    for excerpt in excerpts_of(record, SETS[-1:]):
        yield str(excerpt.get("document", excerpt.get("id", "")))
