"""What commands share that read scored lines and print a table: options, reading, printing, the plot."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import EXIT_SOME_FAILED, allowed, family
from nxtools.errors import InputError, UsageError
from nxtools.progress import Progress, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nxtools.report.table import Row
    from nxtools.stream import Reader, Record

PLOTS = (".svg", ".png")


@dataclass
class Report:
    """The values of the options of all reports, and how many lines were skipped."""

    command: str
    output: str
    format: str
    plot: str | None
    keep_going: bool
    allow_errors: str
    quiet: bool
    lines: int = 0
    skipped: int = 0

    @classmethod
    def of(cls, name: str, options: dict[str, Any]) -> Report:
        """Takes them out of a command's keyword arguments. UsageError for a plot of no known kind."""
        plot = options.pop("plot")
        if plot is not None and Path(plot).suffix not in PLOTS:
            raise UsageError(f"--plot takes a name that ends in {' or '.join(PLOTS)}, not {plot!r}")
        allowed(options["allow_errors"], 0)
        shared = {
            key: options.pop(key) for key in ("output", "format", "keep_going", "allow_errors", "quiet")
        }
        return cls(command=name, plot=plot, **shared)

    def records(self, names: Sequence[str], add: Callable[[Record], None]) -> None:
        """Hands the unit lines of these files to `add`, whose InputError names the line."""
        from nxtools.folded import folded
        from nxtools.records import check_unit
        from nxtools.stream import Reader

        gc.set_threshold(200_000)  # lines are lists and dicts without a cycle among them

        def check(record: Record) -> None:
            check_unit(record)
            add(record)

        reader: Reader = Reader(names, check, keep_going=self.keep_going, on_bad=self._on_bad, parse=folded)
        self.lines += sum(1 for _ in reader)
        self.skipped += reader.skipped

    def _on_bad(self, error: InputError) -> None:
        warn(f"{self.command}: {error.where}: {error.message}; skipped")

    def print(self, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
        """The table, in Markdown of these columns only."""
        from nxtools.report import table
        from nxtools.stream import Writer

        made: Iterator[bytes] = (
            table.markdown(rows, columns) if self.format == "markdown" else getattr(table, self.format)(rows)
        )
        with Writer(self.output) as out:
            for line in made:
                out.write_line(line)

    def say(self, line: str) -> None:
        Progress(self.command, "units", quiet=self.quiet).say(line)

    def status(self) -> int:
        """0, or 1 when more lines were skipped than --allow-errors admits."""
        admitted = allowed(self.allow_errors, self.lines + self.skipped)
        return EXIT_SOME_FAILED if self.skipped > admitted else 0


def inputs_or_help(names: Sequence[str]) -> list[str]:
    """The inputs, stdin where none is named; a person at a terminal who names none gets help and status 2."""
    if not names and sys.stdin is not None and sys.stdin.isatty():
        click.echo(click.get_current_context().get_help(), err=True)
        sys.exit(2)
    return list(names) or ["-"]


# Of commands that read lines and have no questions for the store.
reading_options = [
    click.option(
        "-o",
        "--output",
        default="-",
        metavar="FILE",
        help="Write here instead of stdout; the file appears when it is complete.",
    ),
    click.option("--keep-going", is_flag=True, help="Skip and count lines that cannot be read."),
    click.option(
        "--allow-errors", default="0", metavar="N|P%", help="Exit 0 in spite of so many skipped lines."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
    click.version_option(package_name="nxtools", message="%(prog)s, nxtools %(version)s"),
]

report_options = family(
    "Options",
    [
        click.option(
            "--format",
            type=click.Choice(["tsv", "json", "markdown"]),
            default="tsv",
            show_default=True,
            help="Of the table; json is an object a line.",
        ),
        click.option("--plot", metavar="FILE", help="Draw it as well: a name in .svg or .png."),
        *reading_options,
    ],
)
