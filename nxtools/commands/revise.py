"""nx-revise: challenge explanations with new evidence, and mend them."""

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
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nxtools.commands._pools import Pools
    from nxtools.progress import Progress
    from nxtools.revise.step import Reviser
    from nxtools.stage import Counts, Step
    from nxtools.store import Store
    from nxtools.stream import Record

SOURCES = ("corpus", "neighbours", "random", "none")

EXAMPLES = """
nx-record --subject DIR text/ | nx-top | nx-explain | nx-revise --subject DIR | nx-score
nx-revise --subject DIR --from corpus,neighbours --pool 4000 --rounds 2 explained.jsonl > revised.jsonl
nx-revise --from none explained.jsonl | nx-score
"""


@command(
    "nx-revise",
    examples=EXAMPLES,
    takes="explained unit lines, from nx-explain",
    gives="the same lines with a revised explanation before each, its versions and counterexamples",
)
@inputs_argument
@click.option("--subject", metavar="DIR|HUB_ID", help="The model under study  [default: by its name].")
@click.option(
    "--from",
    "sources",
    default="corpus,neighbours",
    show_default=True,
    metavar="SOURCE,…",
    help="Where new evidence comes from: corpus, neighbours, random; or none, the control.",
)
@click.option(
    "--pool",
    "count",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Evidence excerpts that the subject is run over, for corpus and random.",
)
@click.option(
    "--rounds", type=click.IntRange(1), default=1, show_default=True, help="Revisions of revisions at most."
)
@click.option("--literals", default=30, show_default=True, help="Of explanations that do not say how many.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")
@click.option("--allow-pickle", is_flag=True, help="Load weights from .bin files (tensors only).")
@click.option(
    "-j", "--jobs", type=click.IntRange(0), default=0, help="Processes  [default: as many as cores]."
)
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@shared_options
def main(**options: Any) -> int:
    """Challenge each explanation with evidence that it was not made from, measured on the subject, mend it,
    and keep what is better on validation. Held-out excerpts are only scored on.
    """
    from nxtools.commands._pools import Pools
    from nxtools.pattern.fit import Budget
    from nxtools.revise.evidence import Measuring
    from nxtools.revise.step import RANDOM, Reviser, Revising
    from nxtools.stage import LocalEngine

    shared = Shared.of("nx-revise", options)
    sources = tuple(options["sources"].split(","))
    if not set(sources) <= set(SOURCES) or ("none" in sources and len(sources) > 1):
        hint = "--from none stands alone"
        raise UsageError(f"--from takes some of {', '.join(SOURCES)}, not {options['sources']!r}", hint=hint)
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    jobs = options["jobs"] or os.cpu_count() or 1
    revisers: list[Reviser] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        from nxtools.commands._subjects import reader

        measuring = Measuring(
            sources=() if sources == ("none",) else sources,
            count=options["count"],
            random=RANDOM,
            reader=engine_or_offline(shared, "revise", reader(options, store)),
            pool_of=pools.of,
            open_blob=pools.blob,
        )
        revising = Revising(
            measuring=measuring,
            rounds=options["rounds"],
            budget=Budget(options["literals"]),
            mender=engine_or_offline(shared, "revise", LocalEngine(Mending(pools), batch=8, jobs=jobs)),
            pool_digest=pools.digest,
            lexicon=pools.lexicon,
        )
        revisers.append(Reviser(revising))
        return revisers[-1].step

    def say(progress: Progress, counts: Counts) -> None:
        from nxtools.revise.report import lines

        progress.say(f"{counts.units:,} units: {counts.described()}")
        for line in lines(revisers[-1].compared):
            progress.say(line)

    return run_units(shared, begin, finish=say)


@dataclass(frozen=True)
class Mending:
    """The engine's function: what it needs to revise patterns, wherever it runs."""

    pools: Pools

    def __call__(self, jobs: list[Any]) -> list[Any]:
        from nxtools.revise.pattern import revise

        return [revise(job, self.pools.of(job.unit)) for job in jobs]
