"""nx-score --method detection, fuzzing and others that ask a judge about excerpts, not about numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._assistants import Assisted, check_unused, typed
from nxtools.commands._base import Shared, family
from nxtools.commands._running import engine_or_offline, run_units
from nxtools.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nxtools.progress import Progress
    from nxtools.stage import Counts, Step
    from nxtools.store import Store
    from nxtools.stream import Record

METHODS = ("detection", "fuzzing", "intruder", "surprisal", "embedding")
OURS = ("active", "each", "together")
NULLS = 25  # units of a layer whose null a language model is asked about

judging_options = family(
    "Judging",
    [
        click.option(
            "--active",
            type=click.FloatRange(0, 1, max_open=True),
            default=0.1,
            show_default=True,
            metavar="SHARE",
            help="A unit is active above this share of its maximum on evidence.",
        ),
        click.option(
            "--each",
            type=click.IntRange(1),
            default=50,
            show_default=True,
            help="At most so many active excerpts, and so many silent ones.",
        ),
        click.option(
            "--together",
            type=click.IntRange(1, 10),
            default=5,
            show_default=True,
            help="Excerpts in one prompt.",
        ),
        click.option(
            "--negatives",
            type=click.Choice(["random", "similar"]),
            default="random",
            show_default=True,
            help="Silent excerpts: random ones, or those on which similar units fire.",
        ),
    ],
)


def check_no_judging() -> None:
    """UsageError when an option was typed that only judges have."""
    for name in typed(*OURS):
        raise UsageError(f"--{name} is for --method {', '.join(METHODS[:-1])} or {METHODS[-1]}")


def run(shared: Shared, options: dict[str, Any]) -> int:
    from nxtools.commands._judged import Judged
    from nxtools.commands._rated import Rated
    from nxtools.commands._transfer import transfer_of

    for name in typed("calibration", "literals"):
        raise UsageError(f"--{name} is for --method correlation")
    if options["method"] == "intruder":
        from nxtools.commands._intruder import Intruder

        judged: Judged = Intruder(shared, options)
    else:
        judged = Judged(shared, options, NULLS)
    transfer, rated = transfer_of(options), Rated(options["ratings"])

    def prepare(units: Iterable[Record]) -> Iterable[Record]:
        return judged.prepare(rated.prepare(units if transfer is None else transfer(units)))

    def finish(progress: Progress) -> None:
        judged.say(progress)
        rated.say(progress)
        if transfer is not None and transfer.without:
            progress.say(transfer.told())

    if options["method"] in ("surprisal", "embedding") and options["simulator"] == "pattern":
        hint = "--simulator llama:FILE.gguf, hf:MODEL or openai:MODEL"
        raise UsageError(f"--method {options['method']} takes a language model", hint=hint)
    for name in typed("simulation", "together", "examples"):
        if options["method"] in ("surprisal", "embedding"):
            raise UsageError(f"--{name} means nothing with --method {options['method']}")
    if options["simulator"] == "pattern":
        check_unused("patterns", "simulation", "together")

        def begin(store: Store) -> Callable[[Record], Step]:
            from nxtools.stage import LocalEngine

            judged.by_pattern(engine_or_offline(shared, "score", LocalEngine(_predicted, batch=64)))
            return judged.step

        def say(progress: Progress, counts: Counts) -> None:
            counts.failed += judged.refused
            progress.say(f"{counts.units:,} units: {counts.described()}")
            finish(progress)

        return run_units(shared, begin, prepare=prepare, each=rated.each, finish=say)

    assisted = Assisted(shared, options, "score", options["simulator"])

    def begin_asking(store: Store) -> Callable[[Record], Step]:
        judged.by_model(assisted.asking(options["simulator"], store))
        return judged.step

    return assisted.run(
        begin_asking,
        unread=lambda: judged.refused + judged.unread,
        told=lambda: f"{judged.unread:,} answers unparseable" if judged.unread else "",
        prepare=prepare,
        each=rated.each,
        also=lambda progress, counts: finish(progress),
    )


def _predicted(jobs: list[Any]) -> list[Any]:
    """What patterns predict of excerpts."""
    from nxtools.simulate.pattern import simulate
    from nxtools.stage import Failure

    found: list[Any] = []
    for job in jobs:
        try:
            found.append(simulate(*job))
        except InputError as error:  # a pattern that needs what is not at hand
            found.append(Failure("score", "no-pattern", str(error)))
    return found
