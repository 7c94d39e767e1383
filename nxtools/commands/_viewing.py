"""What all ways to look at units share: reading them, and running patterns that nobody has simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from nxtools.commands._base import Shared

if TYPE_CHECKING:
    from nxtools.pattern.lexicon import Lexicon
    from nxtools.stream import Record
    from nxtools.unit import Unit


class Viewing:
    """The units of a command's inputs, with simulations wherever a pattern can be run."""

    def __init__(self, shared: Shared) -> None:
        from nxtools.folded import folded
        from nxtools.records import check_unit

        self._reader = shared.reader(check_unit, folded)
        self.complete = completing(shared)

    def __iter__(self) -> Iterator[Record]:
        for record in self._reader:
            self.complete(record)
            yield record

    @property
    def where(self) -> str:
        return self._reader.where

    @property
    def skipped(self) -> int:
        return self._reader.skipped


def completing(shared: Shared) -> Callable[[Record], None]:
    """What runs a unit's patterns on its excerpts; the store has the embedding that `like` needs."""
    from nxtools.view.simulated import simulate_patterns

    lexicon_of = lexicons(shared)
    return lambda record: simulate_patterns(record, lexicon_of)


def lexicons(shared: Shared) -> Callable[[Unit], Lexicon]:
    """The texts and embedding of the tokens of a unit's subject: one for all units, whatever their layer."""
    from nxtools.commands._pools import Pools

    pools = Pools(shared.command, shared.cache, shared.cache_mode, None)
    kept: dict[str, Lexicon] = {}

    def lexicon(unit: Unit) -> Lexicon:
        subject = unit.name.split(" ")[0]
        if subject not in kept:
            if pools.of(unit) is None:
                return pools.lexicon(unit)
            kept[subject] = pools.lexicon(unit)
        return kept[subject]

    return lexicon
