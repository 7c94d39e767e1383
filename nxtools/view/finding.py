"""A few units of many: by name, by chance, or by score.

Files are read once and not kept. A line's `unit` stands at its front and is read alone where the line is
written as ours are, so that one unit of many gigabytes is found at the speed of reading.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeVar

import orjson

from nxtools.errors import InputError, located
from nxtools.folded import folded
from nxtools.records import check_unit
from nxtools.stream import Record, chunks, decompressed, lines, opened, shown
from nxtools.view.explained import current
from nxtools.view.scores import main_figure, scores

_FRONT = re.compile(rb'\{"kind":"unit","v":\d+,"unit":(\{[^{}]*\})')
_NAME = re.compile(r"(?:(.+)/)?(\d+):(\d+)", re.ASCII)

Seen = TypeVar("Seen")
Line = tuple[str, bytes]  # `file:line` for messages, and its bytes


@dataclass(frozen=True)
class Wanted:
    """A unit as people name it: `2:41`, or `mlp/2:41` where sites differ, as in the report's addresses."""

    layer: int
    index: int
    site: str | None = None

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """ValueError for what names no unit."""
        match = _NAME.fullmatch(text.strip())
        if match is None:
            raise ValueError(text)
        return cls(int(match[2]), int(match[3]), match[1])

    def __str__(self) -> str:
        return f"{self.site}/{self.layer}:{self.index}" if self.site else f"{self.layer}:{self.index}"

    def matches(self, unit: Record) -> bool:
        same = unit.get("layer") == self.layer and unit.get("index") == self.index
        site, subject = str(unit.get("site", "")), str(unit.get("fingerprint", ""))[-8:]
        return same and (self.site is None or self.site in (site, f"{subject}/{site}"))


def record(line: Line) -> Record:
    """InputError, with its place, for what is no unit."""
    where, data = line
    with located(where):
        found = folded(data)
        check_unit(found)
    return found


def unit_of(line: Line) -> Record:
    """The `unit` of a line, from its front where that can be. InputError for what is no unit."""
    match = _FRONT.match(line[1])
    if match is not None:
        with contextlib.suppress(orjson.JSONDecodeError):
            front: Record = orjson.loads(match[1])
            return front
    whole: Record = record(line)["unit"]
    return whole


def refuse(error: InputError) -> None:
    raise error


class Search:
    """The lines of some files, read when a method is called, and once.

    InputError when one cannot be read or ends within a line, and for what `on_bad` does not put up with.
    `layers`: of the units that `named` has seen.
    """

    def __init__(self, names: Iterable[str], on_bad: Callable[[InputError], None] = refuse) -> None:
        self._names = names
        self._on_bad = on_bad
        self.layers: set[int] = set()

    def named(self, wanted: Iterable[Wanted]) -> dict[Wanted, list[Line]]:
        """The lines of each: several where subjects, sites or signs have units of the same name."""
        kept: dict[Wanted, list[Line]] = {one: [] for one in wanted}
        for line, unit in self._each(unit_of):
            self.layers.add(unit["layer"])
            for one, of_one in kept.items():
                if one.matches(unit):
                    of_one.append(line)
        return kept

    def drawn(self, count: int) -> list[Line]:
        """So many by chance, each as likely as any other."""
        kept: list[Line] = []
        for seen, (line, _) in enumerate(self._each(unit_of), 1):
            if len(kept) < count:
                kept.append(line)
            elif (place := random.randrange(seen)) < count:
                kept[place] = line
        return kept

    def ranked(self, count: int, *, best: bool) -> list[Line]:
        """Those whose current explanation scores highest, or lowest; those without a score never."""
        scored = ((value, line) for line, value in self._each(_score) if value is not None)
        choose = heapq.nlargest if best else heapq.nsmallest
        return [line for _, line in choose(count, scored, key=itemgetter(0))]

    def _each(self, seen: Callable[[Line], Seen]) -> Iterator[tuple[Line, Seen]]:
        for name in self._names:
            with opened(name) as file:
                for come in lines(decompressed(chunks(file), name), name):
                    for number, data in come:
                        line = f"{shown(name)}:{number}", data
                        try:
                            found = seen(line)
                        except InputError as error:
                            self._on_bad(error)
                        else:
                            yield line, found


def _score(line: Line) -> float | None:
    """The main figure of the first score that has one."""
    figures = (main_figure(score) for score in scores(current(record(line)) or {}))
    return next((figure["value"] for figure in figures if figure and figure["value"] is not None), None)
