"""What all units of a random pool share, worked out once: token texts, and the pool's tokens numbered."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from nxtools.pattern.lexicon import Lexicon
from nxtools.recordings.pool import Pool
from nxtools.unit import Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nxtools.pattern.learn import Learner
    from nxtools.pattern.text import Text
    from nxtools.recordings.table import Table
    from nxtools.simulate.tables import PoolIndex as TokenIndex


class Shared:
    """A pool with what is made of it. Everything is made when it is first asked for."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._names: dict[str, list[str]] = {}
        self._learners: dict[str | None, Learner] = {}
        self._texts: dict[str, Text] = {}

    @cached_property
    def lexicon(self) -> Lexicon:
        return Lexicon(self.pool.vocabulary, self.pool.embedding)

    @cached_property
    def tokens(self) -> TokenIndex:
        """For the token baselines."""
        from nxtools.simulate.tables import PoolIndex as TokenIndex

        return TokenIndex(self.pool.ids("evidence"), self.pool.ids("validation"))

    @property
    def learner(self) -> Learner:
        """Of patterns, from what the pool says."""
        return self.learner_with(None)

    def learner_with(self, table: Table | None) -> Learner:
        """Of patterns, with the tokens of a corpus table."""
        name = None if table is None else table.digest
        if name not in self._learners:
            from nxtools.pattern.corpus import Counted
            from nxtools.pattern.learn import Learner

            self._learners[name] = Learner(
                self.lexicon,
                self.pool.ids("evidence"),
                self.pool.counted("evidence"),
                self.pool.ids("validation"),
                self.pool.counted("validation"),
                None if table is None else Counted(table.tokens, table.count),
            )
        return self._learners[name]

    def text(self, which: str) -> Text:
        """The excerpts of a set's part, laid out for patterns."""
        if which not in self._texts:
            from nxtools.pattern.text import Text

            self._texts[which] = Text(self.pool.ids(which), self.lexicon)
        return self._texts[which]

    def names(self, which: str) -> list[str]:
        """Of the excerpts of a set's part of the pool."""
        if which not in self._names:
            self._names[which] = self.pool.excerpts(which)
        return self._names[which]

    def activations(self, unit: Unit, which: str) -> NDArray[np.float32]:
        """The unit's activations (excerpts, tokens) on a set's part of the pool."""
        assert unit.pool is not None
        return self.pool.activations(int(unit.pool["column"]), which)
