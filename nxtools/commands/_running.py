"""How commands run over the unit lines that come in: the one loop, and what is an engine offline."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from nxtools.commands._base import Shared
from nxtools.progress import Progress
from nxtools.stream import Record, Writer

if TYPE_CHECKING:
    from nxtools.stage import Counts, Engine, Step
    from nxtools.store import Store


class OfflineEngine:
    """Stands where an engine would be under --offline: whatever it is asked was not in the store."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def answer(self, pull: Callable[[int], list[Any]]) -> Iterator[list[tuple[Any, Any]]]:
        from nxtools.stage import Failure

        while asks := pull(64):
            failure = Failure(self.stage, "offline", "the answer is not in the store and --offline was given")
            yield [(ask, failure) for ask in asks]


def say_counts(progress: Progress, counts: Counts) -> None:
    progress.say(f"{counts.units:,} units: {counts.described()}")


def run_units(
    shared: Shared,
    begin: Callable[[Store], Callable[[Record], Step]],
    *,
    noun: str = "units",
    prepare: Callable[[Iterable[Record]], Iterable[Record]] = lambda units: units,
    each: Callable[[Record], None] = lambda unit: None,
    finish: Callable[[Progress, Counts], None] = say_counts,
) -> int:
    """Runs the step that `begin(store)` gives over the units that come in; returns the exit status.

    `prepare` may change units as they are read, one by one; `each` sees those that go out; `finish` says at
    the end what came of it. Excerpts are Folded: `excerpts_of` reads them, `unfolded` is for changing them.
    """
    import gc

    from nxtools.folded import check_folded, folded, written
    from nxtools.records import check_unit
    from nxtools.stage import Loop

    def sound(step: Callable[[Record], Step]) -> Callable[[Record], Step]:
        def checked(record: Record) -> Step:
            done = yield from step(record)
            check_folded(done)
            return done

        return checked

    # A line of 40 excerpts is 200 lists and dicts without a cycle among them: looking for cycles at every 700
    # new ones takes a fifth of the time of a run that finds its answers in the store.
    gc.set_threshold(200_000)
    reader = shared.reader(check_unit, folded)
    progress = Progress(shared.command, noun, quiet=shared.quiet)
    with shared.open_store() as store, Writer(shared.output) as out:
        loop = Loop(
            prepare(reader),
            sound(begin(store)),
            store,
            where=lambda: reader.where,
            ready=reader.ready,
            before_waiting=out.flush,
            keep_going=shared.keep_going,
            on_bad=shared.on_bad,
        )
        with contextlib.closing(iter(loop)) as units:
            for unit in units:
                each(unit)
                out.write_line(*written(unit))
                progress.step()
    loop.counts.skipped += reader.skipped
    finish(progress, loop.counts)
    return shared.status(loop.counts)


def engine_or_offline(shared: Shared, stage: str, engine: Engine) -> Engine:
    return OfflineEngine(stage) if shared.cache_mode == "offline" else engine
