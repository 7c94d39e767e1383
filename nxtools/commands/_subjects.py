"""The subject of unit lines, loaded again when something must be asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from nxtools.errors import ModelError

if TYPE_CHECKING:
    from nxtools.store import Store
    from nxtools.subject.load import Subject


class Asked(Protocol):
    """What lines say of their subject."""

    @property
    def subject(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def dtype(self) -> str: ...


def load(options: dict[str, Any], store: Store, asked: Asked, *, speaking: bool = False) -> Subject:
    """The subject that a line names, or the one that the user names, which must be the same. `speaking`: with
    its unembedding. Takes the options subject, device, trust_remote_code and allow_pickle. ModelError."""
    from nxtools.subject.identity import resolve, weights_fingerprint
    from nxtools.subject.load import load_subject
    from nxtools.subject.recording import Remembered

    name = options["subject"] or asked.subject
    allow_pickle = options["allow_pickle"]
    try:
        found = resolve(name, allow_pickle=allow_pickle)
    except ModelError as error:
        if options["subject"]:
            raise
        raise ModelError(f"the subject {name!r} is not found by its name", hint="--subject DIR") from error
    if weights_fingerprint(found.path, Remembered(store), allow_pickle=allow_pickle) != asked.fingerprint:
        hint = "--subject DIR of the one that they were recorded with"
        raise ModelError("is not the subject of these units", where=name, hint=hint)
    return load_subject(
        found.path,
        device=options["device"],
        dtype=asked.dtype,
        module=None if asked.site == "mlp" else asked.site,
        trust_remote_code=options["trust_remote_code"],
        allow_pickle=allow_pickle,
        speaking=speaking,
    )
