"""nx-score --method ablation: what is lost when a simulation stands in for the unit in the subject."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._assistants import check_unused, typed
from nxtools.commands._base import Shared, family
from nxtools.commands._running import engine_or_offline, run_units
from nxtools.commands._scoring import SOMETIMES, Scoring
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nxtools.progress import Progress
    from nxtools.stage import Answered, Counts, Pull, Step
    from nxtools.store import Store
    from nxtools.stream import Record
    from nxtools.subject.ablating import Ablator
    from nxtools.subject.replacing import Replacement

EFFECTS = ("mean", "zero")  # what stands in the unit's place

OURS = ("subject", "device", "dtype", "effects", "plot", "trust_remote_code", "allow_pickle")

ablation_options = family(
    "Ablation",
    [
        click.option(
            "--subject", metavar="DIR|HUB_ID", help="The model under study  [default: by its name]."
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "float16", "bfloat16"]),
            help="Numbers that the subject computes with  [default: as it was recorded].",
        ),
        click.option(
            "--effects",
            default="mean",
            show_default=True,
            help="Put what silencing the unit by its mean or zero does on the line; or none.",
        ),
        click.option("--plot", metavar="FILE", help="Draw it against the correlation (.svg, .png or .pdf)."),
        click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model."),
        click.option("--allow-pickle", is_flag=True, help="Load weights from .bin files."),
    ],
)


def check_no_ablation() -> None:
    """UsageError when an option was typed that only ablation has."""
    for name in typed(*OURS):
        raise UsageError(f"--{name.replace('_', '-')} is for --method ablation")


def run(shared: Shared, options: dict[str, Any]) -> int:
    from nxtools.commands._ablating import Ablation
    from nxtools.commands._pools import Pools
    from nxtools.score.ablation_summary import AblationSummary

    check_unused("ablation", "simulation")
    if options["simulator"] != "pattern":
        hint = "nx-simulate --sets held-out,validation --simulator … | nx-score --method ablation"
        raise UsageError("ablation scores simulations that the lines have", hint=hint)
    effects = _effects(options["effects"])
    plot = _plot_file(options["plot"])
    scoring = Scoring(options)
    pools = Pools(shared.command, shared.cache, shared.cache_mode, options["bulk"])
    summary = AblationSummary((*scoring.wanted, *SOMETIMES))
    made: list[Ablation] = []
    engines: list[_Ablator] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        engines.append(_Ablator(options, store))
        engine = engine_or_offline(shared, "score", engines[-1])
        calibration = options["calibration"] or "linear"
        one = Ablation(
            engine,
            pools,
            scoring.wanted,
            options["literals"],
            calibration,
            effects,
            options["dtype"],
            summary,
        )
        made.append(one)
        return made[-1].step

    def say(progress: Progress, counts: Counts) -> None:
        counts.failed += sum(one.refused for one in made)
        if summary.layers():
            for line in summary.lines():
                progress.say(line)
        progress.say(
            f"{counts.units} units; {counts.computed} replacements computed, {counts.from_store} from the "
            f"store, {counts.failed} failed{''.join(engine.told() for engine in engines)}"
        )
        scoring.say(progress)
        if plot is not None:
            from nxtools.score.ablation_plot import plot as draw

            draw(summary.points, plot)

    return run_units(shared, begin, prepare=scoring.prepare, each=scoring.each, finish=say)


def _effects(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if names == ("none",):
        return ()
    if not set(names) <= set(EFFECTS):
        raise UsageError(f"--effects takes mean, zero, mean,zero or none, not {text!r}")
    return names


def _plot_file(name: str | None) -> Path | None:
    from nxtools.score.ablation_plot import FORMATS

    if name is None:
        return None
    if Path(name).suffix not in FORMATS:
        raise UsageError(f"--plot takes a name that ends in {', '.join(FORMATS)}, not {name!r}")
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib", hint="pip install 'nxtools[plot]'")
    return Path(name)


class _Ablator:
    """The engine. torch is not loaded before something is missing."""

    def __init__(self, options: dict[str, Any], store: Store) -> None:
        self._options, self._store = options, store
        self._engine: Ablator | None = None

    def told(self) -> str:
        """How many forward passes it took."""
        if self._engine is None:
            return ""
        passes = self._engine.passes
        return f"; {passes['original']:,} original and {passes['restarted']:,} restarted passes"

    def answer(self, pull: Pull) -> Iterator[Answered]:
        if self._engine is None:
            from nxtools.commands._subjects import load
            from nxtools.subject.ablating import Ablator
            from nxtools.subject.patch import Patcher

            def patcher(job: Replacement) -> Patcher:
                return Patcher(load(self._options, self._store, job, speaking=True))

            self._engine = Ablator(patcher)
        return self._engine.answer(pull)
