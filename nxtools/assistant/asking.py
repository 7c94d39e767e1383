"""What commands ask an assistant, as questions of the loop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from nxtools.assistant.protocol import Assistant, Completion, Embedding, Number, Passage, Piece, Slot, Slots
from nxtools.stage import Answered, Engine, Failure, LocalEngine, Pull, Question

VERSION = 2  # of the questions: raise it when an engine would answer differently
ABILITIES = 3  # version of the question what an engine can do
CHARACTERS_PER_TOKEN = 4  # about, in English


class Asking:
    """An assistant, and who answers in its place where it must not be asked (offline, in a dry run)."""

    def __init__(self, assistant: Assistant, instead: Engine | None = None) -> None:
        self.assistant = assistant
        self._engine: Engine = instead or assistant
        self._abilities: Engine = instead or LocalEngine(
            lambda names: [assistant.has(name) for name in names], batch=1
        )
        self._identity: dict[str, Any] | None = None
        self._digests: dict[tuple[Piece, ...], str] = {}

    @property
    def identity(self) -> dict[str, Any]:
        if self._identity is None:
            self._identity = self.assistant.identity()
        return self._identity

    @property
    def name(self) -> str:
        """The assistant's name in records: no place on this machine."""
        engine, _, model = self.assistant.name.partition(":")
        here = model.startswith(("/", "./", "../", "~"))
        return f"{engine}:{model.rstrip('/').rpartition('/')[2]}" if here else self.assistant.name

    def complete(self, payload: Completion, kind: str) -> Question:
        fields = {
            "assistant": self.identity,
            "messages": [[message.role, message.content] for message in payload.messages],
            "temperature": payload.temperature,
            "max_tokens": payload.max_tokens,
            "draw": payload.draw,
            "stop": list(payload.stop),
            "grammar": payload.grammar,
            "schema": payload.schema,
            "logprobs": payload.logprobs,
        }
        return Question("assistant.complete", VERSION, fields, self._engine, payload, kind=kind)

    def slots(self, payload: Slots, kind: str) -> Question:
        fields = {
            "assistant": self.identity,
            "prefix": self._digest(payload.prefix),
            "explanation": [_field(piece) for piece in payload.explanation],
            "excerpt": [_field(piece) for piece in payload.excerpt],
        }
        return Question("assistant.slots", VERSION, fields, self._engine, payload, kind=kind)

    def passage(self, payload: Passage, kind: str) -> Question:
        fields = {"assistant": self.identity, "before": payload.before, "text": payload.text}
        return Question("assistant.passage", VERSION, fields, self._engine, payload, kind=kind)

    def embedding(self, payload: Embedding, kind: str) -> Question:
        fields = {"assistant": self.identity, "text": payload.text}
        return Question("assistant.embedding", VERSION, fields, self._engine, payload, kind=kind)

    def _digest(self, prefix: tuple[Piece, ...]) -> str:
        """A prefix is long, and the same in all questions of a run."""
        if prefix not in self._digests:
            self._digests[prefix] = hashlib.sha256(repr(prefix).encode("utf-8", "replace")).hexdigest()
        return self._digests[prefix]

    def has(self, ability: str) -> Question:
        """Answered by true or false. A question like any other: a second run need not try it out again."""
        fields = {"assistant": self.identity, "ability": ability}
        return Question("assistant.has", ABILITIES, fields, self._abilities, ability, kind="ability")


def _field(piece: Piece) -> Any:
    if isinstance(piece, Slot):
        return {"slot": piece.filler}
    return piece.value if isinstance(piece, Number) else piece


class DryRun:
    """Answers nothing; counts what would have been asked: `calls`, and about how many tokens each way.

    Of an API, the draws of one prompt are one call.
    """

    def __init__(self) -> None:
        self.calls = self.tokens_in = self.tokens_out = 0
        self._drawn: set[int] = set()

    def answer(self, pull: Pull) -> Iterator[Answered]:
        while asks := pull(64):
            for ask in asks:
                self._count(ask.payload, ask.question.fields.get("assistant") or {})
            yield [(ask, Failure("assistant", "dry-run", "not asked: this is a dry run")) for ask in asks]

    def _count(self, payload: Any, who: Mapping[str, Any]) -> None:
        if isinstance(payload, Completion):
            self.tokens_out += payload.max_tokens
            if who.get("engine") == "openai" and payload.temperature:
                prompt = hash((payload.messages, payload.max_tokens))
                if prompt in self._drawn:
                    return
                self._drawn.add(prompt)
            self.calls += 1
            characters = sum(len(message.content) for message in payload.messages)
            self.tokens_in += -(-characters // CHARACTERS_PER_TOKEN)
        elif isinstance(payload, Slots):
            self.calls += 1
            pieces = (*payload.prefix, *payload.explanation, *payload.excerpt)
            characters = sum(len(piece) if isinstance(piece, str) else 1 for piece in pieces)
            self.tokens_in += -(-characters // CHARACTERS_PER_TOKEN)
        elif isinstance(payload, Embedding):
            self.calls += 1
            self.tokens_in += -(-len(payload.text) // CHARACTERS_PER_TOKEN)
        elif isinstance(payload, Passage):
            self.calls += 1
            self.tokens_in += -(-len(payload.before + payload.text) // CHARACTERS_PER_TOKEN)
