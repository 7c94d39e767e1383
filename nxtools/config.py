"""Where an option's value comes from: flag, `NXTOOLS_…` variable, `nxtools.toml`, default, in this order.

`nxtools.toml` in the working folder has options and commands as they are typed: options at the top are for
every command that has them, those in a table for one command:

    seed = 1
    keep-going = true

    [nx-explain]
    literals = 10
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from nxtools.errors import UsageError

FILE = "nxtools.toml"
PREFIX = "NXTOOLS_"


def variable(option: str) -> str:
    """`allow-errors` as NXTOOLS_ALLOW_ERRORS."""
    return PREFIX + option.upper().replace("-", "_")


def settings(
    command: str, own: Collection[str], commands: Collection[str], of_all: Callable[[], set[str]]
) -> dict[str, Any]:
    """What the file sets for a command (nx-explain, say), by option.

    `own`: the options that it has; `commands`: all that there are; `of_all`: what options these have. Raises
    UsageError for a name that nothing has: a misspelt setting would change a run in silence.
    """
    shared: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, value in _read().items():
        if isinstance(value, dict):
            tables[name] = {option.replace("_", "-"): inner for option, inner in value.items()}
        else:
            shared[name.replace("_", "-")] = value
    for name in tables:
        if name not in commands:
            raise UsageError(f"there is no command {name!r}", where=FILE, hint=", ".join(commands))
    table = tables.get(command, {})
    _all_known(table, set(own), f"{command} has no option")
    if not shared.keys() <= set(own):
        _all_known(shared, of_all(), "no command has an option")
    return {name: value for name, value in shared.items() if name in own} | table


def _read() -> dict[str, Any]:
    path = Path(FILE)
    if not path.is_file():
        return {}
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is not TOML: {error}", where=FILE) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=FILE) from error


def _all_known(named: Collection[str], known: set[str], complaint: str) -> None:
    for name in named:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "options are named as they are typed, without --"
            raise UsageError(f"{complaint} {name!r}", where=FILE, hint=hint)
