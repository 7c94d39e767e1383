"""nx-contexts: how much context a unit's top activations need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.commands._running import engine_or_offline, run_units
from nxtools.commands._subjects import subject_options
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nxtools.contexts.step import Checker
    from nxtools.progress import Progress
    from nxtools.stage import Answered, Counts, Pull, Step
    from nxtools.store import Store
    from nxtools.stream import Record
    from nxtools.subject.ends import EndReader

EXAMPLES = """
nx-record --subject DIR text/ | nx-top | nx-contexts --subject DIR > units.jsonl
nx-contexts --lengths 1,2,3,4,6,8 units.jsonl | nx-top --sort context --limit 50
nx-contexts units.jsonl | jq -r '[.unit.layer,.unit.index,.contexts.shortest]|@tsv'
"""


@command(
    "nx-contexts",
    examples=EXAMPLES,
    takes="recorded unit lines, from nx-top",
    gives="the same lines with how much of their top activations each length of context preserves",
)
@inputs_argument
@click.option(
    "--lengths",
    default="1,2,4,8,16",
    show_default=True,
    metavar="N,…",
    help="Tokens of context that are left, the strongest one included.",
)
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@subject_options
@shared_options
def main(**options: Any) -> int:
    """Cut the context before each unit's strongest tokens, run the subject on what is left, and keep the
    shortest context that preserves 90% of the activation. Only evidence is looked at.
    """
    from nxtools.commands._pools import Pools
    from nxtools.contexts.step import Checker

    shared = Shared.of("nx-contexts", options)
    lengths = _lengths(options["lengths"])
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    readers: list[_Reader] = []
    checkers: list[Checker] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        readers.append(_Reader(options, store))
        engine = engine_or_offline(shared, "contexts", readers[-1])
        checkers.append(Checker(lengths, engine, pools.blob))
        return checkers[-1].step

    def say(progress: Progress, counts: Counts) -> None:
        from nxtools.contexts.summary import lines

        counts.failed += checkers[-1].refused
        for line in lines(lengths, checkers[-1].found):
            progress.say(line)
        told = f", {absent:,} without top excerpts" if (absent := checkers[-1].absent) else ""
        progress.say(f"{counts.units:,} units: {counts.described()}{told}{readers[-1].told()}")

    return run_units(shared, begin, finish=say)


def _lengths(text: str) -> tuple[int, ...]:
    """`1,2,4` as (1, 2, 4); `full` may be said too, and is always there."""
    try:
        found = sorted({int(part) for part in text.split(",") if part.strip() != "full"})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise UsageError(f"--lengths takes numbers of tokens like 1,2,4,8,16, not {text!r}")
    return tuple(found)


class _Reader:
    """The engine. torch is not loaded before something is missing."""

    def __init__(self, options: dict[str, Any], store: Store) -> None:
        self._options, self._store = options, store
        self._engine: EndReader | None = None

    def told(self) -> str:
        """What went through the subject."""
        if self._engine is None:
            return ""
        return f"; {self._engine.texts:,} texts run, {self._engine.asked:,} asked for"

    def answer(self, pull: Pull) -> Iterator[Answered]:
        if self._engine is None:
            from nxtools.commands._subjects import load
            from nxtools.subject.ends import EndReader

            self._engine = EndReader("contexts", lambda wanted: load(self._options, self._store, wanted))
        return self._engine.answer(pull)
