"""What engines that run a model in this process have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import orjson

from nxtools.assistant import slots
from nxtools.assistant.chat import Chat
from nxtools.assistant.options import Option, changing, parsed
from nxtools.assistant.protocol import Completion, Embedding, Passage, Slots
from nxtools.assistant.tokens import Tokens
from nxtools.errors import ModelError
from nxtools.stage import Answered, Ask, Failure, Pull

if TYPE_CHECKING:
    from nxtools.store import Store

Decode = Callable[[Sequence[int]], str]  # tokens to text, as it stands in running text

Embedded = tuple[Ask, tuple[int, ...]]  # an `Embedding` that was asked for, as tokens

PULL = 128  # asks taken at once: some thousands of tokens for every one that a call has room for


@dataclass
class Effort:
    """What an engine did: models loaded, tokens read and written."""

    loads: int = 0
    evaluated: int = 0
    written: int = 0


@dataclass(frozen=True)
class Reading:
    """A `Slots` or a `Passage` that was asked for, as tokens. targets: of a passage, what comes behind each
    place that is read."""

    ask: Ask
    prompt: slots.Prompt
    targets: tuple[int, ...] | None = None

    def nothing(self, top: int) -> dict[str, Any]:
        """The answer where nothing is read."""
        return slots.nothing(top) if self.targets is None else slots.passage(())


@dataclass(frozen=True)
class Writing:
    """A `Completion` that was asked for, as tokens."""

    ask: Ask
    wanted: Completion
    ids: tuple[int, ...]

    @property
    def seed(self) -> int:
        """32 bits from the prompt and the number of the draw."""
        data = np.array([self.wanted.draw, *self.ids], "<i4").tobytes()
        return int.from_bytes(hashlib.sha256(data).digest()[:4], "little")


@dataclass(frozen=True)
class Tokenizer:
    """What is known of a model without its weights. context: the tokens that it was made for, if it says."""

    tokens: Tokens
    chat: Chat
    context: int | None


class LocalAssistant(ABC):
    """`nxtools.assistant.protocol.Assistant` for models in this process.

    digest: of the weights. store: remembers what is known of the model, so that a run which the store answers
    does not even load a tokenizer.
    """

    engine: ClassVar[str]
    known_options: ClassVar[Mapping[str, Option]]
    abilities: ClassVar[frozenset[str]]

    def __init__(self, name: str, digest: str, store: Store, options: Mapping[str, str]) -> None:
        self.name = f"{self.engine}:{name}"
        self.effort = Effort()
        self.options = parsed(options, self.known_options, self.engine)
        self._digest = digest
        self._store = store

    def identity(self) -> dict[str, Any]:
        settings = changing(self.options, self.known_options)
        return {"engine": self.engine, "weights": self._digest, "slots": slots.VERSION, **settings}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self._load_tokenizer()

    @cached_property
    def _facts(self) -> dict[str, Any]:
        name = f"assistant {self.engine} {slots.VERSION} {self._digest}"
        if known := self._store.recall(name):
            facts: dict[str, Any] = orjson.loads(known)
            return facts
        facts = {
            "slots": self.tokenizer.tokens.has_numbers,
            "chat": self.tokenizer.chat.template is not None,
            "context": self.tokenizer.context,
        }
        self._store.remember(name, orjson.dumps(facts).decode())
        return facts

    def has(self, ability: str) -> bool:
        if ability in ("slots", "chat"):
            return bool(self._facts[ability])
        return ability in self.abilities or ability in ("passages", "embeddings")

    def count_tokens(self, text: str) -> int | None:
        return len(self.tokenizer.tokens.piece(text))

    def context(self) -> int | None:
        made_for: int | None = self._facts["context"]
        return self.options.get("n_ctx", made_for)

    def answer(self, pull: Pull) -> Iterator[Answered]:
        """Raises ModelError, before the model is loaded, when none of what is asked first fits the context;
        a single prompt that is too long is that answer's failure."""
        answered = False
        while asks := pull(PULL):
            reading: list[Reading] = []
            writing: list[Writing] = []
            embedding: list[Embedded] = []
            too_long: list[tuple[Ask, str]] = []
            for ask in asks:
                complaint = self._take(ask, reading, writing, embedding)
                if complaint:
                    too_long.append((ask, complaint))
            if too_long and not answered and not reading and not writing and not embedding:
                hint = "fewer examples, shorter excerpts, or --with-option n_ctx=N where the model can"
                raise ModelError(too_long[0][1], where=self.name, hint=hint)
            answered = True
            if too_long:
                yield [(ask, Failure(_stage(ask), "context", said)) for ask, said in too_long]
            if reading:
                yield from self._read(reading)
            if writing:
                yield from self._write(writing)
            if embedding:
                yield from self._embed(embedding)

    def _take(
        self, ask: Ask, reading: list[Reading], writing: list[Writing], embedding: list[Embedded]
    ) -> str:
        """Puts an ask with those of its kind; returns what is wrong with one that is too long."""
        payload, context = ask.payload, self.context()
        if isinstance(payload, Slots):
            if not self.has("slots"):
                raise ModelError("has no token of its own for each number", where=self.name)
            prompt = slots.lay_out(payload, self.tokenizer.tokens)
            if context is not None and prompt.size > context:
                return f"the prompt takes {prompt.described()}; the context has {context:,}"
            reading.append(Reading(ask, prompt))
        elif isinstance(payload, Passage):
            return self._take_passage(ask, payload, reading)
        elif isinstance(payload, Embedding):
            ids = self.tokenizer.tokens.begin + self.tokenizer.tokens.piece(payload.text)
            if not ids or (context is not None and len(ids) > context):
                return f"the text takes {len(ids):,} tokens; the context has {context or 0:,}"
            embedding.append((ask, ids))
        elif isinstance(payload, Completion):
            held = {"grammar": payload.grammar, "schema": payload.schema}
            if any(form and not self.has(ability) for ability, form in held.items()):
                raise ModelError("cannot hold an answer to a grammar or a schema", where=self.name)
            ids = self.tokenizer.chat.ids(payload.messages)
            if context is not None and len(ids) + payload.max_tokens > context:
                return (
                    f"the prompt takes {len(ids):,} tokens and the answer up to {payload.max_tokens:,}; "
                    f"the context has {context:,}"
                )
            writing.append(Writing(ask, payload, ids))
        else:
            raise TypeError(f"{self.engine} cannot answer {type(payload).__name__}")
        return ""

    def _take_passage(self, ask: Ask, payload: Passage, reading: list[Reading]) -> str:
        tokens, context = self.tokenizer.tokens, self.context()
        ids = tokens.piece(payload.text)
        places = tuple(range(len(ids) - 1))
        prompt = slots.Prompt(tokens.begin, tokens.piece(payload.before), ids[:-1], places)
        if context is not None and prompt.size > context:
            return f"the prompt takes {prompt.described()}; the context has {context:,}"
        reading.append(Reading(ask, prompt, ids[1:]))
        return ""

    @abstractmethod
    def _load_tokenizer(self) -> Tokenizer: ...

    @abstractmethod
    def _read(self, reading: list[Reading]) -> Iterator[Answered]:
        """Answers Slots that fit the context."""

    @abstractmethod
    def _write(self, writing: list[Writing]) -> Iterator[Answered]:
        """Answers Completions that fit the context."""

    @abstractmethod
    def _embed(self, embedding: list[Embedded]) -> Iterator[Answered]:
        """Answers Embeddings that fit the context."""


def _stage(ask: Ask) -> str:
    """The command's part of an operation's name: simulate of simulate.all-at-once."""
    return ask.question.op.partition(".")[0]


class Text:
    """An answer as it is written, token by token, until it stops. `decode` makes text of tokens."""

    def __init__(self, writing: Writing, decode: Decode) -> None:
        self._writing = writing
        self._decode = decode
        self._ids: list[int] = []
        self._said: list[dict[str, Any]] = []
        self.finish = ""

    def add(self, token: int, *, ends: bool, logits: slots.Floats | None = None) -> bool:
        """Takes the next token, and the logits (vocabulary,) it was chosen from where they are asked for;
        True when it was the last one."""
        wanted = self._writing.wanted
        if ends:
            self.finish = "stop"
            return True
        self._ids.append(token)
        if logits is not None:
            likely = top_logprobs(logits, wanted.logprobs, self._decode)
            self._said.append({"text": self._decode([token]), "logprobs": likely})
        if wanted.stop and any(stop in self._decode(self._ids) for stop in wanted.stop):
            self.finish = "stop"
        elif len(self._ids) >= wanted.max_tokens:
            self.finish = "length"
        return bool(self.finish)

    def answer(self) -> dict[str, Any]:
        text = self._decode(self._ids)
        cuts = [place for place in map(text.find, self._writing.wanted.stop) if place >= 0]
        made: dict[str, Any] = {
            "text": text[: min(cuts, default=len(text))],
            "finish": self.finish,
            "tokens_in": len(self._writing.ids),
            "tokens_out": len(self._ids),
        }
        if self._writing.wanted.logprobs:
            made["tokens"] = self._said
        return made


def top_logprobs(logits: slots.Floats, wanted: int, decode: Decode) -> dict[str, float]:
    """The likeliest `wanted` next tokens by their text; logits (vocabulary,)."""
    values = logits.astype(np.float64) - logits.max()
    values -= np.log(np.exp(values).sum())
    found: dict[str, float] = {}
    for token in np.argsort(-values, kind="stable")[:wanted]:
        found.setdefault(decode([int(token)]), round(float(values[token]), slots.DIGITS))
    return found


def shared_beginning(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all prompts begin with; at least one token of each is left."""
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    same = next((place for place in range(most) if first[place] != last[place]), most)
    return first[:same]
