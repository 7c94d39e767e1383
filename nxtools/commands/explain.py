"""nx-explain: put what a unit does into words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools import threads
from nxtools.commands._assistants import (
    MODELS,
    Assisted,
    assistant_options,
    check_unused,
    showing_options,
    typed,
)
from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.commands._explained import with_explanation
from nxtools.commands._running import division_of, engine_or_offline, run_units
from nxtools.commands._written import HUMAN
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nxtools.progress import Progress
    from nxtools.stage import Counts, Step
    from nxtools.store import Store
    from nxtools.stream import Record

EXAMPLES = """
nx-record --subject DIR text/ | nx-top | nx-explain > explained.jsonl
nx-explain --literals 10 units.jsonl | nx-score
nx-explain --explainer llama:qwen2.5-7b-instruct-q4_k_m.gguf -n 5 --best units.jsonl
nx-explain --explainer openai:gpt-4o-mini --view contrast units.jsonl
nx-explain --explainer openai:gpt-4o-mini --view tokens --from corpus units.jsonl
nx-explain --explainer hf:Qwen/Qwen2.5-7B-Instruct --paraphrase explained.jsonl > with-others.jsonl
nx-explain --text '" all" after " not" (8); " none"' units.jsonl | nx-score
"""

COUNT = click.IntRange(0)


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
    help=f"Who explains: {MODELS}; pattern needs no language model; human:FILE is what people wrote.",
)
@click.option("--text", metavar="SENTENCE", help="Take this pattern for every unit instead of learning one.")
@click.option("--literals", type=COUNT, default=30, show_default=True, help="Tokens and classes it may name.")
@click.option(
    "--characters", type=COUNT, default=500, show_default=True, help="Its length at most; 0: no limit."
)
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
    "--from",
    type=click.Choice(["evidence", "corpus", "weights"]),
    default="evidence",
    show_default=True,
    envvar="NXTOOLS_EXPLAIN_FROM",
    help="The strongest tokens of --view tokens: in the evidence, or in a table of nx-record --tables.",
)
@click.option("--best", is_flag=True, help="Keep the candidate that scores best on the validation set.")
@click.option("--diverse", is_flag=True, help="Ask for lists of candidates, under other examples.")
@click.option("--simulator", metavar="MODEL", help="Who compares candidates  [default: the explainer].")
@click.option(
    "--paraphrase", is_flag=True, help="Reword the explanations that units carry; make no new ones."
)
@showing_options
@assistant_options
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@shared_options
def main(**options: Any) -> int:
    """Add an explanation to each unit: by default a pattern, a sentence that people can read and machines
    can run, learned from the unit's evidence excerpts and the random pool. Dead units pass as they are.
    """
    shared = Shared.of("nx-explain", options)
    if options["paraphrase"]:
        return _reworded(shared, options)
    if options["from"] != "evidence" and options["view"] != "tokens":
        raise UsageError(f"--from {options['from']} shows a table of tokens: it goes with --view tokens")
    if options["text"] is not None:
        check_unused("patterns", "from", *OF_MODELS)
        return run_units(shared, lambda store: _said(options["text"]), finish=_say)
    if options["explainer"].startswith(HUMAN):
        from nxtools.commands import _written

        check_unused("people", "from", *OF_MODELS)
        return _written.run(shared, options["explainer"].removeprefix(HUMAN))
    if options["explainer"] != "pattern":
        return _by_model(shared, options)
    return _learned(shared, options)


def _learned(shared: Shared, options: dict[str, Any]) -> int:
    """Patterns of the units' excerpts, or of a table."""
    threads.one_for_products()
    from nxtools.commands._patterns import Learner, Learning, OfTable
    from nxtools.commands._pools import Pools
    from nxtools.pattern.fit import Budget
    from nxtools.stage import LocalEngine

    source = options["from"]
    check_unused("patterns", *(name for name in OF_MODELS if name != "view" or source == "evidence"))
    budget = Budget(options["literals"], options["characters"] or None)
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    of_table = None if source == "evidence" else OfTable(pools, budget, source)
    learner = of_table or Learner(pools, budget)
    work = Learning(learner, engine_or_offline(shared, "explain", LocalEngine(learner)))

    def say(progress: Progress, counts: Counts) -> None:
        counts.failed += len(of_table.missing) if of_table else 0
        _say(progress, counts)

    return run_units(shared, work.begin, finish=say, division=division_of(work, options["jobs"], 32))


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
                source=options["from"],
                form=options["form"],
                prompt=Path(options["prompt"]) if options["prompt"] else None,
                excerpts=options["excerpts"],
                examples=options["examples"],
                candidates=options["candidates"],
                diverse=options["diverse"],
                best=best,
                pool_of=pools.of,
                table_of=pools.table,
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


def _said(text: str) -> Callable[[Record], Step]:
    """A person's pattern. Raises InputError that says where it stops making sense."""
    from nxtools.explain.pattern import identify
    from nxtools.pattern.language import parse

    sentence = str(parse(text))

    def step(record: Record) -> Step:
        yield from ()
        return with_explanation(record, identify({"text": sentence, "by": {"explainer": "person"}}))

    return step


def _say(progress: Progress, counts: Counts) -> None:
    progress.say(
        f"{counts.units} units; {counts.computed} explanations computed, {counts.from_store} from the store, "
        f"{counts.failed} failed"
    )
