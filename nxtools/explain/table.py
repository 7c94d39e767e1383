"""Explanations of a table of tokens, as in Bills et al. 2023: no excerpt of the unit is looked at.

A table says what a unit does at single tokens, on average over all the evidence or by the weights alone. What
its explanation scores, beside one of excerpts, says what surroundings and single texts add.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nxtools.explain.pattern import side
from nxtools.pattern.corpus import Counted, Means
from nxtools.pattern.fit import Budget
from nxtools.pattern.learn import Learner, Sample
from nxtools.pattern.lexicon import Lexicon
from nxtools.records import Failure
from nxtools.stream import Record
from nxtools.unit import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nxtools.recordings.table import Column, Table

SOURCES = ("corpus", "weights")


def no_table(source: str) -> Failure:
    return Failure(
        "explain", "no-table", f"no {source} table is at hand: nx-record --tables {source} makes it"
    )


def question(unit: Unit, pool: str | None, budget: Budget, table: Sequence[Any]) -> Record:
    """All that a pattern of a table depends on. pool: the one at hand, which has the texts of all tokens."""
    return {
        "sign": unit.sign,
        "pool": pool,
        "vocabulary": None if pool is not None else sorted(unit.vocabulary.items()),
        "literals": budget.literals,
        "characters": budget.characters,
        "table": list(table),
    }


class TableLearner:
    """Learns patterns from the columns of one table: its tokens are laid out as excerpts of a single one."""

    def __init__(self, lexicon: Lexicon, table: Table) -> None:
        texts = dict(enumerate(lexicon.texts))
        self._rows = np.flatnonzero([texts.get(id) is not None for id in table.tokens.tolist()])
        tokens = table.tokens[self._rows]
        ids, valid = tokens[:, None], np.ones((len(tokens), 1), bool)
        self._nothing = Sample(ids[:0], np.zeros((0, 1), np.float32))
        self._learner = Learner(lexicon, ids, valid, ids, valid, Counted(tokens, table.count[self._rows]))

    def explain(self, unit: Unit, column: Column, budget: Budget) -> Record:
        """What goes on the unit line, without its author: text and scale."""

        def told(values: NDArray[np.float32]) -> NDArray[np.float32]:
            return side(values, unit.sign)

        means = column.values[self._rows]
        values = told(means[:, None])
        learned = self._learner.learn(
            self._nothing,
            values,
            self._nothing,
            values,
            budget,
            means=Means(means, means[:, None], told),
        )
        return {"text": str(learned.pattern), "scale": float(f"{learned.scale:.4g}")}
