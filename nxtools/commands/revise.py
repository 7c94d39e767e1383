"""nx-revise: challenge explanations with new evidence, and mend them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._assistants import (
    MODELS,
    Assisted,
    assistant_options,
    check_unused,
    showing_options,
    simulation_option,
    typed,
)
from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.commands._running import engine_or_offline, run_units
from nxtools.commands._subjects import subject_options
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nxtools.commands._pools import Pools
    from nxtools.commands._subjects import Lazy
    from nxtools.progress import Progress
    from nxtools.revise.assistant import Mender
    from nxtools.revise.evidence import Measuring
    from nxtools.revise.step import Reviser
    from nxtools.simulate.assistant import Simulator
    from nxtools.stage import Counts, Engine, Step
    from nxtools.store import Store
    from nxtools.stream import Record

SOURCES = ("corpus", "neighbours", "random", "generated", "none")

EXAMPLES = """
nx-record --subject DIR text/ | nx-top | nx-explain | nx-revise --subject DIR | nx-score
nx-revise --subject DIR --from corpus,neighbours --pool 4000 --rounds 2 explained.jsonl > revised.jsonl
nx-revise --from none explained.jsonl | nx-score
nx-revise --explainer llama:qwen2.5-7b-instruct-q4_k_m.gguf --from generated,corpus --rounds 3 explained.jsonl
nx-revise --explainer openai:gpt-4o-mini --simulator llama:qwen2.5-7b-base.gguf --dry-run explained.jsonl
"""


@command(
    "nx-revise",
    examples=EXAMPLES,
    takes="explained unit lines, from nx-explain",
    gives="the same lines with a revised explanation before each, its versions and counterexamples",
)
@inputs_argument
@click.option(
    "--explainer",
    default="pattern",
    show_default=True,
    metavar="MODEL",
    help=f"Who mends: {MODELS}, what is said in words; pattern mends patterns.",
)
@click.option(
    "--from",
    "sources",
    metavar="SOURCE,…",
    help="Where new evidence comes from: corpus, neighbours, random, generated (models only); or none, the "
    "control  [default: corpus,neighbours; of models generated].",
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
@click.option(
    "--literals",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Of patterns that do not say how many.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(0),
    default=0,
    help="Processes  [default: as many as cores], or calls of an API under way  [default: 8].",
)
@click.option("--bulk", metavar="DIR", help="Where nx-record --bulk put the recordings.")
@showing_options
@click.option(
    "--simulator", metavar="MODEL", help="Who predicts activations from words  [default: the explainer]."
)
@simulation_option(
    "--simulation", envvar="NXTOOLS_METHOD", help="How a model predicts: nx-simulate --method."
)
@click.option("--sentences-prompt", metavar="FILE", help="The prompt file that asks for sentences.")
@assistant_options
@subject_options
@shared_options
def main(**options: Any) -> int:
    """Challenge each explanation with evidence that it was not made from, measured on the subject, mend it,
    and keep what is better on validation. Held-out excerpts are only scored on.
    """
    shared = Shared.of("nx-revise", options)
    of_patterns = options["explainer"] == "pattern"
    sources = _sources(options["sources"], "corpus,neighbours" if of_patterns else "generated")
    if of_patterns:
        if "generated" in sources:
            hint = f"--explainer {MODELS}, which mends explanations in words"
            raise UsageError(
                "patterns have nobody who writes sentences: --from generated is not theirs", hint=hint
            )
        check_unused("patterns", *OF_MODELS)
        return _patterns(shared, options, sources)
    if typed("literals"):
        raise UsageError("--literals is for patterns")
    return _words(shared, options, sources)


OF_MODELS = ("form", "excerpts", "candidates", "simulator", "simulation", "sentences_prompt")


def _sources(given: str | None, default: str) -> tuple[str, ...]:
    """The sources, each once; () for none."""
    sources = tuple(dict.fromkeys((given or default).split(",")))
    if not set(sources) <= set(SOURCES) or ("none" in sources and len(sources) > 1):
        hint = "--from none stands alone"
        raise UsageError(f"--from takes some of {', '.join(SOURCES)}, not {given!r}", hint=hint)
    return () if sources == ("none",) else sources


def _patterns(shared: Shared, options: dict[str, Any], sources: tuple[str, ...]) -> int:
    """Patterns mended by the search for rules."""
    from nxtools.commands._pools import Pools
    from nxtools.pattern.fit import Budget
    from nxtools.revise.step import RANDOM, Reviser, Revising
    from nxtools.stage import LocalEngine

    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    jobs = options["jobs"] or os.cpu_count() or 1
    subject = _Asked(shared, options, pools)
    revisers: list[Reviser] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        revising = Revising(
            measuring=subject.measuring(store, sources, RANDOM, lambda engine: engine),
            rounds=options["rounds"],
            budget=Budget(options["literals"]),
            mender=engine_or_offline(shared, "revise", LocalEngine(Mending(pools), batch=8, jobs=jobs)),
            pool_digest=pools.digest,
            lexicon=pools.lexicon,
        )
        revisers.append(Reviser(revising))
        return revisers[-1].step

    def say(progress: Progress, counts: Counts) -> None:
        (reviser,) = revisers
        counts.failed += reviser.refused
        nobody = "" if reviser.seen or not counts.units else "no unit carries a pattern (--explainer MODEL)"
        said = [f"{counts.units:,} units: {counts.described()}", subject.told(), nobody]
        progress.say("; ".join(filter(None, said)))
        _say_compared(progress, reviser)

    return run_units(shared, begin, finish=say)


def _words(shared: Shared, options: dict[str, Any], sources: tuple[str, ...]) -> int:
    """Words mended by a language model."""
    from nxtools.commands._pools import Pools
    from nxtools.revise.assistant import PROMPTS, RANDOM, Mender
    from nxtools.revise.assistant import Mending as MendingWords
    from nxtools.revise.generated import Writing
    from nxtools.simulate.assistant import Simulating, Simulator

    assisted = Assisted(shared, options, "revise", options["explainer"])
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    subject = _Asked(shared, options, pools)
    menders: list[Mender] = []
    simulators: list[Simulator] = []
    simulator = options["simulator"] or options["explainer"]
    own = options["sentences_prompt"]

    def begin(store: Store) -> Callable[[Record], Step]:
        asking = assisted.asking(options["explainer"], store)
        predicting = assisted.asking(simulator, store)
        simulators.append(Simulator(Simulating(predicting, options["simulation"])))
        writing = None
        if "generated" in sources:
            speller = assisted.instead_of(subject.speller(store))
            writing = Writing(asking, speller, Path(own) if own else PROMPTS / "sentences.toml")
        measured = tuple(source for source in sources if source != "generated")
        mending = MendingWords(
            asking=asking,
            simulate=simulators[-1].on,
            simulator=predicting.name,
            measuring=subject.measuring(store, measured, RANDOM, assisted.instead_of),
            writing=writing,
            lexicon=pools.lexicon,
            rounds=options["rounds"],
            form=options["form"],
            prompt=Path(options["prompt"]) if options["prompt"] else None,
            excerpts=options["excerpts"],
            examples=options["examples"],
            candidates=options["candidates"],
        )
        menders.append(Mender(mending))
        return menders[-1].step

    def told() -> str:
        seen = sum(mender.seen for mender in menders)
        said = (
            [one.described() for one in simulators] if seen else ["no unit carries an explanation in words"]
        )
        return "; ".join(filter(None, [*said, subject.told()]))

    return assisted.run(
        begin,
        unread=lambda: sum(m.refused for m in menders) + sum(s.excerpts_failed for s in simulators),
        told=told,
        also=lambda progress, counts: _say_compared(progress, menders[0]),
    )


class _Asked:
    """The subject's engines, loaded when something is missing."""

    def __init__(self, shared: Shared, options: dict[str, Any], pools: Pools) -> None:
        self._shared, self._options, self._pools = shared, options, pools
        self._reader: Lazy | None = None

    def measuring(
        self, store: Store, sources: tuple[str, ...], random: int, instead: Callable[[Engine], Engine]
    ) -> Measuring:
        """instead: who answers in place of an engine that must not be asked."""
        from nxtools.commands._subjects import reader
        from nxtools.revise.evidence import Measuring

        self._reader = reader(self._options, store)
        return Measuring(
            sources=sources,
            count=self._options["count"],
            random=random,
            reader=instead(engine_or_offline(self._shared, "revise", self._reader)),
            pool_of=self._pools.of,
            open_blob=self._pools.blob,
        )

    def speller(self, store: Store) -> Engine:
        from nxtools.commands._subjects import speller

        return engine_or_offline(self._shared, "revise", speller(self._options, store))

    def told(self) -> str:
        """Over how many texts the subject was run."""
        texts = self._reader.made.texts if self._reader is not None and self._reader.made else 0
        return f"the subject was run over {texts:,} texts" if texts else ""


def _say_compared(progress: Progress, reviser: Reviser | Mender) -> None:
    from nxtools.revise.report import lines

    for line in lines(reviser.compared):
        progress.say(line)


@dataclass(frozen=True)
class Mending:
    """The engine's function: what it needs to revise patterns, wherever it runs."""

    pools: Pools

    def __call__(self, jobs: list[Any]) -> list[Any]:
        from nxtools.revise.pattern import revise

        return [revise(job, self.pools.of(job.unit)) for job in jobs]
