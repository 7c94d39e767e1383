"""Where an option's value comes from: flag, `NXTOOLS_…` variable, `nxtools.toml`, default, in this order.

`nxtools.toml` in the working folder holds option names at the top for every command, and a table per command
for one: `seed = 1`, `[explain]`, `literals = 10`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nxtools.errors import InputError

FILE = "nxtools.toml"
PREFIX = "NXTOOLS"


def defaults_for(command: str) -> dict[str, Any]:
    """The options that the file sets for `explain` (of nx-explain), by parameter name."""
    path = Path(FILE)
    if not path.is_file():
        return {}
    import tomllib

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is not TOML: {error}", where=FILE) from error
    shared = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    own = settings.get(command, {})
    return {name.replace("-", "_"): value for name, value in {**shared, **own}.items()}
