"""A unit line as the science sees it: arrays by set, and where its column of the random pool is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nxtools.folded import Folded
from nxtools.records import SETS, Table, excerpts_of, sign_of, table_of, tabulate, unit_name
from nxtools.stream import Record


@dataclass(frozen=True)
class Shown:
    """The excerpts of one set on a unit line, n of them."""

    table: Table  # (n, tokens)
    picks: tuple[str, ...]
    documents: tuple[str, ...]
    excerpts: tuple[str, ...]
    probabilities: tuple[float | None, ...]  # of being shown, where chance had a say

    def rows(self, which: Sequence[int]) -> Shown:
        """Some of them."""
        rows, table = list(which), self.table
        return Shown(
            Table(table.ids[rows], table.activations[rows], [table.texts[row] for row in rows]),
            tuple(self.picks[row] for row in rows),
            tuple(self.documents[row] for row in rows),
            tuple(self.excerpts[row] for row in rows),
            tuple(self.probabilities[row] for row in rows),
        )


def full_name(record: Record) -> str:
    """Tells a unit from every other unit of every subject."""
    unit = record["unit"]
    return " ".join(str(unit.get(part, "")) for part in ("fingerprint", "site", "layer", "index", "sign"))


def _probability(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value <= 1 else None


class Unit:
    """`name` tells it from every other unit of every subject; `vocabulary` has its tokens' texts."""

    def __init__(self, record: Record) -> None:
        unit = record["unit"]
        self.sign = sign_of(record)
        self.short_name = unit_name(record)
        self.layer = int(unit["layer"])
        self.name = full_name(record)
        pool = record.get("pool")
        self.pool: dict[str, Any] | None = pool if isinstance(pool, dict) and "blob" in pool else None
        tables = record.get("tables")
        self.tables: dict[str, dict[str, Any]] = tables if isinstance(tables, dict) else {}
        self.excerpts: list[Record] | Folded = record["excerpts"]
        self._shown: dict[str, Shown] = {}

    def shown(self, which: str) -> Shown:
        """The excerpts of a set. InputError when they cannot be read."""
        if which not in self._shown:
            excerpts, table = self._read(which)
            self._shown[which] = Shown(
                table,
                tuple(str(e["pick"]) for e in excerpts),
                tuple(str(e.get("document", e.get("id", place))) for place, e in enumerate(excerpts)),
                tuple(str(e.get("id", "")) for e in excerpts),
                tuple(_probability(e.get("probability")) for e in excerpts),
            )
        return self._shown[which]

    def _read(self, which: str) -> tuple[list[Record], Table]:
        if isinstance(self.excerpts, Folded) and (columns := self.excerpts.columns(which)) is not None:
            return columns.excerpts, table_of(columns, lambda: [e["tokens"] for e in self._excerpts(which)])
        excerpts = self._excerpts(which)
        return excerpts, tabulate(excerpts)

    def _excerpts(self, which: str) -> list[Record]:
        return excerpts_of({"excerpts": self.excerpts}, [which])

    @cached_property
    def vocabulary(self) -> dict[int, str]:
        return {id: text for which in SETS for id, text in self.shown(which).table.vocabulary.items()}
