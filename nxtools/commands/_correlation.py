"""nx-score --method correlation: how well explanations predict activations on held-out excerpts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nxtools import threads
from nxtools.commands._assistants import Assisted, Ceilings, check_unused
from nxtools.commands._base import Shared
from nxtools.commands._explained import (
    PREVIOUS,
    Previous,
    predictions,
    told,
    with_baselines,
)
from nxtools.commands._judging import NULLS
from nxtools.commands._running import division_of, engine_or_offline, run_units
from nxtools.commands._scoring import SOMETIMES, Scoring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nxtools.commands._pools import Pools
    from nxtools.progress import Progress
    from nxtools.score.series import Job, Target
    from nxtools.score.summary import Summary
    from nxtools.stage import Counts, Engine, Failure, Step
    from nxtools.store import Store
    from nxtools.stream import Record

METHOD = "correlation"

# series, what on the line gets the score, who predicts, and what is asked; or a Failure: why nothing is.
_Entry = tuple[str | None, dict[str, Any], str, Any]


def run(shared: Shared, options: dict[str, Any]) -> int:
    by_pattern = options["simulator"] == "pattern"
    if by_pattern:
        threads.one_for_products()
    from nxtools.commands._pools import Pools
    from nxtools.stage import LocalEngine

    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    engine = engine_or_offline(shared, "score", LocalEngine(_score, batch=64))
    scoring = Scoring(options, nulls=0 if by_pattern else NULLS)
    of_all = {"literals": options["literals"], "calibration": options["calibration"]}
    one = Correlation(shared, engine, pools, scoring, of_all)

    def say(progress: Progress, counts: Counts) -> None:
        counts.failed += one.refused
        if one.summary.layers():
            for line in [*one.summary.lines(), *one.ceilings.lines()]:
                progress.say(line)
        if one.further:
            progress.say(f"{one.further} scores of further explanations stand on the lines (nx-summary)")
        progress.say(
            f"{counts.units} units; {counts.computed} scores computed, {counts.from_store} from the store, "
            f"{counts.failed} failed"
        )
        scoring.say(progress)

    if not by_pattern:
        return _by_model(shared, options, one.step, scoring, say)
    check_unused("patterns", "simulation")
    division = division_of(one, options["jobs"]) if scoring.by_lines else None
    return run_units(
        shared, one.begin, prepare=scoring.prepare, each=scoring.each, finish=say, division=division
    )


def _by_model(
    shared: Shared,
    options: dict[str, Any],
    score: Callable[[Record], Step],
    scoring: Scoring,
    say: Callable[[Progress, Counts], None],
) -> int:
    """Scores of simulations by a language model, made where they are not stored."""
    from nxtools.score.series import SCORED_ON
    from nxtools.simulate.assistant import Simulating, Simulator
    from nxtools.unit import Unit

    assisted = Assisted(shared, options, "simulate", options["simulator"])
    simulators: list[Simulator] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        asking = assisted.asking(options["simulator"], store)
        prompt = Path(options["prompt"]) if options["prompt"] else None
        simulator = Simulator(Simulating(asking, options["simulation"], prompt, options["examples"]))
        simulators.append(simulator)

        def step(record: Record) -> Step:
            made = yield from simulator.step(record, (SCORED_ON,))
            previous: Previous | None = made.get(PREVIOUS)
            if previous is not None and previous.words is not None:
                found = yield from simulator.simulations(Unit(made), previous.words, SCORED_ON)
                made[PREVIOUS] = previous._replace(simulations=found)
            return (yield from score(made))

        return step

    return assisted.run(
        begin,
        unread=lambda: sum(simulator.excerpts_failed for simulator in simulators),
        told=lambda: "; ".join(simulator.described() for simulator in simulators),
        prepare=scoring.prepare,
        each=scoring.each,
        also=say,
    )


def _score(jobs: list[Any]) -> list[Any]:
    from nxtools.score.series import score

    return score(jobs)


class Correlation:
    """What is done with one unit, and what is noted of all. refused: explanations of which nothing could be
    asked; further: scores that the summary does not follow."""

    def __init__(
        self, shared: Shared, engine: Engine, pools: Pools, scoring: Scoring, of_all: dict[str, Any]
    ) -> None:
        self.engine, self.pools, self.of_all = engine, pools, of_all
        self._scoring, self.wanted = scoring, scoring.wanted
        self.ceilings = Ceilings(shared)
        self._start()

    def _start(self) -> None:
        from nxtools.score.series import TABLES
        from nxtools.score.summary import Summary

        always = tuple(series for series in self.wanted if series not in TABLES)
        self.summary = Summary(always, perhaps=(*SOMETIMES, *TABLES))
        self.refused = self.further = 0

    # In several processes

    def begin(self, store: Store) -> Callable[[Record], Step]:
        return self.step

    def prepare(self, units: Iterable[Record]) -> Iterable[Record]:
        return self._scoring.prepare(units)

    def seen(self) -> tuple[Summary, dict[str, Record], int, int]:
        found = self.summary.settled(), self.ceilings.seen, self.refused, self.further
        self._start()
        return found

    def see(self, seen: tuple[Summary, dict[str, Record], int, int]) -> None:
        summary, simulators, refused, further = seen
        self.summary.include(summary)
        self.ceilings.seen |= simulators
        self.refused += refused
        self.further += further

    # One unit

    def step(self, record: Record) -> Step:
        from nxtools.known import known
        from nxtools.score.replicates import unpacked
        from nxtools.score.series import VERSION, Target
        from nxtools.stage import Failure, Question
        from nxtools.unit import Unit

        previous = record.pop(PREVIOUS, None)
        if record.get("error") or record.get("dead"):
            return record
        target = Target(Unit(record), self.pools.of, self.pools.table)
        explanations = told(record, METHOD)
        entries: list[_Entry] = [
            (series, entry, *prediction)
            for series, entry in explanations
            for prediction in self._predictions(target, entry)
        ]
        baselines = self._baselines(target, previous) if explanations else []
        entries += baselines
        if not entries:
            return record
        at_hand = self.pools.digest(target.unit)
        seen = yield from known(target.unit)
        jobs = [job for *_, job in entries if not isinstance(job, Failure)]
        fields = [self._fields(job, seen.digests, at_hand) for job in jobs]
        questions = [
            Question("score", VERSION, asked, self.engine, job, kind="score")
            for job, asked in zip(jobs, fields, strict=True)
        ]
        answers = iter((yield questions) if questions else [])
        self.refused += len(entries) - len(jobs)
        followed: set[str | None] = set()  # the summary follows a unit's first score of each series
        for series, entry, simulator, job in entries:
            answer = job if isinstance(job, Failure) else next(answers)
            score: Record = {"method": METHOD, "simulator": simulator}
            follow = None if series in followed else series
            self.further += series in followed and series is not None
            followed.add(series)
            if isinstance(answer, Failure):
                entry["scores"].append(score | {"error": answer.record()})
                if follow is not None:
                    self.summary.fail(follow)
                continue
            entry["scores"].append(score | answer["score"] | {"replicates": answer["replicates"]})
            if follow is not None:
                drawn, unit = unpacked(answer["replicates"]), target.unit
                self.summary.add(follow, unit.layer, unit.name, answer["score"], drawn, seen.documents)
        if baselines:
            with_baselines(record, (entry for _, entry, _, _ in baselines), METHOD)
        return record

    def _fields(self, job: Job, digests: dict[str, str], at_hand: str | None) -> Record:
        from nxtools.score.series import TABLES, question

        table = self.pools.table_digest(job.target.unit, TABLES[job.series]) if job.series in TABLES else None
        return question(job, digests, at_hand, table)

    def _predictions(self, target: Target, explanation: Record) -> list[tuple[str, Job | Failure]]:
        from nxtools.score.expected import Expected
        from nxtools.score.series import Job
        from nxtools.stage import Failure

        found: list[tuple[str, Job | Failure]] = []
        for simulator, by, prediction in predictions(explanation):
            self.ceilings.note(by)
            asked: dict[str, Any]
            if isinstance(prediction, Failure):
                found.append((simulator, prediction))
                continue
            if isinstance(prediction, str):
                asked = {"text": prediction}
            else:
                sign = str(explanation.get("sign", target.unit.sign))
                asked = {"expected": Expected(prediction), "sign": sign}
            found.append((simulator, Job(target, "explanation", **asked, **self.of_all)))
        return found

    def _baselines(self, target: Target, previous: Previous | None) -> list[_Entry]:
        from nxtools.score.series import TABLES, Job

        found: list[_Entry] = []
        for series in self.wanted[1:]:
            if series in TABLES and not target.has_table(series):
                continue
            entry: Record = {"name": series, "scores": []}
            if series == "null":
                found += self._null(target, previous)
            else:
                entry |= {"literals": self.of_all["literals"]} if series == "token-list" else {}
                found.append((series, entry, series, Job(target, series, **self.of_all)))
        return found

    def _null(self, target: Target, previous: Previous | None) -> list[_Entry]:
        """None for the first of a layer, which has no unit before it."""
        from nxtools.score.series import Job

        if previous is None:
            return []
        entry: Record = {"name": "null", "scores": [], "explanation_of": previous.name}
        if previous.pattern is not None:
            entry["text"] = previous.pattern
            job = Job(target, "null", text=previous.pattern, **self.of_all)
            return [("null", entry, "pattern", job)]
        if previous.words is None:
            return []
        entry["text"] = previous.words["text"]
        words = previous.words | {"simulations": list(previous.simulations)}
        return [("null", entry, simulator, job) for simulator, job in self._predictions(target, words)]
