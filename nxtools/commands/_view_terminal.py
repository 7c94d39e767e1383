"""nx-view --unit 2:41: units in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, family
from nxtools.errors import InputError, UsageError, located
from nxtools.records import one_of

if TYPE_CHECKING:
    from nxtools.view.finding import Line, Search, Wanted

CHOICES = ("unit", "best", "worst", "random")
COUNT = click.IntRange(min=1)

terminal_options = family(
    "In the terminal",
    [
        click.option(
            "--unit",
            multiple=True,
            metavar="LAYER:INDEX",
            help="Show this unit, such as 2:41, or mlp/2:41 where sites differ; may be repeated.",
        ),
        click.option("--best", type=COUNT, metavar="N", help="Show those whose explanations score highest."),
        click.option("--worst", type=COUNT, metavar="N", help="Show those whose explanations score lowest."),
        click.option("--random", type=COUNT, metavar="N", help="Show some by chance, others each time."),
        click.option(
            "--excerpts",
            type=COUNT,
            metavar="N",
            help="Of each kind, half as many that are not the strongest  [default: 4].",
        ),
        click.option("--light", is_flag=True, help="Colours for a terminal with a light background."),
    ],
)


def asked_for(options: dict[str, Any]) -> bool:
    """Whether units are to be shown in the terminal. UsageError for what belongs to that alone."""
    asked = any(options[name] for name in CHOICES)
    if not asked:
        for name in ("excerpts", "light"):
            if options[name]:
                raise UsageError(f"--{name} goes with {one_of([f'--{choice}' for choice in CHOICES])}")
    return asked


def show(shared: Shared, names: Sequence[str], options: dict[str, Any]) -> int:
    """Draws the units that are asked for. Returns the exit status."""
    from nxtools.commands._viewing import completing
    from nxtools.stage import Counts
    from nxtools.stream import Writer
    from nxtools.view.finding import Search, record
    from nxtools.view.model import page
    from nxtools.view.terminal import drawn

    skipped: list[InputError] = []

    def on_bad(error: InputError) -> None:
        if not shared.keep_going:
            raise error
        shared.on_bad(error)
        skipped.append(error)

    complete = completing(shared)
    with Writer(shared.output) as out:
        for line in _chosen(Search(names, on_bad), options):
            unit = record(line)
            with located(line[0]):
                complete(unit)
                shown = page(unit)
            to_file = shared.output != "-"
            text = drawn(shown, to_file=to_file, light=options["light"], count=options["excerpts"])
            out.write_line(text.encode("utf-8", "replace"))
            out.flush()
    return shared.status(Counts(skipped=len(skipped)))


def _chosen(search: Search, options: dict[str, Any]) -> Iterator[Line]:
    """InputError, after those that are there, where something is not."""
    if options["random"]:
        yield from search.drawn(options["random"])
    elif count := options["best"] or options["worst"]:
        ranked = search.ranked(count, best=bool(options["best"]))
        if not ranked:
            raise InputError("no unit has a score", hint="pipe the output of nx-score in")
        yield from ranked
    else:
        found = search.named(map(_wanted, options["unit"]))
        for lines in found.values():
            yield from lines
        missing = [str(one) for one, lines in found.items() if not lines]
        if missing:
            there = ", ".join(map(str, sorted(search.layers))) or "none"
            raise InputError(f"there is no unit {' or '.join(missing)}", hint=f"layers with units: {there}")


def _wanted(text: str) -> Wanted:
    from nxtools.view.finding import Wanted

    try:
        return Wanted.parse(text)
    except ValueError as error:
        hint = "--unit 2:41 is layer 2, unit 41"
        raise UsageError(f"--unit takes LAYER:INDEX, not {text!r}", hint=hint) from error
