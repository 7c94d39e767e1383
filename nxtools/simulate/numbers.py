"""How likely each number from 0 to 10 is where a simulator wrote one, from its log-probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEVELS = 10

# A number as tokenizers may cut it out of `"12": 7,`, with what stands around it.
_NUMBER = re.compile(r"""[\s:"']*(10|[0-9])[\s,}]*""")
_ENTRY = re.compile(r"""["']?(\d+)["']?\s*[:=]\s*["']?(\d+)(?!\d|\.\d)""")


@dataclass(frozen=True)
class Predicted:
    """One token's prediction: the expected level, and the mass that numbers had (None: nobody said)."""

    level: float
    mass: float | None


def of_row(probabilities: Sequence[float], mass: float) -> Predicted:
    """From a distribution over 0…10."""
    return Predicted(math.fsum(p * level for level, p in enumerate(probabilities)), mass)


def entries(answer: Mapping[str, Any], count: int) -> list[Predicted | None]:
    """The numbers of `{"1":0,"2":7,…}` for so many tokens; None where there is none from 0 to 10.

    Where the answer has log-probabilities, each is the expected value over the numbers that might have stood
    there.
    """
    text = answer["text"]
    tokens = answer.get("tokens") or []
    begins = _begins(tokens, text)
    found: list[Predicted | None] = [None] * count
    for match in _ENTRY.finditer(text):
        number, level = int(match[1]), int(match[2])
        if 1 <= number <= count and level <= LEVELS and found[number - 1] is None:
            place = begins.get(match.start(2))
            expected = None if place is None else _expected(tokens, place)
            found[number - 1] = expected or Predicted(float(level), None)
    return found


def single(answer: Mapping[str, Any]) -> Predicted | None:
    """The number that an answer begins with."""
    tokens = answer.get("tokens") or []
    for place, token in enumerate(tokens):
        if token["text"].strip():
            return _expected(tokens, place) or Predicted(0.0, 0.0)
    match = re.match(r"\s*(10|[0-9])(?!\d|\.\d)", answer["text"])
    return Predicted(float(match[1]), None) if match else None


def _begins(tokens: Sequence[Mapping[str, Any]], text: str) -> dict[int, int]:
    """For each character the token that it is in. Empty when the tokens do not spell the text."""
    joined = "".join(token["text"] for token in tokens)
    at = -(len(joined) - len(joined.lstrip())) + (len(text) - len(text.lstrip()))
    if joined.strip() != text.strip():
        return {}
    inside = {}
    for place, token in enumerate(tokens):
        for _ in token["text"]:
            inside[at] = place
            at += 1
    return inside


def _expected(tokens: Sequence[Mapping[str, Any]], place: int) -> Predicted | None:
    """Expected value of the number that begins in a token.

    Where "10" was written as "1" and "0", the mass on "1" is parted by what came next.
    """
    row = [0.0] * (LEVELS + 1)
    for text, logprob in tokens[place]["logprobs"].items():
        match = _NUMBER.fullmatch(text)
        if match:
            row[int(match[1])] += math.exp(logprob)
    written = _NUMBER.fullmatch(tokens[place]["text"])
    if written is not None and written[1] == "1" and place + 1 < len(tokens):
        following = tokens[place + 1]["logprobs"]
        ten = math.fsum(math.exp(p) for text, p in following.items() if re.fullmatch(r"0[\s,}]*", text))
        row[10] += row[1] * min(ten, 1.0)
        row[1] *= 1.0 - min(ten, 1.0)
    mass = math.fsum(row)
    return of_row([p / mass for p in row], min(mass, 1.0)) if mass > 0 else None
