"""nx-explain: put what a unit does into words."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._assistants import MODELS, Assisted, assistant_options, check_unused, typed
from nxtools.commands._base import (
    Shared,
    command,
    engine_or_offline,
    inputs_argument,
    run_units,
    shared_options,
)
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nxtools.commands._pools import Pools
    from nxtools.pattern.fit import Budget
    from nxtools.progress import Progress
    from nxtools.stage import Counts, Engine, Step
    from nxtools.store import Store
    from nxtools.stream import Record

EXAMPLES = """
nx-record --subject DIR text/ | nx-top | nx-explain > explained.jsonl
nx-explain --literals 10 units.jsonl | nx-score
nx-explain --explainer llama:qwen2.5-7b-instruct-q4_k_m.gguf -n 5 --best units.jsonl
nx-explain --explainer openai:gpt-4o-mini --view contrast units.jsonl
nx-explain --explainer hf:Qwen/Qwen2.5-7B-Instruct --paraphrase explained.jsonl > with-others.jsonl
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
    default="pattern",
    show_default=True,
    metavar="MODEL",
    help=f"Who explains: {MODELS}; pattern needs no language model.",
)
@click.option("--text", metavar="SENTENCE", help="Take this pattern for every unit instead of learning one.")
@click.option("--literals", default=30, show_default=True, help="Tokens and classes it may name.")
@click.option("--characters", default=500, show_default=True, help="Its length at most; 0: no limit.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(0),
    default=0,
    help="Processes  [default: as many as cores], or calls of an API under way  [default: 8].",
)
@click.option(
    "--view",
    type=click.Choice(["activations", "next-token", "tokens", "contrast"]),
    default="activations",
    show_default=True,
    help="What a model is shown of a unit.",
)
@click.option(
    "--form",
    type=click.Choice(["auto", "paper", "marked"]),
    default="auto",
    show_default=True,
    help="Tables of tokens and numbers, or text with marks; auto: marks where the model can chat.",
)
@click.option("--excerpts", type=click.IntRange(1), default=5, show_default=True, help="Excerpts shown.")
@click.option(
    "-n", "--candidates", type=click.IntRange(1), default=1, show_default=True, help="Explanations a unit."
)
@click.option("--best", is_flag=True, help="Keep the candidate that scores best on the validation set.")
@click.option("--diverse", is_flag=True, help="Ask for lists of candidates, under other examples.")
@click.option("--simulator", metavar="MODEL", help="Who compares candidates  [default: the explainer].")
@click.option(
    "--paraphrase", is_flag=True, help="Reword the explanations that units carry; make no new ones."
)
@assistant_options
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
    if options["paraphrase"]:
        return _reworded(shared, options)
    if options["text"] is None and options["explainer"] != "pattern":
        return _by_model(shared, options)
    check_unused("patterns", *OF_MODELS)
    if options["text"] is not None:
        return run_units(shared, lambda store: _said(options["text"]), finish=_say)
    budget = Budget(options["literals"], options["characters"] or None)
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    jobs = options["jobs"] or os.cpu_count() or 1
    engine = engine_or_offline(shared, "explain", LocalEngine(Learner(pools, budget), batch=32, jobs=jobs))
    return run_units(shared, lambda store: _step(engine, pools, budget), finish=_say)


OF_MODELS = ("view", "form", "excerpts", "candidates", "best", "diverse", "simulator")


def _by_model(shared: Shared, options: dict[str, Any]) -> int:
    """Explanations by a language model."""
    from nxtools.commands._pools import Pools
    from nxtools.explain.assistant import Explainer, Explaining
    from nxtools.simulate.assistant import Simulating, Simulator

    if typed("simulator") and not options["best"]:
        raise UsageError("--simulator compares candidates: it goes with --best")
    assisted = Assisted(shared, options, "explain", options["explainer"])
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    explainers: list[Explainer] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        best = None
        if options["best"]:
            name = options["simulator"] or options["explainer"]
            best = Simulator(Simulating(assisted.asking(name, store))).simulations
        explainer = Explainer(
            Explaining(
                assisted.asking(options["explainer"], store),
                view=options["view"],
                form=options["form"],
                prompt=Path(options["prompt"]) if options["prompt"] else None,
                excerpts=options["excerpts"],
                examples=options["examples"],
                candidates=options["candidates"],
                diverse=options["diverse"],
                best=best,
                pool_of=pools.of,
            )
        )
        explainers.append(explainer)
        return explainer.step

    return assisted.run(begin, unread=lambda: sum(explainer.unread for explainer in explainers))


def _reworded(shared: Shared, options: dict[str, Any]) -> int:
    """Explanations in other words, by a language model."""
    from nxtools.explain.rewording import Reworder, Rewording

    for name in typed("text", "examples", *OF_MODELS):
        raise UsageError(f"--{name} is for new explanations: it does not go with --paraphrase")
    if options["explainer"] == "pattern":
        raise UsageError("--paraphrase takes a language model", hint=f"--explainer {MODELS}")
    assisted = Assisted(shared, options, "explain", options["explainer"])
    prompt = Path(options["prompt"]) if options["prompt"] else None
    reworders: list[Reworder] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        reworders.append(Reworder(Rewording(assisted.asking(options["explainer"], store), prompt)))
        return reworders[-1].step

    def told() -> str:
        seen = sum(reworder.seen for reworder in reworders)
        return "" if seen else "no unit carries an explanation in words"

    return assisted.run(begin, unread=lambda: sum(one.unread for one in reworders), told=told)


@dataclass(frozen=True)
class Learner:
    """The engine's function: what it needs to learn patterns, wherever it runs."""

    pools: Pools
    budget: Budget

    def __call__(self, units: list[Any]) -> list[Any]:
        from nxtools.explain.pattern import explain

        return [
            explain(unit, self.pools.of(unit), self.budget, self.pools.table(unit, "corpus"))
            for unit in units
        ]


def _step(engine: Engine, pools: Pools, budget: Budget) -> Callable[[Record], Step]:
    from nxtools.explain.pattern import VERSION, identify, question
    from nxtools.known import known
    from nxtools.stage import Failure, Question
    from nxtools.unit import Unit

    def step(record: Record) -> Step:
        if record.get("dead") or record.get("error"):
            return record
        unit = Unit(record)
        pool, table = pools.digest(unit), pools.table_digest(unit, "corpus")
        fields = question(unit, (yield from known(unit)).digests, pool, budget, table)
        (answer,) = yield [Question("explain.pattern", VERSION, fields, engine, unit, kind="explanation")]
        by = {"explainer": "pattern", "version": VERSION, "literals": budget.literals}
        if budget.characters is not None:
            by["characters"] = budget.characters
        by["pool"] = pool is not None
        if table is not None:
            by["table"] = "corpus"
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
    """The unit with one more explanation, in place of the same one, or of an error by the same author."""
    others = [
        e
        for e in record.get("explanations") or []
        if e.get("id") != explanation.get("id", "")
        and not ("error" in e and e.get("by") == explanation["by"])
    ]
    record["explanations"] = [*others, explanation]
    return record


def _say(progress: Progress, counts: Counts) -> None:
    progress.say(
        f"{counts.units} units; {counts.computed} explanations computed, {counts.from_store} from the store, "
        f"{counts.failed} failed"
    )
