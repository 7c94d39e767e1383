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
    """Hands the units of a command's inputs to `see`, with simulations wherever a pattern can be run.

    What `see` cannot read is reported with its line, or skipped under --keep-going.
    """

    def __init__(self, shared: Shared, see: Callable[[Record], None]) -> None:
        from nxtools.folded import folded
        from nxtools.records import check_unit

        complete = completing(shared)

        def check(record: Record) -> None:
            check_unit(record)
            complete(record)
            see(record)

        self._reader = shared.reader(check, folded)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._reader)

    @property
    def skipped(self) -> int:
        return self._reader.skipped


def completing(shared: Shared) -> Callable[[Record], None]:
    """What runs a unit's patterns on its excerpts; the store has the embedding that `like` needs."""
    from nxtools.view.simulated import simulate_patterns

    lexicon_of = lexicons(shared)
    return lambda record: simulate_patterns(record, lexicon_of)


def lexicons(shared: Shared) -> Callable[[Unit], Lexicon]:
    """The texts and embedding of the tokens of a unit's subject: one for all units, whatever their layer.

    Without the store only patterns that say `like` cannot be run, which is said where they stand.
    """
    from nxtools.commands._pools import Pools
    from nxtools.pattern.lexicon import Lexicon

    pools = Pools(shared.command, shared.cache, shared.cache_mode, None)
    kept: dict[str, Lexicon] = {}

    def lexicon(unit: Unit) -> Lexicon:
        subject = unit.name.split(" ")[0]
        if subject not in kept:
            pool = pools.of(unit) if pools.digest(unit) else None
            if pool is None:
                return Lexicon(unit.vocabulary)
            kept[subject] = pool.lexicon
        return kept[subject]

    return lexicon
