"""Sentences in which what a unit reacts to is marked: `Not «all» of them came, «every=6» time`.

Marked words have strength 10, or the one behind `=`; everything else has 0. ↵ is a line break.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nxtools.errors import InputError

# Words and signs with the space in front of them, as most tokenizers have them; long numbers in threes.
TOKEN = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)(?![^\W\d_])| ?[^\W\d_]+| ?\d{1,3}| ?(?:</|\+\+|--|[-+*]=)| ?[^\w\s]| ?_+|\s"
)
MARK = re.compile(r"«([^«»]*?)(?:=(\d+(?:\.\d+)?))?»")
BREAK = "↵"
STRONGEST = 10.0


@dataclass(frozen=True)
class Sentence:
    """A sentence as tokens, with a strength from 0 to 10 for each."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]

    @property
    def peak(self) -> float:
        return max(self.activations, default=0.0)


def read(marked: str) -> Sentence:
    """The sentence that `marked` stands for. InputError where marks do not close, or mark nothing."""
    plain, spans = "", []
    end = 0
    for mark in MARK.finditer(marked):
        plain += marked[end : mark.start()]
        strength = STRONGEST if mark[2] is None else float(mark[2])
        if not mark[1].strip() or strength > STRONGEST:
            raise InputError(f"a mark is empty or stronger than {STRONGEST:g}: {marked}")
        spans.append((len(plain), len(plain) + len(mark[1]), strength))
        plain += mark[1]
        end = mark.end()
    plain = (plain + marked[end:]).replace(BREAK, "\n")
    if "«" in plain or "»" in plain:
        raise InputError(f"a mark is open: {marked}")
    tokens, strengths = [], []
    for found in TOKEN.finditer(plain):
        first = found.end() - len(found[0].lstrip(" "))
        inside = [strength for begin, end, strength in spans if begin <= first < end]
        tokens.append(found[0])
        strengths.append(inside[0] if inside and not found[0].isspace() else 0.0)
    if "".join(tokens) != plain:
        raise InputError(f"this cannot be cut into tokens: {marked}")
    return Sentence(tuple(tokens), tuple(strengths))
