"""nx-top: merge recordings and write a line for every unit, with the excerpts where it fires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, command, inputs_argument, shared_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from nxtools.store import Store

EXAMPLES = """
nx-record --subject DIR text/ | nx-top > units.jsonl
nx-top --evidence top=20,spread=20,random=40 recorded.jsonl | nx-explain | nx-score
nx-top --protocol paper recorded.jsonl
"""


@command(
    "nx-top",
    examples=EXAMPLES,
    takes="recording lines of one subject and site, from any number of runs",
    gives="unit lines: statistics and excerpts, by layer and index",
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
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@shared_options
def main(**options: Any) -> int:
    """Merge recordings and write a line for every unit: its statistics, and the excerpts where it fires most,
    beside random ones. Signed units get as many bottom excerpts as top ones unless bottom=N says otherwise.
    """
    from nxtools.progress import Progress
    from nxtools.recordings.deal import Counts as Picks
    from nxtools.recordings.run import Run, check_line
    from nxtools.records import SETS
    from nxtools.stage import Counts
    from nxtools.stream import Writer

    shared = Shared.of("nx-top", options)
    wanted = {name: Picks.parse(options[name.replace("-", "_")], f"--{name}") for name in SETS}
    reader = shared.reader(check_line)
    lines = list(reader)
    status = shared.status(Counts(skipped=reader.skipped))
    progress = Progress(shared.command, "units", quiet=shared.quiet)
    with shared.open_store() as store, Writer(shared.output) as out:
        if not lines:
            return status
        bulk = _bulk(options["bulk"], store)
        run = Run(lines, _opener(bulk, store), lambda data: bulk.put_blob(data, kind="pool"))
        for line in run.units(wanted, paper=options["protocol"] == "paper"):
            out.write_line(line)
            progress.step()
        if run.near_duplicates:
            progress.say(f"{run.near_duplicates} near duplicates between sets were dropped from lists")
        if run.repeated:
            progress.say(f"{run.repeated} excerpts are in several recordings: shown once, counted each time")
        for name in sorted(run.partial):
            progress.say(f"the table {name} is left out where not all recordings of a layer have it")
        progress.say(f"{progress.done} units of {len(run.layers)} layers")
    return status


def _bulk(folder: str | None, store: Store) -> Store:
    """Where recordings lie, and the pools made of them will."""
    from nxtools.store import Store

    return Store(folder) if folder else store


def _opener(bulk: Store, store: Store) -> Callable[[str], memoryview]:
    """Opens blobs in the bulk folder, if there is one, and in the store."""
    if bulk is store:
        return store.open_blob
    return lambda digest: bulk.open_blob(digest) if bulk.has(digest) else store.open_blob(digest)
