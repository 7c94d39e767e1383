"""nx-score: how well explanations predict activations on held-out excerpts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import (
    Shared,
    command,
    engine_or_offline,
    inputs_argument,
    run_units,
    shared_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from nxtools.commands._pools import Pools
    from nxtools.progress import Progress
    from nxtools.score.summary import Summary
    from nxtools.stage import Counts, Engine, Step
    from nxtools.stream import Record

EXAMPLES = """
nx-record --subject DIR text/ | nx-top | nx-explain | nx-score > scored.jsonl
nx-score --baselines none explained.jsonl | jq '.explanations[0].scores[0].top_and_random'
nx-simulate explained.jsonl | nx-score
"""


@command(
    "nx-score",
    examples=EXAMPLES,
    takes="unit lines with explanations, from nx-explain or nx-simulate",
    gives="the same lines with scores beside each explanation, baselines and a null",
)
@inputs_argument
@click.option(
    "--baselines",
    type=click.Choice(["all", "null", "none"]),
    default="all",
    show_default=True,
    help="Score the token table, token list and null beside the explanation, only the null, or nothing.",
)
@click.option("--literals", default=30, show_default=True, help="Tokens that the token list may name.")
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@shared_options
def main(**options: Any) -> int:
    """Score explanations: the correlation of predicted and true activations over held-out excerpts, with an
    interval. What has no simulation yet is simulated by running its pattern. At the end the means of the run
    are printed on stderr, beside baselines and the null: the explanation of the unit before in its layer.
    """
    from nxtools.commands._pools import Pools
    from nxtools.score.series import SERIES
    from nxtools.score.summary import Summary
    from nxtools.stage import LocalEngine

    shared = Shared.of("nx-score", options)
    wanted = {"all": SERIES, "null": ("explanation", "null"), "none": ("explanation",)}[options["baselines"]]
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    engine = engine_or_offline(shared, "score", LocalEngine(_score, batch=64))
    summary = Summary(wanted)
    return run_units(
        shared,
        lambda store: _step(engine, pools, wanted, options["literals"], summary),
        prepare=_with_previous if "null" in wanted else lambda units: units,
        finish=lambda progress, counts: _say(progress, counts, summary),
    )


def _score(jobs: list[Any]) -> list[Any]:
    from nxtools.score.series import score

    return score(jobs)


PREVIOUS = "\0previous"  # where a unit carries the text it is to be compared with; never written


def _with_previous(units: Iterable[Record]) -> Iterator[Record]:
    """Gives each unit the explanation of the unit before it in its layer, for the null."""
    before: Record | None = None
    for unit in units:
        if before is not None and before["unit"]["layer"] == unit["unit"]["layer"]:
            unit[PREVIOUS] = (f"{before['unit']['layer']}:{before['unit']['index']}", _first_text(before))
        before = {"unit": unit["unit"], "explanations": unit.get("explanations")}
        yield unit


def _first_text(unit: Record) -> str | None:
    """The text of a unit's first explanation that is one."""
    for explanation in unit.get("explanations") or ():
        if isinstance(explanation, dict) and isinstance(explanation.get("text"), str):
            return str(explanation["text"])
    return None


def _step(
    engine: Engine, pools: Pools, wanted: tuple[str, ...], literals: int, summary: Summary
) -> Callable[[Record], Step]:
    from nxtools.score.series import VERSION, Job, Target, question, unpacked
    from nxtools.stage import Failure, Question
    from nxtools.unit import Unit

    def step(record: Record) -> Step:
        previous = record.pop(PREVIOUS, None)
        if record.get("error") or record.get("dead"):
            return record
        target = Target(Unit(record), pools.of)
        told = [e for e in record.get("explanations") or () if isinstance(e.get("text"), str)]
        entries = [("explanation", entry, _job(target, entry)) for entry in told]
        baselines = _baselines(target, wanted, literals, previous) if told else []
        entries += baselines
        if not entries:
            return record
        at_hand = pools.digest(target.unit)
        answers = yield [
            Question("score", VERSION, question(job, at_hand), engine, job, kind="score")
            for _, _, job in entries
        ]
        for (series, entry, job), answer in zip(entries, answers, strict=True):
            simulator = series if job.text is None and job.expected is None else "pattern"
            if isinstance(answer, Failure):
                entry["scores"] = [
                    {"method": "correlation", "simulator": simulator, "error": answer.record()}
                ]
                summary.fail(series)
                continue
            entry["scores"] = [{"method": "correlation", "simulator": simulator, **answer["score"]}]
            if series != "explanation" or entry is told[0]:
                summary.add(
                    series,
                    target.unit.layer,
                    target.unit.name,
                    answer["score"],
                    unpacked(answer["replicates"]),
                    target.held_out.documents,
                )
        if baselines:
            record["baselines"] = [entry for _, entry, _ in baselines]
        return record

    def _job(target: Target, explanation: Record) -> Job:
        """By the simulations that the explanation carries, or else by running its pattern."""
        simulations = [s for s in explanation.get("simulations") or () if "excerpt" in s]
        if simulations:
            expected = {s["excerpt"]: s["expected"] for s in simulations if s["by"] == simulations[0]["by"]}
            return Job(target, "explanation", expected=expected)
        return Job(target, "explanation", text=explanation["text"])

    def _baselines(
        target: Target, wanted: tuple[str, ...], literals: int, previous: tuple[str, str | None] | None
    ) -> list[tuple[str, Record, Job]]:
        found: list[tuple[str, Record, Job]] = []
        for series in wanted[1:]:
            entry: Record = {"name": series}
            if series == "null":
                if previous is None or previous[1] is None:
                    continue  # the first of its layer has no unit before it
                entry |= {"explanation_of": previous[0], "text": previous[1]}
                found.append((series, entry, Job(target, series, text=previous[1])))
            else:
                entry |= {"literals": literals} if series == "token-list" else {}
                found.append((series, entry, Job(target, series, literals=literals)))
        return found

    return step


def _say(progress: Progress, counts: Counts, summary: Summary) -> None:
    """The means of the run, for people."""
    if summary.layers():
        for line in summary.lines():
            progress.say(line)
    progress.say(
        f"{counts.units} units; {counts.computed} scores computed, {counts.from_store} from the store, "
        f"{counts.failed} failed"
    )
