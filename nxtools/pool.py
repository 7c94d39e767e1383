"""What all units of a random pool share, worked out once: token texts, and the pool's tokens numbered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

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

Made = TypeVar("Made")


class Shared:
    """A pool with what is made of its tokens. Everything is made when it is first asked for.

    like: of another layer; what was made of the same tokens is not made again.
    """

    def __init__(self, pool: Pool, like: Shared | None = None) -> None:
        self.pool = pool
        same = like is not None and like.pool.tokens is pool.tokens
        self._made: dict[Any, Any] = like._made if like is not None and same else {}
        self._learners: dict[str | None, Learner] = {}

    def _once(self, name: Any, make: Callable[[], Made]) -> Made:
        if name not in self._made:
            self._made[name] = make()
        made: Made = self._made[name]
        return made

    @property
    def lexicon(self) -> Lexicon:
        return self._once("lexicon", lambda: Lexicon(self.pool.vocabulary, self.pool.embedding))

    @property
    def tokens(self) -> TokenIndex:
        """For the token baselines."""
        from nxtools.simulate.tables import PoolIndex as TokenIndex

        return self._once(
            "tokens", lambda: TokenIndex(self.pool.ids("evidence"), self.pool.ids("validation"))
        )

    @property
    def learner(self) -> Learner:
        """Of patterns, from what the pool says."""
        return self.learner_with(None)

    def learner_with(self, table: Table | None) -> Learner:
        """Of patterns, with the tokens of a corpus table."""
        name = None if table is None else table.digest
        if name not in self._learners:
            counted = None if table is None else (table.tokens.tobytes(), table.count.tobytes())
            self._learners[name] = self._once(("learner", counted), lambda: self._learner(table))
        return self._learners[name]

    def _learner(self, table: Table | None) -> Learner:
        from nxtools.pattern.corpus import Counted
        from nxtools.pattern.learn import Learner

        return Learner(
            self.lexicon,
            self.pool.ids("evidence"),
            self.pool.counted("evidence"),
            self.pool.ids("validation"),
            self.pool.counted("validation"),
            None if table is None else Counted(table.tokens, table.count),
        )

    def text(self, which: str) -> Text:
        """The excerpts of a set's part, laid out for patterns."""
        from nxtools.pattern.text import Text

        return self._once(("text", which), lambda: Text(self.pool.ids(which), self.lexicon))

    def names(self, which: str) -> list[str]:
        """Of the excerpts of a set's part of the pool."""
        return self._once(("names", which), lambda: self.pool.excerpts(which))

    def activations(self, unit: Unit, which: str) -> NDArray[np.float32]:
        """The unit's activations (excerpts, tokens) on a set's part of the pool."""
        assert unit.pool is not None
        return self.pool.activations(int(unit.pool["column"]), which)
