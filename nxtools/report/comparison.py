"""Scores of several runs, or of several series of one run, paired by unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from nxtools.errors import InputError
from nxtools.records import unit_name
from nxtools.report.distribution import COUNTED, held_out_documents
from nxtools.report.estimate import Estimate, Gathered, Value
from nxtools.report.series import Series, entries, figures, labels, replicates
from nxtools.report.significance import holm, sign_test
from nxtools.report.table import Row
from nxtools.stream import Record
from nxtools.unit import full_name

TESTS = ("bootstrap", "sign")


class Run:
    """The scores of one file. `wanted`: the figures that are kept; none for all."""

    def __init__(self, name: str, wanted: Sequence[str], by_place: bool = False) -> None:
        """by_place: units of another subject at the same place are the same unit."""
        self.name = name
        self.layers: dict[str, int] = {}  # of each unit
        self.figures: dict[str, bool] = {}  # whether they are no counts
        self._wanted = wanted
        self._by_place = by_place
        self._documents: set[str] = set()
        self._values: dict[Series, dict[str, dict[str, Value]]] = {}

    def add(self, record: Record) -> None:
        """InputError for scores that cannot be read, and for a unit that was there before."""
        unit = full_name({"unit": {**record["unit"], "fingerprint": ""}} if self._by_place else record)
        if unit in self.layers:
            raise InputError(f"unit {unit_name(record)} is in {self.name} twice", hint="compare single runs")
        if len(self.layers) < COUNTED:
            self._documents.update(held_out_documents(record))
        for entry in entries(record):
            score = entry.score
            if score is None or "error" in score:
                continue
            by_figure = self._values.setdefault(entry.series, {})
            for figure, value in figures(score):
                self.figures[figure] = self.figures.get(figure, False) or type(value) is not int
                if value is not None and figure in self._wanted:
                    drawn = replicates(score, figure)
                    by_figure.setdefault(figure, {})[unit] = value, drawn
        self.layers[unit] = int(record["unit"]["layer"])

    def series(self) -> dict[str, Series]:
        """By label, explanations first."""
        return {
            label: one for one, label in labels(sorted(self._values, key=lambda one: one.baseline)).items()
        }

    def side(self, label: str, series: Series) -> Side:
        return Side(label, self.layers, self._values[series], len(self._documents))


@dataclass(frozen=True)
class Side:
    """One series of one file: layers of all units of the file, and values by figure and unit."""

    label: str
    layers: dict[str, int]
    values: dict[str, dict[str, Value]]
    documents: int


@dataclass
class Pairs:
    """The differences a - b of the units of one layer, or of all."""

    gathered: Gathered = field(default_factory=Gathered)
    a: list[float] = field(default_factory=list)
    b: list[float] = field(default_factory=list)
    absent: int = 0
    only_a: int = 0
    only_b: int = 0

    @classmethod
    def together(cls, parts: Iterable[Pairs]) -> Pairs:
        parts = list(parts)
        return cls(
            Gathered(part.gathered for part in parts),
            [value for part in parts for value in part.a],
            [value for part in parts for value in part.b],
            *(sum(getattr(part, name) for part in parts) for name in ("absent", "only_a", "only_b")),
        )

    def add(self, unit: str, a: Value | None, b: Value | None) -> None:
        if a is None or b is None:
            self.absent += 1
            return
        self.a.append(a[0])
        self.b.append(b[0])
        self.gathered.add_difference(unit, a, b)


class Comparison:
    """Two sides under one figure, by layer."""

    def __init__(self, figure: str, a: Side, b: Side) -> None:
        self.figure, self.a, self.b = figure, a, b
        self.documents = min(a.documents, b.documents)
        self.layers: dict[int, Pairs] = {}
        in_a, in_b = a.values.get(figure, {}), b.values.get(figure, {})
        for unit, layer in a.layers.items():
            pairs = self._of(layer)
            if unit in b.layers:
                pairs.add(unit, in_a.get(unit), in_b.get(unit))
            else:
                pairs.only_a += 1
        for unit, layer in b.layers.items():
            if unit not in a.layers:
                self._of(layer).only_b += 1
        self.layers = {layer: self.layers[layer] for layer in sorted(self.layers)}

    def _of(self, layer: int) -> Pairs:
        return self.layers.setdefault(layer, Pairs())

    def all(self) -> Pairs:
        return Pairs.together(self.layers.values())

    def mean(self, pairs: Pairs) -> Estimate:
        return pairs.gathered.mean(self.documents)

    def rows(self, by_layer: bool, test: str) -> Iterator[Row]:
        """Over all units and, `by_layer`, over each layer. `p_holm` is filled in by `corrected`."""
        yield self._row("all", self.all(), test)
        if by_layer:
            for layer, pairs in self.layers.items():
                yield self._row(layer, pairs, test)

    def _row(self, layer: int | str, pairs: Pairs, test: str) -> Row:
        mean, differences = self.mean(pairs), np.array(pairs.a) - np.array(pairs.b)
        wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
        return {
            "a": self.a.label,
            "b": self.b.label,
            "figure": self.figure,
            "layer": layer,
            "units": mean.units,
            "mean_a": float(np.mean(pairs.a)) if pairs.a else None,
            "mean_b": float(np.mean(pairs.b)) if pairs.b else None,
            "difference": mean.value,
            "low": mean.low,
            "high": mean.high,
            "interval_over": mean.over,
            "wins": wins,
            "losses": losses,
            "ties": mean.units - wins - losses,
            "test": test,
            "p": mean.p if test == "bootstrap" else sign_test(wins, losses) if mean.units else None,
            "p_holm": None,
            "absent": pairs.absent,
            "only_a": pairs.only_a,
            "only_b": pairs.only_b,
        }


def corrected(rows: Sequence[Row]) -> None:
    """Puts `p_holm` on rows; those over all units correct each other, and so do those of layers."""

    def family(row: Row) -> tuple[str, bool]:
        return str(row["figure"]), row["layer"] == "all"

    tested = sorted((row for row in rows if row["p"] is not None), key=family)
    for _, members in groupby(tested, key=family):
        same = list(members)
        for row, p in zip(same, holm([float(row["p"]) for row in same]), strict=True):
            row["p_holm"] = p
