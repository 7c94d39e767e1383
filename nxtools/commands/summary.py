"""nx-summary: the figures of one run and their distribution, as a table and a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import command as nx_command
from nxtools.commands._base import inputs_argument
from nxtools.commands._reports import Report, inputs_or_help, report_options
from nxtools.errors import InputError, UsageError

if TYPE_CHECKING:
    from nxtools.report.distribution import Distribution
    from nxtools.stream import Record

EXAMPLES = """
nx-summary scored.jsonl
nx-summary --format markdown --by run --plot scores.svg scored.jsonl > scores.md
nx-summary --figure pool --format json scored.jsonl | jq 'select(.layer == "all") | .mean'
"""

MARKDOWN = {
    "series": "series",
    "figure": "figure",
    "layer": "layer",
    "units": "units",
    "mean±": "mean ± 95%",
    "interval_over": "over",
    "q25": "q25",
    "median": "median",
    "q75": "q75",
    "over_0.5": "over 0.5",
    "over_0.7": "over 0.7",
    "over_0.8": "over 0.8",
    "over_0.9": "over 0.9",
    "absent": "absent",
    "failed": "failed",
}


@nx_command(
    "nx-summary",
    examples=EXAMPLES,
    takes="scored unit lines of one run, from nx-score",
    gives="a table: a row for each series, figure and layer",
)
@inputs_argument
@click.option(
    "--figure",
    "wanted",
    multiple=True,
    metavar="NAME",
    help="Only this figure, such as pool; may be repeated  [default: all but top_only].",
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
    """Say how one run did: for every explainer, simulator, method and baseline the mean with its 95%
    interval, quantiles, shares over thresholds, and how many scores are absent or failed.
    """
    from nxtools.report.distribution import Distribution
    from nxtools.score.people import People

    report = Report.of("nx-summary", options)
    run, people = Distribution(), People()

    def add(record: Record) -> None:
        run.add(record)
        people.add(record)

    report.records(inputs_or_help(options["inputs"]), add)
    if not run.seen.units:
        return report.status()
    wanted = _wanted(run, options["wanted"])
    rows = list(run.rows(wanted, by_layer=options["by"] == "layer"))
    if report.plot:
        _draw(run, wanted[0], report.plot)
    report.print(rows, MARKDOWN)
    for line in people.lines():
        report.say(line)
    over = sorted({str(row["interval_over"]) for row in rows})
    report.say(f"{run.seen.described()}; intervals over {' or over '.join(over)}")
    return report.status()


def _wanted(run: Distribution, named: tuple[str, ...]) -> list[str]:
    from nxtools.report.distribution import LEFT_OUT

    known = run.figures()
    if not known:
        raise InputError("no unit has a score", hint="pipe the output of nx-score in")
    for name in named:
        if name not in known:
            raise UsageError(f"--figure: no score has {name!r}", hint=f"there are {', '.join(known)}")
    return list(dict.fromkeys(named)) or [name for name in known if name not in LEFT_OUT]


def _draw(run: Distribution, figure: str, path: str) -> None:
    from nxtools.report.estimate import Gathered
    from nxtools.report.plot import draw

    layers = {label: run.layers(series, figure) for series, label in run.labels().items()}
    documents = run.documents()
    draw(
        path,
        values={label: Gathered(of_one.values()).values for label, of_one in layers.items()},
        layers={
            label: {number: layer.mean(documents) for number, layer in of_one.items()}
            for label, of_one in layers.items()
        },
        named=figure.replace("_", " "),
        share="distribution",
    )
