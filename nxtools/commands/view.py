"""nx-view: units as people look at them: one file that opens anywhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.commands._reports import inputs_or_help
from nxtools.commands._view_serve import asked_to_serve, serve, serve_options
from nxtools.commands._view_terminal import CHOICES, asked_for, show, terminal_options
from nxtools.commands._view_texts import (
    asked_about_texts,
    show_texts,
    text_options,
    texts_for_report,
    watching,
)
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from nxtools.stage import Counts

EXAMPLES = """
nx-view scored.jsonl -o report.html
nx-view --title 'Layer 2, revised' revised.jsonl -o report.html
nx-view --unit 2:41 --unit 2:7 scored.jsonl
nx-view --best 3 scored.jsonl
nx-view --text 'He did not all agree' scored.jsonl
nx-view --try 2:41 scored.jsonl < sentences.txt
nx-view --serve scored.jsonl
"""


@command(
    "nx-view",
    examples=EXAMPLES,
    takes="scored unit lines of one run, from nx-score; whatever they lack is said to be missing",
    gives="a page of HTML that needs no network; text with --unit; an address with --serve",
)
@inputs_argument
@click.option("--title", metavar="TEXT", help="What the report is called  [default: the subject's name].")
@terminal_options
@text_options
@serve_options
@shared_options
def main(**options: Any) -> int:
    """Show units to people: what was run, how well it did, a table of all units, and a page for each with its
    explanations, scores and excerpts as heat maps.
    """
    inputs = options["inputs"]
    _check_ways(options)
    shared = Shared.of("nx-view", options)
    if asked_about_texts(options | {"output": shared.output}):
        return show_texts(shared, inputs_or_help(inputs), options)
    if asked_for(options):
        return show(shared, inputs_or_help(inputs), options)
    if asked_to_serve(options):
        return serve(shared, inputs_or_help(inputs), options)
    return _report(shared, options)


def _check_ways(options: dict[str, Any]) -> None:
    """UsageError when units are to be shown in two ways; texts stand alone, in a report, or on a server."""
    in_terminal = [f"--{name}" for name in CHOICES if options[name]] + ["--try"] * bool(options["tried"])
    others = ["--serve"] * options["serve"] + ["--text"] * bool(options["texts"])
    if in_terminal and len(in_terminal + others) > 1:
        first, second, *_ = sorted(in_terminal + others, key=in_terminal.__contains__)
        raise UsageError(f"{first} and {second} exclude each other")
    if in_terminal and options["title"]:
        raise UsageError(f"--title goes with a report, not with {in_terminal[0]}")


def _report(shared: Shared, options: dict[str, Any]) -> int:
    """One HTML file with everything in it."""
    from nxtools.commands._viewing import Viewing
    from nxtools.progress import Progress
    from nxtools.stage import Counts
    from nxtools.stream import Writer
    from nxtools.view.report import Report

    if shared.output == "-" and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("the report is HTML: name a file", hint="-o report.html; --unit 2:41 shows one here")
    progress = Progress(shared.command, "units", quiet=shared.quiet)
    report, watch = Report(options["title"]), watching(options)
    units = Viewing(shared, lambda record: watch.add(report.add(record), record))
    for _ in units:
        progress.step()
    texts = texts_for_report(shared, watch, options) if options["texts"] else []
    report.put("texts", texts)
    with Writer(shared.output) as out:
        for piece in report.pieces():
            out.write_line(piece)
    progress.say(report.described())
    counts: Counts = Counts(skipped=units.skipped, failed=sum("error" in text for text in texts))
    return shared.status(counts)
