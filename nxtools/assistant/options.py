"""`--with-option key=value`: what an engine may be told, and which of it changes answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nxtools.errors import UsageError


@dataclass(frozen=True)
class Option:
    """An option of an engine. `read` makes a value of what was typed, or raises ValueError."""

    read: Callable[[str], Any]
    meaning: str
    changes_answers: bool = False


def whole(text: str) -> int:
    """A number of things."""
    value = int(text)
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def parsed(given: Mapping[str, str], known: Mapping[str, Option], engine: str) -> dict[str, Any]:
    """The values of the options that were given. UsageError that names what the engine knows."""
    values = {}
    for name, text in given.items():
        if name not in known:
            there = ", ".join(f"{key} ({option.meaning})" for key, option in known.items())
            raise UsageError(f"{engine}: has no option {name!r}", hint=f"it has {there}")
        try:
            values[name] = known[name].read(text)
        except ValueError as error:
            meaning = known[name].meaning
            raise UsageError(f"{engine}: {name}={text}: {error}", hint=meaning) from error
    return values


def changing(values: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Any]:
    """Those that belong to an engine's identity."""
    return {name: value for name, value in values.items() if known[name].changes_answers}
