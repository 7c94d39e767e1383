"""The sets of imported excerpts: a text, and what has the same peak, is in one set alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from nxtools.records import PICKS, SETS
from nxtools.stream import Record

PEAK_TOKENS = 8  # as nx-top counts near duplicates
Values = Sequence[float | None]


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits of anything that JSON can hold."""
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]


def peak_of(values: Values) -> int:
    """Where the highest value stands first; 0 where there is none."""
    heights = [float("-inf") if value is None else value for value in values]
    return heights.index(max(heights)) if heights else 0


class Dealer:
    """Excerpts of one unit, each text once."""

    def __init__(self) -> None:
        self._homes: dict[str, str] = {}  # of texts and of peaks
        self._excerpts: dict[str, Record] = {}

    def place(self, tokens: Sequence[str], values: Values, home: str, pick: str, **more: Any) -> str:
        """Takes an excerpt in and returns its id. One that was there keeps its place and its pick.

        home: its set, unless its text, or the eight tokens up to its peak, are in another one already.
        """
        name = digest(tokens, values)
        if name in self._excerpts:
            return name
        text, end = digest(tokens), peak_of(values) + 1
        keys = [text]
        if end >= PEAK_TOKENS:
            keys.append(digest("peak", tokens[end - PEAK_TOKENS : end]))
        home = next((self._homes[key] for key in keys if key in self._homes), home)
        for key in keys:
            self._homes.setdefault(key, home)
        self._excerpts[name] = {
            "id": name,
            "document": text,
            "start": 0,
            "tokens": list(tokens),
            "set": home,
            "pick": pick,
            "rank": 0,
            "probability": None,
            "activations": list(values),
            **more,
        }
        return name

    def like(self, tokens: Sequence[str], values: Values) -> str | None:
        """The id of an excerpt with these tokens, if there is one, best with these values."""
        name = digest(tokens, values)
        if name in self._excerpts:
            return name
        text = digest(tokens)
        return next((one["id"] for one in self._excerpts.values() if one["document"] == text), None)

    def values(self, name: str) -> list[float | None]:
        found: list[float | None] = self._excerpts[name]["activations"]
        return found

    def excerpts(self) -> list[Record]:
        """By set and pick, in the order in which they came; ranked within both."""
        order = sorted(self._excerpts.values(), key=lambda e: (SETS.index(e["set"]), PICKS.index(e["pick"])))
        ranks: dict[tuple[str, str], int] = {}
        for excerpt in order:
            kind = excerpt["set"], excerpt["pick"]
            excerpt["rank"] = ranks.get(kind, 0)
            ranks[kind] = excerpt["rank"] + 1
        return order
