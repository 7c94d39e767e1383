"""How commands run over the unit lines that come in: the one loop, and what is an engine offline."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from nxtools.commands._base import Shared
from nxtools.progress import Progress
from nxtools.stream import Record, Writer

if TYPE_CHECKING:
    from nxtools.divided import Work
    from nxtools.stage import Counts, Engine, Step
    from nxtools.store import Store


LINES = 64  # where a unit takes about a millisecond


class Division(NamedTuple):
    """What several processes do, how many they are, and of how many lines at a time."""

    work: Work
    jobs: int
    lines: int


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
    division: Division | None = None,
) -> int:
    """Runs the step that `begin(store)` gives over the units that come in; returns the exit status.

    `prepare` may change units as they are read, one by one; `each` sees those that go out; `finish` says at
    the end what came of it. With a `division` other processes take over as soon as something had to be
    computed. Excerpts are Folded: `excerpts_of` reads them, `unfolded` is for changing them.
    """
    from nxtools.divided import Divided, spare_the_collector
    from nxtools.folded import checked, folded, written
    from nxtools.records import check_unit
    from nxtools.stage import WINDOW, Counts, Loop

    spare_the_collector()
    reader = shared.reader(check_unit, folded)
    progress = Progress(shared.command, noun, quiet=shared.quiet)
    counts = Counts()

    def here(units: Iterable[Record]) -> Iterator[Record]:
        """All units, or those before others take over."""
        for number, unit in enumerate(units, start=1):
            yield unit
            if division is not None and number >= division.lines and loop.counts.computed:
                return

    with shared.open_store() as store, Writer(shared.output) as out:
        loop = Loop(
            here(prepare(reader)),
            checked(begin(store)),
            store,
            window=division.lines if division else WINDOW,
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
        counts.add(loop.counts)
        if division is not None and loop.counts.computed:
            divided = Divided(
                reader,
                division.work,
                shared.open_store,
                division.jobs,
                division.lines,
                before_waiting=out.flush,
                keep_going=shared.keep_going,
                on_bad=shared.on_bad,
            )
            with contextlib.closing(iter(divided)) as lines:
                for line in lines:
                    out.write_line(*line)
                    progress.step()
            counts.add(divided.counts)
    counts.skipped += reader.skipped
    finish(progress, counts)
    return shared.status(counts)


def division_of(work: Work, jobs: int, lines: int = LINES) -> Division | None:
    """Work for so many processes, 0 for as many as there are cores; None where it is done here."""
    jobs = jobs or cores()
    return Division(work, jobs, lines) if jobs > 1 else None


def cores() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def engine_or_offline(shared: Shared, stage: str, engine: Engine) -> Engine:
    return OfflineEngine(stage) if shared.cache_mode == "offline" else engine
