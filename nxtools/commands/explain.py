"""nx-explain: put what a unit does into words."""

from __future__ import annotations

import os
from dataclasses import dataclass
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
    from collections.abc import Callable

    from nxtools.commands._pools import Pools
    from nxtools.pattern.fit import Budget
    from nxtools.progress import Progress
    from nxtools.stage import Counts, Engine, Step
    from nxtools.stream import Record

EXAMPLES = """
nx-record --subject DIR text/ | nx-top | nx-explain > explained.jsonl
nx-explain --literals 10 units.jsonl | nx-score
nx-explain --text '" all" after " not" (8); " none"' units.jsonl | nx-score
"""


@command(
    "nx-explain",
    examples=EXAMPLES,
    takes="unit lines, from nx-top",
    gives="the same lines with an explanation added to each",
)
@inputs_argument
@click.option(
    "--explainer",
    type=click.Choice(["pattern"]),
    default="pattern",
    show_default=True,
    help="Who explains; pattern needs no language model.",
)
@click.option("--text", metavar="SENTENCE", help="Take this pattern for every unit instead of learning one.")
@click.option("--literals", default=30, show_default=True, help="Tokens and classes it may name.")
@click.option(
    "--characters", default=300, show_default=True, help="Its length at most; 0: no limit."
)
@click.option(
    "-j", "--jobs", type=click.IntRange(0), default=0, help="Processes  [default: as many as cores]."
)
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@shared_options
def main(**options: Any) -> int:
    """Add an explanation to each unit: by default a pattern, a sentence that people can read and machines
    can run, learned from the unit's evidence excerpts and the random pool. Dead units pass as they are.
    """
    from nxtools.commands._pools import Pools
    from nxtools.pattern.fit import Budget
    from nxtools.stage import LocalEngine

    shared = Shared.of("nx-explain", options)
    if options["text"] is not None:
        return run_units(shared, lambda store: _said(options["text"]), finish=_say)
    budget = Budget(options["literals"], options["characters"] or None)
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    jobs = options["jobs"] or os.cpu_count() or 1
    engine = engine_or_offline(shared, "explain", LocalEngine(Learner(pools, budget), batch=32, jobs=jobs))
    return run_units(shared, lambda store: _step(engine, pools, budget), finish=_say)


@dataclass(frozen=True)
class Learner:
    """The engine's function: what it needs to learn patterns, wherever it runs."""

    pools: Pools
    budget: Budget

    def __call__(self, units: list[Any]) -> list[Any]:
        from nxtools.explain.pattern import explain

        return [explain(unit, self.pools.of(unit), self.budget) for unit in units]


def _step(engine: Engine, pools: Pools, budget: Budget) -> Callable[[Record], Step]:
    from nxtools.explain.pattern import VERSION, identify, question
    from nxtools.stage import Failure, Question
    from nxtools.unit import Unit

    def step(record: Record) -> Step:
        if record.get("dead") or record.get("error"):
            return record
        unit = Unit(record)
        pool = pools.digest(unit)
        fields = question(unit, pool, budget)
        (answer,) = yield [Question("explain.pattern", VERSION, fields, engine, unit, kind="explanation")]
        by = {"explainer": "pattern", "version": VERSION, "literals": budget.literals}
        if budget.characters is not None:
            by["characters"] = budget.characters
        by["pool"] = pool is not None
        if isinstance(answer, Failure):
            return _with(record, {"by": by, "error": answer.record()})
        text = answer.pop("text")
        return _with(record, identify({"text": text, "by": by, **answer}))

    return step


def _said(text: str) -> Callable[[Record], Step]:
    """A person's pattern. Raises InputError that says where it stops making sense."""
    from nxtools.explain.pattern import identify
    from nxtools.pattern.language import parse

    sentence = str(parse(text))

    def step(record: Record) -> Step:
        yield from ()
        return _with(record, identify({"text": sentence, "by": {"explainer": "person"}}))

    return step


def _with(record: Record, explanation: Record) -> Record:
    """The unit with one more explanation; the same one again takes the place of the old."""
    others = [e for e in record.get("explanations") or [] if e.get("id") != explanation.get("id", "")]
    record["explanations"] = [*others, explanation]
    return record


def _say(progress: Progress, counts: Counts) -> None:
    progress.say(
        f"{counts.units} units; {counts.computed} explanations computed, {counts.from_store} from the store, "
        f"{counts.failed} failed"
    )
