"""nx-compare: several runs, or several series of one run, paired by unit."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import command as nx_command
from nxtools.commands._base import inputs_argument
from nxtools.commands._reports import Report, inputs_or_help, report_options
from nxtools.errors import InputError, UsageError

if TYPE_CHECKING:
    from nxtools.report.comparison import Comparison, Run, Side
    from nxtools.report.series import Series

EXAMPLES = """
nx-compare ten-literals.jsonl thirty-literals.jsonl
nx-compare --series pattern --series token-table --series null scored.jsonl
nx-compare --figure pool --format markdown --by run --plot gain.svg a.jsonl b.jsonl c.jsonl
"""

MARKDOWN = {
    "a": "a",
    "b": "b",
    "figure": "figure",
    "layer": "layer",
    "units": "units",
    "mean_a": "mean of a",
    "mean_b": "mean of b",
    "difference±": "a - b ± 95%",
    "interval_over": "over",
    "wins": "wins",
    "losses": "losses",
    "ties": "ties",
    "p_holm": "p (Holm)",
    "absent": "absent",
    "only_a": "only in a",
    "only_b": "only in b",
}


@nx_command(
    "nx-compare",
    examples=EXAMPLES,
    takes="scored unit lines, from nx-score: a run a file",
    gives="a table: a row for each comparison, figure and layer",
)
@inputs_argument
@click.option(
    "--figure",
    "wanted",
    multiple=True,
    metavar="NAME",
    help="What is compared, such as random_only or pool; may be repeated  [default: the "
    "main one that all have, such as top_and_random or balanced_accuracy].",
)
@click.option(
    "--series",
    multiple=True,
    metavar="NAME",
    help="Series to compare, as nx-summary calls them; may be repeated  [default: of one file all, of "
    "several the first explanation of each].",
)
@click.option("--all-pairs", is_flag=True, help="Compare each with each, not the first with the others.")
@click.option(
    "--match",
    type=click.Choice(["unit", "place"]),
    default="unit",
    show_default=True,
    help="Pair the same units, or units at the same place of different subjects (twins, checkpoints).",
)
@click.option(
    "--test",
    type=click.Choice(["bootstrap", "sign"]),
    default="bootstrap",
    show_default=True,
    help="Where p comes from: the interval of the difference, or wins and losses.",
)
@click.option(
    "--by",
    type=click.Choice(["layer", "run"]),
    default="layer",
    show_default=True,
    help="Rows for each layer too, or only for all units.",
)
@report_options
def main(**options: Any) -> int:
    """Compare scores unit by unit: mean difference with its 95% interval, wins, losses and ties, p-values
    with Holm's correction, by layer. Units that only one file has are counted, never guessed.
    """
    from nxtools.report.comparison import Comparison, Run, corrected
    from nxtools.report.series import MAIN

    report = Report.of("nx-compare", options)
    wanted = tuple(dict.fromkeys(options["wanted"]))
    names = inputs_or_help(options["inputs"])
    if len(set(names)) < len(names):
        raise UsageError("a file is named twice", hint="series of one file: --series")
    runs = [Run(name, wanted or MAIN, by_place=options["match"] == "place") for name in names]
    for run in runs:
        report.records([run.name], run.add)
    if not any(run.layers for run in runs):
        return report.status()
    sides = _sides(runs, options["series"])
    wanted = wanted or _main(sides)
    _check(runs, sides, wanted, options["match"])
    pairs = list(combinations(sides, 2)) if options["all_pairs"] else [(sides[0], b) for b in sides[1:]]
    compared = [Comparison(figure, a, b) for figure in wanted for a, b in pairs]
    rows = [row for each in compared for row in each.rows(options["by"] == "layer", options["test"])]
    corrected(rows)
    if report.plot:
        _draw([each for each in compared if each.figure == wanted[0]], report.plot)
    report.print(rows, MARKDOWN)
    over = sorted({str(row["interval_over"]) for row in rows if row["units"]})
    counts = ", ".join(f"{len(run.layers)} units in {run.name}" for run in runs)
    report.say(f"{', '.join(wanted)} of {counts}; intervals over {' or over '.join(over) or 'nothing'}")
    return report.status()


def _sides(runs: list[Run], wanted: tuple[str, ...]) -> list[Side]:
    """What is compared, the first one first."""
    sides = []
    for run in runs:
        known = run.series()
        if not known:
            raise InputError("no unit has a score", where=run.name, hint="pipe the output of nx-score in")
        chosen = [name for name in wanted if name in known] if wanted else _alike(known)
        if not wanted and len(runs) > 1:
            chosen = chosen[:1]
        for name in chosen:
            several = len(chosen) > 1 or len(runs) == 1
            label = name if len(runs) == 1 else f"{run.name} {name}" if several else run.name
            sides.append(run.side(label, known[name]))
    found = {name for run in runs for name in run.series()}
    for name in wanted:
        if name not in found:
            raise UsageError(f"--series: there is no {name!r}", hint=f"there are {', '.join(sorted(found))}")
    if len(sides) < 2:
        raise UsageError("there is nothing to compare with", hint="name a second file, or other --series")
    return sides


def _main(sides: list[Side]) -> tuple[str, ...]:
    """The figure that scores are read by first, of those that all sides have."""
    from nxtools.report.series import MAIN

    return next(((name,) for name in MAIN if all(name in side.values for side in sides)), MAIN[:1])


def _alike(known: dict[str, Series]) -> list[str]:
    """The series whose method is that of the first: scores by others are other numbers."""
    method = next(iter(known.values())).method
    return [name for name, series in known.items() if series.method == method]


def _check(runs: list[Run], sides: list[Side], wanted: tuple[str, ...], match: str) -> None:
    known = list(dict.fromkeys(name for run in runs for name, true in run.figures.items() if true))
    for name in wanted:
        if not any(name in side.values for side in sides):
            raise UsageError(f"--figure: no score has {name!r}", hint=f"there are {', '.join(known)}")
    if len(runs) > 1 and not any(set(runs[0].layers) & set(run.layers) for run in runs[1:]):
        hint = "units of different subjects pair with --match place" if match == "unit" else ""
        raise InputError("the files have no unit in common", where=runs[0].name, hint=hint)


def _draw(compared: list[Comparison], path: str) -> None:
    from nxtools.report.plot import draw

    label = {id(one): f"{one.a.label} - {one.b.label}" for one in compared}
    draw(
        path,
        values={label[id(one)]: one.all().gathered.values for one in compared},
        layers={
            label[id(one)]: {layer: one.mean(pairs) for layer, pairs in one.layers.items()}
            for one in compared
        },
        named=f"difference in {compared[0].figure.replace('_', ' ')}",
        share="differences of units",
    )
