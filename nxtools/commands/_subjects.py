"""The subject of unit lines, loaded again when something must be asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import family
from nxtools.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nxtools.stage import Answered, Pull
    from nxtools.store import Store
    from nxtools.subject.asked import OfSubject
    from nxtools.subject.load import Subject
    from nxtools.subject.reading import Reader
    from nxtools.subject.spelling import Speller
    from nxtools.subject.twin import Twin


subject_options = family(
    "The subject",
    [
        click.option(
            "--subject", metavar="DIR|HUB_ID", help="The model under study  [default: by its name]."
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
        click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model."),
        click.option("--allow-pickle", is_flag=True, help="Load weights from .bin files (tensors only)."),
    ],
)


def load(options: dict[str, Any], store: Store, asked: OfSubject, *, speaking: bool = False) -> Subject:
    """The subject that a line names, or the one that the user names, which must be the same; a twin is made
    of its subject again. `speaking`: with its unembedding. options: subject_options. ModelError."""
    from nxtools.subject.load import load_subject

    path, twin = _located(options, store, asked)
    subject = load_subject(
        path,
        device=options["device"],
        dtype=asked.dtype,
        module=None if asked.site == "mlp" else asked.site,
        trust_remote_code=options["trust_remote_code"],
        allow_pickle=options["allow_pickle"],
        speaking=speaking,
    )
    if twin is not None:
        twin.take_over(subject.model, subject.speaker)
    return subject


def _located(options: dict[str, Any], store: Store, asked: OfSubject) -> tuple[Path, Twin | None]:
    """That subject's folder, and which twin of it is meant."""
    from nxtools.subject.identity import resolve, weights_fingerprint
    from nxtools.subject.recording import Remembered
    from nxtools.subject.twin import subject_of

    called, twin = subject_of(asked.subject)
    name = options["subject"] or called
    allow_pickle = options["allow_pickle"]
    try:
        found = resolve(name, allow_pickle=allow_pickle)
    except ModelError as error:
        if options["subject"]:
            raise
        raise ModelError(f"the subject {name!r} is not found by its name", hint="--subject DIR") from error
    weights = weights_fingerprint(found.path, Remembered(store), allow_pickle=allow_pickle)
    if (weights if twin is None else twin.fingerprint(weights)) != asked.fingerprint:
        what = "of these units" if twin is None else f"whose {twin.kind} twin these units are of"
        hint = "--subject DIR of the one that they were recorded with"
        raise ModelError(f"is not the subject {what}", where=name, hint=hint)
    return found.path, twin


class Lazy:
    """An engine that is made, and what it needs imported, when the first question comes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.made: Any = None

    def answer(self, pull: Pull) -> Iterator[Answered]:
        self.made = self.made or self._make()
        return iter(self.made.answer(pull))


def reader(options: dict[str, Any], store: Store, stage: str = "revise") -> Lazy:
    """Runs the subject over texts; `made.texts` says over how many."""

    def make() -> Reader:
        from nxtools.subject.reading import Reader

        return Reader(lambda reading: load(options, store, reading), stage)

    return Lazy(make)


def tokenizer(options: dict[str, Any], store: Store, asked: OfSubject) -> Any:
    """The tokenizer beside the subject's weights. ModelError."""
    from nxtools.subject.load import load_tokenizer

    path, _ = _located(options, store, asked)
    return load_tokenizer(path, trust_remote_code=options["trust_remote_code"])


def speller(options: dict[str, Any], store: Store, stage: str = "revise") -> Lazy:
    """Spells texts as the subject does."""

    def make() -> Speller:
        from nxtools.subject.spelling import Speller

        return Speller(lambda spelling: tokenizer(options, store, spelling), stage)

    return Lazy(make)
