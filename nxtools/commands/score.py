"""nx-score: how well explanations predict activations on held-out excerpts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._ablation import ablation_options, check_no_ablation
from nxtools.commands._assistants import (
    MODELS,
    Assisted,
    Ceilings,
    assistant_options,
    check_unused,
    simulation_option,
)
from nxtools.commands._base import (
    Shared,
    command,
    engine_or_offline,
    inputs_argument,
    run_units,
    shared_options,
)
from nxtools.commands._explained import (
    HUMAN,
    PREVIOUS,
    only_words,
    series_of,
    simulated,
    start_anew,
    with_baselines,
    with_previous,
)
from nxtools.commands._judging import METHODS as JUDGED
from nxtools.commands._judging import check_no_judging, judging_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nxtools.commands._pools import Pools
    from nxtools.progress import Progress
    from nxtools.score.summary import Summary
    from nxtools.stage import Counts, Engine, Failure, Step
    from nxtools.store import Store
    from nxtools.stream import Record

EXAMPLES = """
nx-record --subject DIR text/ | nx-top | nx-explain | nx-score > scored.jsonl
nx-score --baselines none explained.jsonl | jq '.explanations[0].scores[0].top_and_random'
nx-score --simulator llama:qwen2.5-7b-instruct-q4_k_m.gguf explained.jsonl
nx-score --method ablation --subject samples/pydoc-1m explained.jsonl
"""

# Each in a module with `run(shared, options)`, which is imported when it is asked for.
OTHER_METHODS = {"ablation": "nxtools.commands._ablation"} | dict.fromkeys(
    JUDGED, "nxtools.commands._judging"
)


@command(
    "nx-score",
    examples=EXAMPLES,
    takes="unit lines with explanations, from nx-explain or nx-simulate",
    gives="the same lines with scores beside each explanation, baselines and a null",
)
@inputs_argument
@click.option(
    "--method",
    type=click.Choice(["correlation", *OTHER_METHODS]),
    default="correlation",
    show_default=True,
    envvar="NXTOOLS_SCORE_METHOD",
    help="What is measured.",
)
@click.option(
    "--baselines",
    type=click.Choice(["all", "null", "none"]),
    default="all",
    show_default=True,
    help="Score the token table, token list and null beside the explanation, only the null, or nothing.",
)
@click.option(
    "--explanations-from", metavar="FILE", help="Score the explanations of another run on these units."
)
@click.option(
    "--map",
    type=click.Choice(["same", "shift"]),
    default="same",
    show_default=True,
    help="Whose explanation of that run a unit gets: its namesake's, or the next one's in the layer.",
)
@click.option(
    "--ratings",
    multiple=True,
    metavar="FILE",
    help="Put what people said of explanations beside them, and say how scores agree; may be repeated.",
)
@click.option(
    "--calibration",
    type=click.Choice(["none", "linear", "isotonic", "quantile", "scored"]),
    help="Say also what share of the variance is explained, and when the unit fires, after this.",
)
@click.option(
    "--simulator",
    default="pattern",
    show_default=True,
    metavar="MODEL",
    help=f"Who predicts what has no simulation yet: {MODELS}; pattern runs the sentence.",
)
@simulation_option(
    "--simulation", envvar="NXTOOLS_METHOD", help="How a model predicts: nx-simulate --method."
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1), default=8, help="Calls of an API under way  [default: 8]."
)
@assistant_options
@ablation_options
@judging_options
@click.option("--literals", default=30, show_default=True, help="Tokens that the token list may name.")
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@shared_options
def main(**options: Any) -> int:
    """Score explanations: the correlation of predicted and true activations over held-out excerpts, with an
    interval. What has no simulation yet is simulated by running its pattern. At the end the means of the run
    are printed on stderr, beside baselines and the null: the explanation of the unit before in its layer.
    """
    from nxtools.commands._pools import Pools
    from nxtools.commands._rated import Rated
    from nxtools.commands._transfer import transfer_of
    from nxtools.score.series import SERIES, TABLES
    from nxtools.score.summary import Summary
    from nxtools.stage import LocalEngine

    shared = Shared.of("nx-score", options)
    if options["method"] != "ablation":
        check_no_ablation()
    if options["method"] not in JUDGED:
        check_no_judging()
    if options["method"] != "correlation":
        other = importlib.import_module(OTHER_METHODS[options["method"]])
        return int(other.run(shared, options))
    everything = (*SERIES, *TABLES)
    wanted = {"all": everything, "null": ("explanation", "null"), "none": ("explanation",)}[
        options["baselines"]
    ]
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    engine = engine_or_offline(shared, "score", LocalEngine(_score, batch=64))
    always = tuple(series for series in wanted if series not in TABLES)
    summary = Summary(always, perhaps=("paraphrase", "truth", "unrevised", HUMAN, *TABLES))
    ceilings = Ceilings(shared)
    of_all = {"literals": options["literals"], "calibration": options["calibration"]}
    refused: list[Failure] = []  # what nothing could be asked about
    step = _step(engine, pools, wanted, of_all, summary, ceilings, refused)

    transfer, rated = transfer_of(options), Rated(options["ratings"])

    def prepare(units: Iterable[Record]) -> Iterable[Record]:
        units = rated.prepare(units if transfer is None else transfer(units))
        return with_previous(units) if "null" in wanted else units

    def say(progress: Progress, counts: Counts) -> None:
        counts.failed += len(refused)
        _say(progress, counts, summary, ceilings)
        rated.say(progress)
        if transfer is not None and transfer.without:
            progress.say(transfer.told())

    if options["simulator"] != "pattern":
        return _by_model(shared, options, step, prepare, rated.each, say)
    check_unused("patterns", "simulation")
    return run_units(shared, lambda store: step, prepare=prepare, each=rated.each, finish=say)


def _by_model(
    shared: Shared,
    options: dict[str, Any],
    score: Callable[[Record], Step],
    prepare: Callable[[Iterable[Record]], Iterable[Record]],
    each: Callable[[Record], None],
    say: Callable[[Progress, Counts], None],
) -> int:
    """Scores of simulations by a language model, made where they are not stored."""
    from nxtools.score.series import SCORED_ON
    from nxtools.simulate.assistant import Simulating, Simulator

    assisted = Assisted(shared, options, "simulate", options["simulator"])
    simulators: list[Simulator] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        asking = assisted.asking(options["simulator"], store)
        prompt = Path(options["prompt"]) if options["prompt"] else None
        simulator = Simulator(Simulating(asking, options["simulation"], prompt, options["examples"]))
        simulators.append(simulator)

        def step(record: Record) -> Step:
            simulated = yield from simulator.step(record, (SCORED_ON,))
            return (yield from score(simulated))

        return step

    return assisted.run(
        begin,
        unread=lambda: sum(simulator.excerpts_failed for simulator in simulators),
        told=lambda: "; ".join(simulator.described() for simulator in simulators),
        prepare=prepare,
        each=each,
        also=say,
    )


def _score(jobs: list[Any]) -> list[Any]:
    from nxtools.score.series import score

    return score(jobs)


def _step(
    engine: Engine,
    pools: Pools,
    wanted: tuple[str, ...],
    of_all: dict[str, Any],
    summary: Summary,
    ceilings: Ceilings,
    refused: list[Failure],
) -> Callable[[Record], Step]:
    from nxtools.explain.pattern import to_run
    from nxtools.known import known
    from nxtools.score.replicates import unpacked
    from nxtools.score.series import TABLES, VERSION, Job, Target, question
    from nxtools.stage import Failure, Question
    from nxtools.unit import Unit

    def step(record: Record) -> Step:
        previous = record.pop(PREVIOUS, None)
        if record.get("error") or record.get("dead"):
            return record
        target = Target(Unit(record), pools.of, pools.table)
        told = [e for e in record.get("explanations") or () if isinstance(e.get("text"), str)]
        for explanation in told:
            start_anew(explanation, "correlation")
        entries = [
            (series_of(entry), entry, *prediction)
            for entry in told
            for prediction in _predictions(target, entry)
        ]
        baselines = _baselines(target, wanted, previous) if told else []
        entries += baselines
        if not entries:
            return record
        at_hand = pools.digest(target.unit)
        seen = yield from known(target.unit)
        questions = [
            Question("score", VERSION, _fields(job, seen.digests, at_hand), engine, job, kind="score")
            for _, _, _, job in entries
            if not isinstance(job, Failure)
        ]
        answers = iter((yield questions) if questions else [])
        refused.extend(job for _, _, _, job in entries if isinstance(job, Failure))
        followed: set[str | None] = set()  # the summary follows a unit's first score of each series
        for series, entry, simulator, job in entries:
            answer = job if isinstance(job, Failure) else next(answers)
            score: Record = {"method": "correlation", "simulator": simulator}
            follow = None if series in followed else series
            followed.add(series)
            if isinstance(answer, Failure):
                entry["scores"].append(score | {"error": answer.record()})
                if follow is not None:
                    summary.fail(follow)
                continue
            entry["scores"].append(score | answer["score"] | {"replicates": answer["replicates"]})
            if follow is not None:
                drawn, unit = unpacked(answer["replicates"]), target.unit
                summary.add(follow, unit.layer, unit.name, answer["score"], drawn, seen.documents)
        if baselines:
            with_baselines(record, (entry for _, entry, _, _ in baselines), "correlation")
        return record

    def _fields(job: Job, digests: dict[str, str], at_hand: str | None) -> Record:
        table = pools.table_digest(job.target.unit, TABLES[job.series]) if job.series in TABLES else None
        return question(job, digests, at_hand, table)

    def _predictions(target: Target, explanation: Record) -> list[tuple[str, Job | Failure]]:
        """By every simulator whose simulations the explanation carries, or else by running its pattern."""
        found: list[tuple[str, Job | Failure]] = []
        for simulator, by, expected in simulated(explanation):
            ceilings.note(by)
            if expected:
                sign = None if simulator == "pattern" else str(explanation.get("sign", target.unit.sign))
                found.append((simulator, Job(target, "explanation", expected=expected, sign=sign, **of_all)))
            else:
                message = "every simulation of the held-out excerpts is an error"
                found.append((simulator, Failure("score", "no-simulation", message)))
        pattern = to_run(explanation)
        if found or pattern is None:  # words that no pattern says, and that nobody simulated
            return found
        if words := only_words(explanation):
            return [("pattern", words)]
        return [("pattern", Job(target, "explanation", text=pattern, **of_all))]

    def _baselines(
        target: Target, wanted: tuple[str, ...], previous: tuple[str, str | None] | None
    ) -> list[tuple[str, Record, str, Job | Failure]]:
        found: list[tuple[str, Record, str, Job | Failure]] = []
        for series in wanted[1:]:
            if series in TABLES and not target.has_table(series):
                continue
            entry: Record = {"name": series, "scores": []}
            if series == "null":
                if previous is None or previous[1] is None:
                    continue  # the first of its layer has no unit before it
                entry |= {"explanation_of": previous[0], "text": previous[1]}
                found.append((series, entry, "pattern", Job(target, series, text=previous[1], **of_all)))
            else:
                entry |= {"literals": of_all["literals"]} if series == "token-list" else {}
                found.append((series, entry, series, Job(target, series, **of_all)))
        return found

    return step


def _say(progress: Progress, counts: Counts, summary: Summary, ceilings: Ceilings) -> None:
    """The means of the run, for people."""
    if summary.layers():
        for line in [*summary.lines(), *ceilings.lines()]:
            progress.say(line)
    progress.say(
        f"{counts.units} units; {counts.computed} scores computed, {counts.from_store} from the store, "
        f"{counts.failed} failed"
    )
