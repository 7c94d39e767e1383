"""What an assistant model can be asked, whichever engine runs it.

Two things: to complete a prompt, and for a prompt with marked *slots* to say how likely each number from 0
to 10 is at each slot. An assistant is an engine of the loop (`nxtools.stage`): it pulls asks whose payload is
a `Completion` or a `Slots` and answers them in whatever batches suit it. It loads its model, or opens its
connection, when the first ask arrives, so a run that the store answers loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nxtools.stage import Answer, Ask, Failure, Pull

NUMBERS = tuple(str(number) for number in range(11))  # what an activation is written as


@dataclass(frozen=True)
class Message:
    """One turn of a chat; role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Completion:
    """Write on from a prompt: messages for models with a chat template, plain text for base models.

    draw: the number of the sample where temperature is above 0; it is part of the question, so that five
    draws are five answers. grammar, schema: a GBNF grammar or a JSON schema that holds the answer to a form,
    where the engine can.

    A last message of the assistant is continued. Answered by `{"text": …, "finish": "stop" or "length",
    "tokens_in": …, "tokens_out": …}`, and `"tokens": [{"text", "logprobs": {text: …}}, …]` when
    log-probabilities were asked for and the engine has them.
    """

    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    draw: int = 0
    stop: tuple[str, ...] = ()
    grammar: str | None = None
    schema: Mapping[str, Any] | None = None
    logprobs: int = 0


@dataclass(frozen=True)
class Slot:
    """A place in a prompt where a number would stand; `filler` stands there when the prompt is read on."""

    filler: str


@dataclass(frozen=True)
class Number:
    """A number from 0 to 10 that a prompt shows. Where "10" is no token of its own, 10 is written as 9."""

    value: int


Piece = str | Number | Slot


@dataclass(frozen=True)
class Slots:
    """A prompt with slots, in three parts that an engine may share between asks.

    prefix: the same for a whole run (instructions and worked examples). explanation: the same for all
    excerpts of a unit. excerpt: one excerpt, with its slots; it begins with text. Pieces are tokenised one by
    one, so no delimiter merges with a token.

    Answered by `{"probabilities": [[p0 … p10], …], "mass": [m, …], "top": 10}`, one row per slot:
    probabilities renormalised over the numbers, and the mass that the numbers had together before that. Where
    "10" is no token of its own, "top" is 9 and p10 is 0.
    """

    prefix: tuple[str | Number, ...]
    explanation: tuple[str | Number, ...]
    excerpt: tuple[Piece, ...]


@dataclass(frozen=True)
class Passage:
    """How likely a text is behind what stands before it. Nothing is written.

    Answered by `{"logprobs": [l, …]}`, natural logarithms, of every token of the text but the first.
    """

    before: str
    text: str


@dataclass(frozen=True)
class Embedding:
    """A text as a vector: what an embedding model says, or the mean of a language model's last hidden states.

    Answered by `{"embedding": …}`, the vector of length 1 as little-endian float16 in base64.
    """

    text: str


class Assistant(Protocol):
    """An engine with a name and an identity."""

    name: str  # as the user said it: llama:model.gguf

    def identity(self) -> dict[str, Any]:
        """What answers depend on besides the ask: a digest of weights, or base URL and model; settings.

        Never a key, and nothing that needs the model to be loaded.
        """
        ...

    def has(self, ability: str) -> bool:
        """Whether the engine can do this: "slots" (distributions at prompt positions), "logprobs" (of what it
        writes), "passages" (log-probabilities of a given text), "embeddings", "grammar", "schema", "chat".
        May load the model or ask the server; the answer is remembered.
        """
        ...

    def count_tokens(self, text: str) -> int | None:
        """How many tokens a text takes, None where that cannot be known."""
        ...

    def context(self) -> int | None:
        """How many tokens prompt and answer may have together, None where that cannot be known."""
        ...

    def answer(self, pull: Pull) -> Iterator[list[tuple[Ask, Answer | Failure]]]: ...
