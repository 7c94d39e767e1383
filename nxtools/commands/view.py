"""nx-view: units as people look at them: one file that opens anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, command, inputs_argument, shared_options

if TYPE_CHECKING:
    from nxtools.stage import Counts

EXAMPLES = """
nx-view scored.jsonl -o report.html
nx-view --title 'Layer 2, revised' revised.jsonl -o report.html
"""


@command(
    "nx-view",
    examples=EXAMPLES,
    takes="scored unit lines of one run, from nx-score; whatever they lack is said to be missing",
    gives="a page of HTML that needs no network",
)
@inputs_argument
@click.option("--title", metavar="TEXT", help="What the report is called  [default: the subject's name].")
@shared_options
def main(**options: Any) -> int:
    """Show units to people: what was run, how well it did, a table of all units, and a page for each with its
    explanations, scores and excerpts as heat maps.
    """
    shared = Shared.of("nx-view", options)
    return _report(shared, options)


def _report(shared: Shared, options: dict[str, Any]) -> int:
    """One HTML file with everything in it."""
    from nxtools.commands._viewing import Viewing
    from nxtools.progress import Progress
    from nxtools.stage import Counts
    from nxtools.stream import Writer
    from nxtools.view.report import Report

    progress = Progress(shared.command, "units", quiet=shared.quiet)
    report, units = Report(options["title"]), Viewing(shared)
    for record in units:
        report.add(record)
        progress.step()
    with Writer(shared.output) as out:
        for piece in report.pieces():
            out.write_line(piece)
    progress.say(report.described())
    counts: Counts = Counts(skipped=units.skipped)
    return shared.status(counts)
