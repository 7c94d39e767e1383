"""Prompts as files that a user can read and replace: TOML, with `{{name}}` where something is put in.

What is put in is never searched for names again, so excerpts may hold braces. The worked examples stand in
the file as well, each excerpt on one line: tokens divided by `|`, their level behind `=` where it is not 0.

    [[examples]]
    explanation = "words for parts of a ship"
    excerpts = ["She| scrubbed| the| deck=10| from| bow=8| to| stern=9"]
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nxtools.errors import UsageError

_NAME = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")
_LEVEL = re.compile(r"(.*)=(10|[0-9])", re.DOTALL)


@dataclass(frozen=True)
class Leveled:
    """An excerpt as prompts show it: tokens, and a level from 0 to 10 for each."""

    tokens: tuple[str, ...]
    levels: tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """A worked example. silent: excerpts on which the unit does not fire. switch: from which token on a
    simulation shows numbers. before, tested: of revisions, the explanation that is mended, what tests it."""

    explanation: str
    excerpts: tuple[Leveled, ...]
    silent: tuple[Leveled, ...]
    switch: int
    before: str = ""
    tested: tuple[Leveled, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A prompt file: its texts by name (`views.activations`), its examples, its name and digest."""

    name: str
    digest: str
    texts: Mapping[str, str]
    examples: tuple[Example, ...]
    temperature: float
    max_tokens: int
    stop: tuple[str, ...]

    def fill(self, text: str, /, **values: object) -> str:
        """One of the texts with values put in. UsageError for a text or a name that is not there."""
        if text not in self.texts:
            raise UsageError(f"the prompt has no {text!r}", where=self.name)

        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                known = ", ".join(f"{{{{{name}}}}}" for name in sorted(values))
                raise UsageError(f"{match[0]} means nothing in {text!r}", where=self.name, hint=known)
            return str(values[match[1]])

        return _NAME.sub(value, self.texts[text])

    def described(self) -> dict[str, str]:
        """What records say of it."""
        return {"name": self.name, "sha256": self.digest[:16]}


def read_prompt(path: Path, *, examples: int | None = None) -> Prompt:
    """Reads a prompt file, with so many of its examples. Raises UsageError that names the file."""
    try:
        data = path.read_bytes()
        found = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is not TOML: {error}", where=str(path)) from error
    try:
        worked = tuple(_example(one) for one in found.pop("examples", []))
        numbers = float(found.pop("temperature", 0.0)), int(found.pop("max_tokens", 100))
        stop = tuple(map(str, found.pop("stop", [])))
        texts = dict(_texts(found))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"is no prompt: {error!r}", where=str(path), hint="see docs/assistants.md"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    return Prompt(path.stem, digest, texts, worked[:examples], *numbers, stop)


def _texts(table: Mapping[str, Any], under: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += _texts(value, f"{under}{name}.")
        elif isinstance(value, str):
            found.append((under + name, value))
        else:
            raise TypeError(f"{under}{name} is not a text")
    return found


def _example(table: Mapping[str, Any]) -> Example:
    return Example(
        str(table["explanation"]),
        tuple(leveled(text) for text in table["excerpts"]),
        tuple(leveled(text) for text in table.get("silent", ())),
        int(table.get("switch", 0)),
        str(table.get("before", "")),
        tuple(leveled(text) for text in table.get("tested", ())),
    )


def leveled(text: str) -> Leveled:
    """An excerpt from one line: `She| scrubbed| the| deck=10`."""
    tokens, levels = [], []
    for part in text.split("|"):
        match = _LEVEL.fullmatch(part)
        tokens.append(match[1] if match else part)
        levels.append(int(match[2]) if match else 0)
    return Leveled(tuple(tokens), tuple(levels))


def visible(token: str) -> str:
    """A token on one line: a tab or a line's end inside it would look like the prompt's own."""
    return token.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
