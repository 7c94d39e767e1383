"""nx-top: merge recordings and write a line for every unit, with the excerpts where it fires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.errors import InputError

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
    from nxtools.recordings.deal import Counts
    from nxtools.recordings.run import Run
    from nxtools.records import SETS, check_recording
    from nxtools.store import MissingBlob
    from nxtools.stream import Writer

    shared = Shared.of("nx-top", options)
    wanted = {name: Counts.parse(options[name.replace("-", "_")], f"--{name}") for name in SETS}
    reader = shared.reader(check_recording)
    lines = list(reader)
    progress = Progress(shared.command, "units", quiet=shared.quiet)
    with shared.open_store() as store, Writer(shared.output) as out:
        if not lines:
            return 0
        try:
            run = Run(lines, _opener(store, options["bulk"]), lambda data: store.put_blob(data, kind="pool"))
            for line in run.units(wanted, paper=options["protocol"] == "paper"):
                out.write_line(line)
                progress.step()
        except MissingBlob as error:
            raise InputError(
                f"{error.message}, which the recording needs",
                hint=f"bring it back with: {lines[0].get('command')}",
            ) from error
        if run.near_duplicates:
            progress.say(f"{run.near_duplicates} near duplicates between sets were dropped from lists")
        progress.say(f"{progress.done} units of {len(run.layers)} layers")
    return 0


def _opener(store: Store, bulk: str | None) -> Callable[[str], memoryview]:
    """Opens blobs in the bulk folder, if there is one, and in the store."""
    if bulk is None:
        return store.open_blob
    from nxtools.store import Store

    folder = Store(bulk)
    return lambda digest: folder.open_blob(digest) if folder.has(digest) else store.open_blob(digest)
