"""What nx-score --method ablation does with one unit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nxtools.commands._explained import PREVIOUS, Previous, predictions, told, with_baselines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nxtools.commands._pools import Pools
    from nxtools.recordings.contexts import Contexts
    from nxtools.score.ablation import Ablated
    from nxtools.score.ablation_summary import AblationSummary
    from nxtools.score.held import Calibrated, Held
    from nxtools.score.series import Target
    from nxtools.stage import Engine, Failure, Step
    from nxtools.stream import Record
    from nxtools.subject.replacing import Replacement

METHOD = "ablation"

# series, what on the line gets the score, who predicts, and the `Simulation`; or a Failure: why nobody does.
_Entry = tuple[str | None, dict[str, Any], str, Any]


class Ablation:
    """What is done with one unit."""

    def __init__(
        self,
        engine: Engine,
        pools: Pools,
        wanted: Sequence[str],
        literals: int,
        calibration: str,
        effects: Sequence[str],
        dtype: str | None,
        summary: AblationSummary,
    ) -> None:
        self.engine, self.pools = engine, pools
        self.wanted, self.literals, self.calibration = wanted, literals, calibration
        self.effects, self.dtype = effects, dtype
        self.summary = summary
        self.refused = 0
        self._contexts: dict[str, Contexts] = {}

    def step(self, record: Record) -> Step:
        from nxtools.score.series import Target
        from nxtools.unit import Unit

        previous = record.pop(PREVIOUS, None)
        if record.get("error") or record.get("dead"):
            return record
        target = Target(Unit(record), self.pools.of, self.pools.table)
        explanations = told(record, METHOD)
        entries = _first_of_each(
            [
                (series, explanation, simulator, _to_replace(target, prediction))
                for series, explanation in explanations
                for simulator, _, prediction in predictions(explanation)
            ]
        )
        if not entries and not self.effects:
            return record
        baselines = self._baselines(target, previous) if explanations else []
        entries += baselines
        yield from self._ablate(record, target, entries)
        if baselines:
            with_baselines(record, (entry for _, entry, _, _ in baselines), METHOD)
        return record

    def _ablate(self, record: Record, target: Target, entries: list[_Entry]) -> Step:
        """Asks what all that is wanted in the unit's place does, and puts it on the line."""
        from nxtools.score.held import Held
        from nxtools.stage import Failure

        if "recorded" not in record:
            message = "the line does not say how the subject was run: nx-record and nx-top write `recorded`"
            return self._refuse(record, entries, Failure("score", "no-context", message))
        held = Held(target, record, self._seen_before(record), self.dtype)
        mean = held.evidence_mean
        if not held.picks or mean is None:
            message = "no held-out excerpts" if not held.picks else "no random evidence to take the mean of"
            return self._refuse(record, entries, Failure("score", "no-evidence", message))
        found = [
            one if isinstance(one, Failure) else held.calibrated(one, self.calibration) for *_, one in entries
        ]
        jobs = [held.replacement(held.constant(mean), moves="mean" in self.effects)]
        jobs.append(held.replacement(None, held.firsts))
        jobs += [held.replacement(held.constant(0.0), moves=True)] if "zero" in self.effects else []
        asked = [one for each in found if not isinstance(each, Failure) for one in each.values()]
        jobs += [held.replacement(one.values, one.rows) for one in asked if one.rows]
        answers = yield [self._question(job) for job in jobs]
        by_mean, by_itself = answers[:2]
        by_zero = answers[2] if "zero" in self.effects else None
        simulated = iter(answers[2 + (by_zero is not None) :])
        for entry, by_figure in zip(entries, found, strict=True):
            if isinstance(by_figure, Failure):
                self.refused += 1
                self._fail([entry], by_figure)
                continue
            given = {name: next(simulated) if one.rows else {"jsd": []} for name, one in by_figure.items()}
            failures = [a for a in (*given.values(), by_mean, by_itself) if isinstance(a, Failure)]
            if failures:
                self._fail([entry], failures[0])
                continue
            pairs = {name: (one, given[name]) for name, one in by_figure.items()}
            self._score(held, entry, by_figure, held.ablated(pairs, by_mean, by_itself))
        silenced = {"mean": by_mean, "zero": by_zero}
        if self.effects:
            record["effects"] = [self._effect(held, name, mean, silenced[name]) for name in self.effects]
        return record

    def _score(self, held: Held, entry: _Entry, by_figure: dict[str, Calibrated], ablated: Ablated) -> None:
        from nxtools.score.ablation import as_record, score
        from nxtools.score.calibration import described

        series, target, simulator, _ = entry
        figures = score(ablated)
        target["scores"].append(
            {
                "method": METHOD,
                "simulator": simulator,
                **as_record(ablated, figures),
                "calibration": self.calibration,
                "calibrated": {name: described(one.calibration) for name, one in by_figure.items()},
            }
        )
        if series in self.summary.series:
            correlation = held.correlation(by_figure["top_and_random"])
            self.summary.add(series, held.target.unit.layer, ablated, figures, correlation)

    def _effect(self, held: Held, name: str, mean: float, answer: Any) -> Record:
        from nxtools.score.effects import effect
        from nxtools.score.figures import short
        from nxtools.stage import Failure

        entry: Record = {"replaced_by": name}
        if isinstance(answer, Failure):
            return entry | {"error": answer.record()}
        target = held.target
        texts = target.unit.vocabulary if target.pool is None else target.pool.pool.vocabulary
        value = {"value": short(mean)} if name == "mean" else {}
        return entry | value | effect(target.unit.name, held.picks, held.tokens, answer, texts)

    def _refuse(self, record: Record, entries: list[_Entry], failure: Failure) -> Record:
        """Errors that the loop does not see, since nothing was asked."""
        self.refused += len(entries) + len(self.effects)
        self._fail(entries, failure)
        if self.effects:
            error = failure.record()
            record["effects"] = [{"replaced_by": name, "error": error} for name in self.effects]
        return record

    def _fail(self, entries: list[_Entry], failure: Failure) -> None:
        for series, target, simulator, _ in entries:
            target["scores"].append({"method": METHOD, "simulator": simulator, "error": failure.record()})
            if series in self.summary.series:
                self.summary.fail(series)

    def _baselines(self, target: Target, previous: Previous | None) -> list[_Entry]:
        from nxtools.score.series import TABLES, Job, by_ids

        found: list[_Entry] = []
        for series in self.wanted[1:]:
            entry: Record = {"name": series, "scores": []}
            if series in TABLES and not target.has_table(series):
                continue
            if series != "null":
                entry |= {"literals": self.literals} if series == "token-list" else {}
                job = Job(target, series, literals=self.literals)
                found.append((series, entry, series, partial(by_ids, job)))
            elif previous is not None and previous.pattern is not None:
                entry |= {"explanation_of": previous.name, "text": previous.pattern}
                job = Job(target, series, text=previous.pattern)
                found.append((series, entry, "pattern", partial(by_ids, job)))
        return found

    def _seen_before(self, record: Record) -> Contexts:
        """How the unit's subject was run: the same for all units of a layer of a run."""
        from nxtools.recordings.contexts import Contexts

        recorded = record["recorded"]
        name = repr(recorded)
        if name not in self._contexts:
            self._contexts = {name: Contexts(recorded, self.pools.blob)}
        return self._contexts[name]

    def _question(self, job: Replacement) -> Any:
        from nxtools.stage import Question
        from nxtools.subject.replacing import VERSION

        return Question("replace", VERSION, job.question(), self.engine, job, kind="ablation")


def _to_replace(target: Target, prediction: Any) -> Any:
    """A pattern as a `Simulation`; other predictions are ones, or failures."""
    from nxtools.score.series import Job, by_ids

    if isinstance(prediction, str):
        return partial(by_ids, Job(target, "explanation", text=prediction))
    return prediction


def _first_of_each(entries: list[_Entry]) -> list[_Entry]:
    """The summary follows a unit's first score of each series."""
    followed: set[str | None] = set()
    found: list[_Entry] = []
    for series, *rest in entries:
        found.append((None if series in followed else series, *rest))
        followed.add(series)
    return found
