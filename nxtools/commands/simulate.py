"""nx-simulate: what explanations predict, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools import threads
from nxtools.commands._assistants import MODELS, Assisted, assistant_options, check_unused, simulation_option
from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.commands._running import division_of, engine_or_offline, run_units

if TYPE_CHECKING:
    from collections.abc import Callable

    from nxtools.commands._pools import Pools
    from nxtools.stage import Engine, Step
    from nxtools.store import Store
    from nxtools.stream import Record

EXAMPLES = """
nx-explain units.jsonl | nx-simulate | nx-score
nx-simulate --simulator llama:qwen2.5-7b-instruct-q4_k_m.gguf explained.jsonl | nx-score
nx-simulate --simulator openai:gpt-4o-mini --check
nx-simulate --sets held-out,validation explained.jsonl > simulated.jsonl
"""


@command(
    "nx-simulate",
    examples=EXAMPLES,
    takes="unit lines with explanations",
    gives="the same lines with simulations beside each explanation: expected activations by excerpt",
)
@inputs_argument
@click.option(
    "--simulator",
    default="pattern",
    show_default=True,
    metavar="MODEL",
    help=f"Who predicts: {MODELS}; pattern runs the sentence as the program that it is.",
)
@simulation_option(
    "--method",
    help="How a model predicts; auto: all at once where its engine can, else it writes the numbers.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(0),
    default=0,
    help="Processes  [default: as many as cores], or calls of an API under way  [default: 8].",
)
@assistant_options
@click.option(
    "--check", is_flag=True, help="Measure the simulator on patterns instead, whose truth is known."
)
@click.option("--sets", default="held-out", show_default=True, help="Which excerpts, comma-separated.")
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@shared_options
def main(**options: Any) -> int:
    """Predict activations from explanations, so that they can be looked at or scored by nx-score. Values are
    in the unit's own scale where the explanation gives it, otherwise shares of its maximum.
    """
    if options["simulator"] == "pattern":
        threads.one_for_products()
    from nxtools.commands._pools import Pools
    from nxtools.divided import Each
    from nxtools.errors import UsageError
    from nxtools.records import SETS
    from nxtools.stage import LocalEngine

    shared = Shared.of("nx-simulate", options)
    sets = tuple(options["sets"].split(","))
    if not set(sets) <= set(SETS):
        raise UsageError(f"--sets takes some of {', '.join(SETS)}, not {options['sets']!r}")
    if options["simulator"] != "pattern":
        return _by_model(shared, options, sets)
    check_unused("patterns", "method", "check")
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    engine = engine_or_offline(shared, "simulate", LocalEngine(_simulate, batch=64))
    work = Each(lambda store: _step(engine, pools, sets))
    return run_units(shared, work.begin, division=division_of(work, options["jobs"]))


def _by_model(shared: Shared, options: dict[str, Any], sets: tuple[str, ...]) -> int:
    """Simulations by a language model."""
    from nxtools.simulate.assistant import Simulating, Simulator

    assisted = Assisted(shared, options, "simulate", options["simulator"])
    simulators: list[Simulator] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        simulator = Simulator(
            Simulating(
                assisted.asking(options["simulator"], store),
                method=options["method"],
                prompt=Path(options["prompt"]) if options["prompt"] else None,
                examples=options["examples"],
            )
        )
        simulators.append(simulator)
        return lambda record: simulator.step(record, sets)

    if options["check"]:
        return assisted.check(begin)
    return assisted.run(
        begin,
        unread=lambda: sum(simulator.excerpts_failed for simulator in simulators),
        told=lambda: "; ".join(simulator.described() for simulator in simulators),
    )


def _simulate(jobs: list[Any]) -> list[Any]:
    from nxtools.simulate.pattern import simulate

    return [simulate(*job) for job in jobs]


def _step(engine: Engine, pools: Pools, sets: tuple[str, ...]) -> Callable[[Record], Step]:
    from nxtools.explain.pattern import to_run
    from nxtools.simulate.pattern import VERSION, question
    from nxtools.stage import Failure, Question
    from nxtools.unit import Unit

    def step(record: Record) -> Step:
        patterns = [(e, text) for e in record.get("explanations") or [] if (text := to_run(e)) is not None]
        if not patterns or record.get("error"):
            return record
        unit = Unit(record)
        shown = [unit.shown(name) for name in sets]
        lexicon = pools.lexicon(unit)
        answers = yield [
            Question(
                "simulate.pattern",
                VERSION,
                question(text, e.get("scale"), shown, unit, pools.digest(unit)),
                engine,
                (text, e.get("scale"), shown, lexicon),
                kind="simulation",
            )
            for e, text in patterns
        ]
        names = [name for one in shown for name in one.excerpts]
        by: Record = {"simulator": "pattern", "version": VERSION}
        for (explanation, _), answer in zip(patterns, answers, strict=True):
            others = [s for s in explanation.get("simulations") or [] if s.get("by") != by]
            if isinstance(answer, Failure):
                made: list[Record] = [{"by": by, "error": answer.record()}]
            else:
                made = [
                    {"by": by, "excerpt": name, "expected": expected}
                    for name, expected in zip(names, answer, strict=True)
                ]
            explanation["simulations"] = others + made
        return record

    return step
