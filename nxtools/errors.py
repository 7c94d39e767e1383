"""What can go wrong, by what a user can do about it. Each class carries its exit status.

Status 1 is not among them: it says that the output is complete and has error records in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class NxError(Exception):
    """An error that is reported in one line: what is wrong, and in brackets what to do."""

    exit_status = 70

    def __init__(self, message: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{hint}"


class UsageError(NxError):
    """The options do not fit together."""

    exit_status = 2


class InputError(NxError):
    """The input cannot be read: malformed, cut short, or naming what is not there."""

    exit_status = 3


class OutputError(NxError):
    """The output cannot be written: a full disk, a folder that is not there."""

    exit_status = 3


class ModelError(NxError):
    """A model or an API cannot be used."""

    exit_status = 4


class WorkerError(NxError):
    """A process that worked for this one died."""


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Puts the place on InputErrors that are raised inside and have none."""
    try:
        yield
    except InputError as error:
        error.where = error.where or where
        raise
