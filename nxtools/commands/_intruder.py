"""nx-score --method intruder: a judge picks the excerpt that does not belong to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nxtools.commands._explained import with_baselines
from nxtools.commands._judged import Judged
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nxtools.commands._base import Shared
    from nxtools.judge.summary import JudgeSummary
    from nxtools.stage import Step
    from nxtools.stream import Record

NAME = "intruder"


class Intruder(Judged):
    """Its scores stand under `baselines`, since they belong to the unit and to no explanation."""

    def __init__(self, shared: Shared, options: dict[str, Any]) -> None:
        from nxtools.judge.intruder import MOST

        if options["simulator"] == "pattern":
            hint = "--simulator llama:FILE.gguf, hf:MODEL or openai:MODEL"
            raise UsageError("intruders are found by a language model, without an explanation", hint=hint)
        if not 3 <= options["together"] <= MOST:
            raise UsageError(f"--together takes 3 to {MOST} excerpts for --method intruder")
        super().__init__(shared, options, 0)

    def _summary(self) -> JudgeSummary:
        from nxtools.judge.summary import JudgeSummary

        return JudgeSummary(NAME, ("accuracy",), (NAME,), {"accuracy": 1 / self.options["together"]})

    def prepare(self, units: Iterable[Record]) -> Iterator[Record]:
        return iter(units)

    def step(self, record: Record) -> Step:
        from nxtools.judge.intruder import ask, scored, trials
        from nxtools.judge.judge import Judge
        from nxtools.stage import Failure
        from nxtools.unit import Unit

        if record.get("error") or record.get("dead"):
            return record
        assert isinstance(self._judge, Judge)
        unit = Unit(record)
        chosen = self.choose(unit, unit.sign, contrast=True)
        tried = chosen if isinstance(chosen, Failure) else trials(chosen, self.options["together"])
        failure: Failure | None = None
        score: Record = {"method": NAME, "simulator": self._judge.asking.name}
        if isinstance(chosen, Failure) or isinstance(tried, Failure):
            failure = chosen if isinstance(chosen, Failure) else tried if isinstance(tried, Failure) else None
            self.refused += 1
            self.summary.fail(NAME)
        else:
            said = yield from ask(self._judge, chosen, tried)
            score["by"] = self._judge.by()
            found = scored(chosen, tried, said)
            if isinstance(found, Failure):
                failure = found
                self.summary.fail(NAME, len(tried))
            else:
                values, replicates = {"accuracy": found.accuracy}, {"accuracy": found.replicates}
                judged = len(found.documents)
                unjudged = len(tried) - judged
                self.summary.add(NAME, unit.name, values, replicates, found.documents, judged, unjudged)
                score |= found.record
        if failure is not None:
            score["error"] = failure.record()
        with_baselines(record, [{"name": NAME, "scores": [score]}], NAME)
        return record
