"""nx-top: merge recordings and write a line for every unit, with the excerpts where it fires."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._assistants import typed
from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.commands._sorting import KEYS, Lines, Sorting
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nxtools.progress import Progress
    from nxtools.recordings.run import Run
    from nxtools.store import Store

EXAMPLES = """
nx-record --subject DIR text/ | nx-top > units.jsonl
nx-top --evidence top=20,spread=20,random=40 recorded.jsonl | nx-explain | nx-score
nx-top --sort kurtosis --limit 100 recorded.jsonl | nx-explain
nx-score explained.jsonl | nx-top --sort gap --limit 20
nx-top --protocol paper recorded.jsonl
"""


@command(
    "nx-top",
    examples=EXAMPLES,
    takes="recording lines of one subject and site, from any number of runs; to --sort or --limit unit lines",
    gives="unit lines: statistics and excerpts, by layer and index or sorted",
)
@inputs_argument
@click.option("--evidence", default="top=10,random=10", show_default=True, help="Excerpts to learn from.")
@click.option("--validation", default="top=5,random=5", show_default=True, help="Excerpts to choose by.")
@click.option("--held-out", default="top=5,random=5", show_default=True, help="Excerpts to score on.")
@click.option(
    "--protocol",
    type=click.Choice(["sets", "paper"]),
    default="sets",
    show_default=True,
    help="Sets by document, or the ranks dealt in turn as in the paper.",
)
@click.option("--sort", type=click.Choice(KEYS), help="Units with the most of it first.")
@click.option("--figure", help="The score that `score` and `gap` are of  [default: top_and_random].")
@click.option("--ascending", is_flag=True, help="Units with the least of it first.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="So many units, and no more.")
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@shared_options
def main(**options: Any) -> int:
    """Merge recordings and write a line for every unit: its statistics, and the excerpts where it fires most,
    beside random ones. Signed units get as many bottom excerpts as top ones unless bottom=N says otherwise.
    --sort puts interesting units first; it and --limit take unit lines of later commands, too.
    """
    from nxtools.progress import Progress
    from nxtools.recordings.deal import Counts as Picks
    from nxtools.recordings.run import Run
    from nxtools.records import SETS
    from nxtools.stage import Counts
    from nxtools.stream import Writer

    shared = Shared.of("nx-top", options)
    sorting = Sorting.of(options)
    wanted = {name: Picks.parse(options[name.replace("-", "_")], f"--{name}") for name in SETS}
    lines = Lines(units=sorting.key is not None or sorting.limit is not None)
    reader = shared.reader(lines.check, lines.parse)
    progress = Progress(shared.command, "units", quiet=shared.quiet)
    run: Run | None = None
    with shared.open_store() as store, Writer(shared.output) as out:
        records = iter(reader)
        first = next(records, None)
        if first is None:
            return shared.status(Counts(skipped=reader.skipped))
        if lines.kind == "unit":
            for name in typed(*OF_RECORDINGS):
                raise UsageError(f"--{name.replace('_', '-')} is for recordings, and these are units")
            units = sorting.of_units(chain([first], records), lines)
        else:
            bulk = _bulk(shared, options["bulk"], store)
            run = Run([first, *records], _opener(bulk, store), lambda data: bulk.put_blob(data, kind="pool"))
            units = sorting.of_recordings(run, wanted, paper=options["protocol"] == "paper")
        for line in units:
            out.write_line(line)
            progress.step()
    if run is not None:
        _say_left_out(run, progress)
    if sorting.lacking:
        progress.say(f"{sorting.lacking:,} units have no {sorting.key} and come last")
    of_layers = "" if run is None else f" of {len(run.layers)} layers"
    progress.say(f"{progress.done} units{of_layers}")
    return shared.status(Counts(skipped=reader.skipped))


OF_RECORDINGS = ("evidence", "validation", "held_out", "protocol", "bulk")


def _say_left_out(run: Run, progress: Progress) -> None:
    if run.near_duplicates:
        progress.say(f"{run.near_duplicates} near duplicates between sets were dropped from lists")
    if run.repeated:
        progress.say(f"{run.repeated} excerpts are in several recordings: shown once, counted each time")
    for name in sorted(run.partial):
        progress.say(f"the table {name} is left out where not all recordings of a layer have it")


def _bulk(shared: Shared, folder: str | None, store: Store) -> Store:
    """Where recordings lie, and the pools made of them will. UsageError."""
    from nxtools.commands._pools import check_bulk
    from nxtools.progress import warn_once
    from nxtools.store import Store

    check_bulk(folder)
    return Store(folder, warn=lambda line: warn_once(f"{shared.command}: {line}")) if folder else store


def _opener(bulk: Store, store: Store) -> Callable[[str], memoryview]:
    """Opens blobs in the bulk folder, if there is one, and in the store."""
    if bulk is store:
        return store.open_blob
    return lambda digest: bulk.open_blob(digest) if bulk.has(digest) else store.open_blob(digest)
