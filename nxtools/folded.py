"""Unit lines whose excerpts stay bytes until somebody looks at them.

Excerpts are nine tenths of a line. Most commands pass them on as they came, score with a quarter of them, and
on a second run need no more than their digest.

Lines are cut where a key begins or ends, and a key is recognised by its quotes: inside of a string they have
a backslash before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from nxtools.stream import Record, dump, parsed

_KEY = b'"excerpts":'
_OPEN = b'{"id":"'
_FIRST = b"[" + _OPEN
_BETWEEN = b"}," + _OPEN
_SET = b'"set":"'
_IDS, _TOKENS, _BEHIND_TOKENS, _ACTIVATIONS = b'"ids":[', b',"tokens":[', b'],"set":"', b',"activations":['
_INTEGERS = b"0123456789,"
_NUMBERS = _INTEGERS + b".-+eEnul"  # and null
# The first thing behind an array of objects that may end the excerpts: the next field of the line, the end of
# the line, or what is neither for sure.
_HALF = re.compile(rb"\\u[dD]")
_BEHIND = re.compile(rb'\}\](?:(,"[\w-]+":)|\}|,?\s|,")')


@dataclass(frozen=True)
class Columns:
    """Excerpts whose tokens nobody has asked for: ids and activations, those of all excerpts in a row."""

    excerpts: list[Record]  # what else they say
    lengths: list[int]
    ids: list[int]
    activations: list[float | None]


class Folded:
    """The excerpts of a line, in the bytes in which they came."""

    def __init__(self, raw: bytes, column: int) -> None:
        """raw: the JSON array, with its brackets; column: the bytes before it in the line."""
        self.raw = raw
        self.place = column, column + len(raw)  # from where to where in the line
        self.sound = False  # whether these bytes are known to hold excerpts

    @cached_property
    def all(self) -> list[Record]:
        """Everything in the array. InputError when the bytes are no JSON."""
        padding = b" " * (self.place[0] - len(_KEY) - 1)  # so that the error names the line's own column
        found: list[Record] = parsed(b"%b{%b%b}" % (padding, _KEY, self.raw))["excerpts"]
        return found

    def of(self, which: str) -> list[Record] | None:
        """The excerpts of a set; None when the bytes do not show which they are."""
        if self.spans is None:
            return None
        begin, end = self.spans.get(which, (0, 0))
        try:
            found: list[Record] = orjson.loads(b"[%b]" % self.raw[begin:end])
        except orjson.JSONDecodeError:
            return None
        return found

    def columns(self, which: str) -> Columns | None:
        """The excerpts of a set without their tokens, which are most of what there is to read.

        None unless the bytes are sound and lie as nx-top prints them.
        """
        if not self.sound or self.spans is None:
            return None
        begin, end = self.spans.get(which, (0, 0))
        pieces = self.raw[begin + len(_OPEN) : end - 1].split(_BETWEEN) if end else []
        cut = [_cut(piece) for piece in pieces]
        whole = [each for each in cut if each is not None]
        if len(whole) < len(cut):
            return None
        try:
            excerpts = orjson.loads(b"[%b]" % b",".join(others for others, _, _ in whole))
            ids = orjson.loads(b"[%b]" % b",".join(ids for _, ids, _ in whole))
            activations = orjson.loads(b"[%b]" % b",".join(values for _, _, values in whole))
        except orjson.JSONDecodeError:
            return None
        lengths = [ids.count(b",") + 1 for _, ids, _ in whole]
        return Columns(excerpts, lengths, ids, activations)

    @cached_property
    def spans(self) -> dict[str, tuple[int, int]] | None:
        """From where to where the excerpts of each set reach.

        None when sets are mixed, or an excerpt does not say its set exactly once, or has no ids.
        """
        spans: dict[str, tuple[int, int]] = {}
        end, last = 0, ""
        for piece in self.raw[len(_FIRST) : -len(b"}]")].split(_BETWEEN):
            begin, end = end + 1, end + len(_BETWEEN) + len(piece)
            _, _, rest = piece.partition(_SET)
            if not rest or _SET in rest or b'"ids":[' not in piece:
                return None
            name = rest[: rest.index(b'"')].decode("utf-8", "replace")
            if name != last and name in spans:
                return None
            spans[name] = spans.get(name, (begin, 0))[0], end
            last = name
        return spans


def _cut(excerpt: bytes) -> tuple[bytes, bytes, bytes] | None:
    """An excerpt from its id on, cut into everything else as an object, its ids, and its activations."""
    ids = excerpt.find(_IDS)
    tokens = excerpt.find(_TOKENS, ids)
    behind = excerpt.find(_BEHIND_TOKENS, tokens)
    last = excerpt.rfind(_ACTIVATIONS)
    if not 0 <= ids < tokens < behind < last or not excerpt.endswith(b"]"):
        return None
    numbers = excerpt[ids + len(_IDS) : tokens - 1]
    values = excerpt[last + len(_ACTIVATIONS) : -1]
    if not numbers or numbers.translate(None, _INTEGERS) or not values or values.translate(None, _NUMBERS):
        return None
    others = b"%b%b%b}" % (_OPEN, excerpt[:ids], excerpt[behind + len(b"],") : last])
    return others, numbers, values


def folded(line: bytes) -> Record:
    """A unit line as an object, its excerpts Folded where that is safe. InputError as of `parsed`."""
    begin = line.find(_KEY + _FIRST)
    behind = _BEHIND.search(line, begin) if begin >= 0 else None
    if behind is None or not (behind[1] or behind.end() == len(line)):
        return parsed(line)
    begin, end = begin + len(_KEY), behind.start() + len(b"}]")
    raw = line[begin:end]
    if _HALF.search(raw):  # perhaps half a character, which is never passed on
        return parsed(line)
    try:
        record = orjson.loads(line[:begin] + b"null" + line[end:])
    except orjson.JSONDecodeError:  # they were not the unit's own excerpts, or there is more that is wrong
        return parsed(line)
    if not isinstance(record, dict) or record.get("excerpts", begin) is not None:
        return parsed(line)
    record["excerpts"] = Folded(raw, begin)
    return record


def unfolded(record: Record) -> list[Record]:
    """The excerpts of a unit line, which has them as a list from now on: for whoever adds some."""
    if isinstance(record["excerpts"], Folded):
        record["excerpts"] = record["excerpts"].all
    found: list[Record] = record["excerpts"]
    return found


def check_folded(record: Record) -> None:
    """InputError when folded excerpts are no JSON, which could not be passed on."""
    excerpts = record.get("excerpts")
    if isinstance(excerpts, Folded) and not excerpts.sound:
        try:
            orjson.loads(excerpts.raw)
        except orjson.JSONDecodeError:
            _ = excerpts.all
        excerpts.sound = True


def checked(
    step: Callable[[Record], Generator[Any, Any, Record]],
) -> Callable[[Record], Generator[Any, Any, Record]]:
    """A step that sees to it that excerpts nobody looked at can be passed on."""

    def sound(record: Record) -> Generator[Any, Any, Record]:
        done = yield from step(record)
        check_folded(done)
        return done

    return sound


def written(record: Record) -> list[bytes]:
    """The line of a record, in pieces; folded excerpts are printed as they came."""
    excerpts = record.get("excerpts")
    if not isinstance(excerpts, Folded):
        return [dump(record)]
    fields = list(record.items())
    place = list(record).index("excerpts")
    before, behind = dump(dict(fields[:place]))[:-2], dump(dict(fields[place + 1 :]))[1:]
    first, last = b"," if place else b"", b"," if place + 1 < len(fields) else b""
    return [before, first, _KEY, excerpts.raw, last, behind]
