"""Embedding: how near an excerpt is to the explanation, as an embedding model sees it.

The excerpt's score is the cosine; AUROC says how often an active excerpt is nearer than a silent one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nxtools.assistant.asking import Asking
from nxtools.assistant.prompts import Prompt, read_prompt
from nxtools.assistant.protocol import Embedding
from nxtools.assistant.vectors import cosine
from nxtools.errors import ModelError
from nxtools.judge.asked import Answered
from nxtools.judge.choosing import Chosen, Item
from nxtools.judge.judge import PROMPTS, Asked, Said
from nxtools.records import Failure
from nxtools.stream import Record


class Nearness:
    """Compares by one assistant's embeddings. Raises ModelError for one that has none."""

    def __init__(self, asking: Asking, prompt: Path | None = None) -> None:
        self.asking = asking
        self.prompt: Prompt = read_prompt(prompt or PROMPTS / "embedding.toml")

    def by(self) -> Record:
        return {
            "simulator": self.asking.name,
            "model": self.asking.identity,
            "prompt": self.prompt.described(),
        }

    def judge(self, chosen: Chosen, explanation: Record, passes: Sequence[Sequence[Item]]) -> Asked:
        (able,) = yield [self.asking.has("embeddings")]
        if able is False:
            hint = "--simulator openai:text-embedding-3-small"
            raise ModelError("has no embeddings", where=self.asking.name, hint=hint)
        items = [item for one in passes for item in one]
        if isinstance(able, Failure) and able.kind != "dry-run":
            return [able for _ in items]
        texts = [self.prompt.fill("query", explanation=str(explanation["text"]))]
        texts += [self.prompt.fill("excerpt", text="".join(chosen.tokens(item.row))) for item in items]
        query, *others = yield [self.asking.embedding(Embedding(text), "judgement") for text in texts]
        said: Said = []
        for other in others:
            failed = next((one for one in (query, other) if isinstance(one, Failure)), None)
            if failed is not None:
                said.append(Failure("score", failed.kind, failed.message))
                continue
            near = cosine(query, other)
            said.append(Answered(near > 0, near))
        return said
