"""What nx-explain does with one unit where patterns explain: of its excerpts, or of a table alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nxtools.commands._explained import with_explanation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nxtools.commands._pools import Pools
    from nxtools.explain.table import TableLearner
    from nxtools.pattern.fit import Budget
    from nxtools.stage import Engine, Step
    from nxtools.store import Store
    from nxtools.stream import Record
    from nxtools.unit import Unit


@dataclass(frozen=True)
class Learner:
    """The engine's function: what it needs to learn patterns, wherever it runs. `missing`: none ever is."""

    pools: Pools
    budget: Budget
    missing: list[str] = field(default_factory=list)

    def __call__(self, units: list[Any]) -> list[Any]:
        from nxtools.explain.pattern import explain

        return [
            explain(unit, self.pools.of(unit), self.budget, self.pools.table(unit, "corpus"))
            for unit in units
        ]

    def step(self, engine: Engine) -> Callable[[Record], Step]:
        from nxtools.explain.pattern import VERSION, question
        from nxtools.known import known
        from nxtools.stage import Question
        from nxtools.unit import Unit

        def step(record: Record) -> Step:
            if record.get("dead") or record.get("error"):
                return record
            unit = Unit(record)
            pool, table = self.pools.digest(unit), self.pools.table_digest(unit, "corpus")
            fields = question(unit, (yield from known(unit)).digests, pool, self.budget, table)
            (answer,) = yield [Question("explain.pattern", VERSION, fields, engine, unit, kind="explanation")]
            by = _by(self.budget) | {"pool": pool is not None}
            if table is not None:
                by["table"] = "corpus"
            return _explained(record, by, answer)

        return step


@dataclass(frozen=True)
class OfTable:
    """The same for patterns of a table, by name. `missing`: units that have no such table."""

    pools: Pools
    budget: Budget
    source: str
    missing: list[str] = field(default_factory=list)
    _learners: dict[str, TableLearner] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_learners": {}}

    def __call__(self, units: list[Unit]) -> list[Any]:
        from nxtools.explain.table import TableLearner, no_table

        found: list[Any] = []
        for unit in units:
            column = self.pools.table(unit, self.source)
            if column is None:
                found.append(no_table(self.source))
                continue
            if column.table.digest not in self._learners:
                self._learners.clear()  # units come layer by layer
                lexicon = self.pools.lexicon(unit)
                self._learners[column.table.digest] = TableLearner(lexicon, column.table)
            found.append(self._learners[column.table.digest].explain(unit, column, self.budget))
        return found

    def step(self, engine: Engine) -> Callable[[Record], Step]:
        from nxtools.explain.pattern import VERSION
        from nxtools.explain.table import no_table, question
        from nxtools.stage import Question
        from nxtools.unit import Unit

        by = _by(self.budget) | {"view": "tokens", "from": self.source}

        def step(record: Record) -> Step:
            if record.get("dead") or record.get("error"):
                return record
            unit = Unit(record)
            table = self.pools.table_digest(unit, self.source)
            if table is None:
                self.missing.append(unit.short_name)
                return _explained(record, by, no_table(self.source))
            fields = question(unit, self.pools.digest(unit), self.budget, table)
            (answer,) = yield [Question("explain.table", VERSION, fields, engine, unit, kind="explanation")]
            return _explained(record, by, answer)

        return step


@dataclass
class Learning:
    """A learner's work on all units, here or in several processes."""

    learner: Learner | OfTable
    engine: Engine

    def begin(self, store: Store) -> Callable[[Record], Step]:
        return self.learner.step(self.engine)

    def prepare(self, units: Iterable[Record]) -> Iterable[Record]:
        return units

    def seen(self) -> list[str]:
        missing = [*self.learner.missing]
        self.learner.missing.clear()
        return missing

    def see(self, seen: list[str]) -> None:
        self.learner.missing.extend(seen)


def _by(budget: Budget) -> Record:
    from nxtools.explain.pattern import VERSION

    by: Record = {"explainer": "pattern", "version": VERSION, "literals": budget.literals}
    return by if budget.characters is None else by | {"characters": budget.characters}


def _explained(record: Record, by: Record, answer: Any) -> Record:
    """The unit with its pattern, or with the error in its place."""
    from nxtools.explain.pattern import identify
    from nxtools.stage import Failure

    if isinstance(answer, Failure):
        return with_explanation(record, {"by": by, "error": answer.record()})
    return with_explanation(record, identify({"text": answer.pop("text"), "by": by, **answer}))
