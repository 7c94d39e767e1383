"""nx-connect: which tokens and units a unit is connected with, by the subject's weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.commands._running import engine_or_offline, run_units
from nxtools.commands._subjects import Lazy, subject_options
from nxtools.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nxtools.progress import Progress
    from nxtools.stage import Counts, Engine, Step
    from nxtools.store import Store
    from nxtools.stream import Record
    from nxtools.subject.connecting import Connector
    from nxtools.subject.connections import Connecting, VectorFile
    from nxtools.subject.wiring import Wiring

EXAMPLES = """
nx-connect --subject DIR scored.jsonl > connected.jsonl
nx-connect --tokens 20 --units 5 scored.jsonl | nx-view - -o report.html
nx-connect --vectors sae.safetensors --subject DIR latents.jsonl > connected.jsonl
"""


@command(
    "nx-connect",
    examples=EXAMPLES,
    takes="any unit lines, from nx-top on",
    gives="the same lines with `connections`: tokens and units that a unit is tied to by weights",
)
@inputs_argument
@click.option(
    "--tokens", type=click.IntRange(0), default=10, show_default=True, help="Tokens a list, of each sign."
)
@click.option(
    "--units", type=click.IntRange(0), default=10, show_default=True, help="Units a list, of each sign."
)
@click.option(
    "--vectors",
    metavar="FILE",
    help="Units are directions or latents: their vectors, a row each (.safetensors).",
)
@subject_options
@shared_options
def main(**options: Any) -> int:
    """Say what a unit is connected with by weights: tokens that it promotes and suppresses, tokens that drive
    it, and the units before and behind it that it is tied to most, of both signs.
    """
    from nxtools.subject.connections import VectorFile

    shared = Shared.of("nx-connect", options)
    file = options["vectors"]
    vectors = None if file is None else VectorFile(_arrays(file), file)
    steps: list[_Connect] = []

    def begin(store: Store) -> Callable[[Record], Step]:
        engine = engine_or_offline(shared, "connect", _connector(options, store))
        steps.append(_Connect(engine, options["tokens"], options["units"], vectors))
        return steps[-1].step

    def say(progress: Progress, counts: Counts) -> None:
        counts.failed += sum(step.refused for step in steps)
        progress.say(f"{counts.units:,} units: {counts.described()}")

    return run_units(shared, begin, finish=say)


def _arrays(name: str) -> Any:
    """The tables of a file of vectors."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(Path(name))
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        hint = "--vectors takes .safetensors"
        raise InputError(f"cannot be read: {error}", where=name, hint=hint) from error


class _Connect:
    """What is done with one unit."""

    def __init__(self, engine: Engine, tokens: int, units: int, vectors: VectorFile | None) -> None:
        self.engine, self.tokens, self.units, self.vectors = engine, tokens, units, vectors
        self.refused = 0  # units of which nothing could be asked

    def step(self, record: Record) -> Step:
        from nxtools.stage import Failure, Question
        from nxtools.subject.connections import VERSION

        if record.get("error"):
            return record
        asked = self._asked(record)
        if isinstance(asked, Failure):
            self.refused += 1
            record["connections"] = {"error": asked.record()}
            return record
        question = Question("connect", VERSION, asked.question(), self.engine, asked, kind="connections")
        (answer,) = yield [question]
        by: Record = {"tokens": self.tokens, "units": self.units}
        if asked.vectors is not None:
            by["vectors"] = asked.vectors.space
        found = {"error": answer.record()} if isinstance(answer, Failure) else answer
        record["connections"] = {"by": by, **found}
        return record

    def _asked(self, record: Record) -> Any:
        from nxtools.stage import Failure
        from nxtools.subject.connections import Connecting

        unit = record["unit"]
        name, fingerprint = unit.get("subject"), unit.get("fingerprint")
        if not isinstance(name, str) or not isinstance(fingerprint, str):
            message = "the line does not say which subject the unit is of"
            return Failure("connect", "no-subject", message)
        return Connecting(
            subject=name,
            fingerprint=fingerprint,
            site=str(unit.get("site", "mlp")),
            dtype=str((record.get("recorded") or {}).get("dtype", "float32")),
            layer=unit["layer"],
            index=unit["index"],
            tokens=self.tokens,
            units=self.units,
            vectors=None if self.vectors is None else self.vectors.of(unit["index"]),
        )


def _connector(options: dict[str, Any], store: Store) -> Lazy:
    """The engine that reads the weights; torch is loaded when something is missing."""

    def load(asked: Connecting) -> tuple[Wiring, Sequence[str]]:
        from nxtools.commands import _subjects
        from nxtools.subject.vocabulary import token_texts
        from nxtools.subject.wiring import Wiring

        wiring = Wiring(_subjects.load(options, store, asked, speaking=True))
        return wiring, token_texts(_subjects.tokenizer(options, store, asked))

    def make() -> Connector:
        from nxtools.subject.connecting import Connector

        return Connector(load)

    return Lazy(make)
