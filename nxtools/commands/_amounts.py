"""Numbers with a unit, as options take them."""

from __future__ import annotations

import re
from collections.abc import Callable

import click


def amount(units: dict[str, float]) -> Callable[[str], float]:
    """Reads a number with a unit, such as 30d or 5G."""

    def number(text: str) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-zA-Z]?)", text)
        if match is None or match[2] not in units:
            raise click.BadParameter(f"{text!r} is not a number with one of the units {', '.join(units)}")
        return float(match[1]) * units[match[2]]

    return number


BYTES = amount({"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12})
