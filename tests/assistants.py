"""An assistant that answers by script, and units made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nxtools.assistant.protocol import Completion, Slots
from nxtools.stage import Answered, Failure, Loop, Pull
from nxtools.store import Store

Record = dict[str, Any]


class Scripted:
    """Answers by a function of the payload; remembers what it was asked."""

    def __init__(self, answer: Callable[[Any], Any], abilities: Iterable[str] = ("chat",)) -> None:
        self.name = "scripted:model"
        self.script = answer
        self.abilities = set(abilities)
        self.asked: list[Completion | Slots] = []
        self.tried: list[str] = []

    def identity(self) -> Record:
        return {"engine": "scripted"}

    def has(self, ability: str) -> bool:
        self.tried.append(ability)
        return ability in self.abilities

    def count_tokens(self, text: str) -> int | None:
        return None

    def context(self) -> int | None:
        return None

    def answer(self, pull: Pull) -> Iterator[Answered]:
        while asks := pull(16):
            self.asked += [ask.payload for ask in asks]
            yield [(ask, self.script(ask.payload)) for ask in asks]


def said(text: str, **more: Any) -> Record:
    return {"text": text, "tokens_in": 10, "tokens_out": 5, "finish": "stop", **more}


def failing(kind: str = "http-500") -> Failure:
    return Failure("assistant", kind, "made up")


def run(step: Callable[[Record], Any], units: list[Record], store: Store) -> list[Record]:
    return list(Loop(iter(units), step, store))


def excerpt(
    which: str, pick: str, pairs: list[tuple[str, float | None]], *, rank: int = 0, vocabulary: list[str]
) -> Record:
    """An excerpt from pairs of token and activation; ids are places in the vocabulary."""
    for token, _ in pairs:
        if token not in vocabulary:
            vocabulary.append(token)
    return {
        "id": f"{which}-{pick}-{rank}",
        "document": f"{which}-{pick}-{rank}",
        "start": 0,
        "set": which,
        "pick": pick,
        "rank": rank,
        "probability": None,
        "ids": [vocabulary.index(token) for token, _ in pairs],
        "tokens": [token for token, _ in pairs],
        "activations": [value for _, value in pairs],
    }


def unit(
    rows: list[tuple[str, str, list[tuple[str, float | None]]]], sign: str = "+", index: int = 0
) -> Record:
    """A unit line with excerpts (set, pick, pairs)."""
    vocabulary: list[str] = []
    excerpts = [
        excerpt(which, pick, pairs, rank=rank, vocabulary=vocabulary)
        for rank, (which, pick, pairs) in enumerate(rows)
    ]
    return {
        "kind": "unit",
        "v": 1,
        "unit": {"subject": "s", "fingerprint": "f", "site": "mlp", "layer": 0, "index": index, "sign": sign},
        "stats": {},
        "excerpts": excerpts,
    }
