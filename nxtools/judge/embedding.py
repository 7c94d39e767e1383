"""Embedding: how near an excerpt is to the explanation, as an embedding model sees it.

The excerpt's score is the cosine; AUROC says how often an active excerpt is nearer than a silent one.
"""

from __future__ import annotations

from collections.abc import Sequence

from nxtools.assistant.protocol import Embedding
from nxtools.assistant.vectors import cosine
from nxtools.judge.asked import Answered
from nxtools.judge.choosing import Chosen, Item
from nxtools.judge.judge import Asked, Said
from nxtools.judge.measuring import Measuring
from nxtools.records import Failure
from nxtools.stream import Record


class Nearness(Measuring):
    """Compares by one assistant's embeddings. Raises ModelError for one that has none."""

    prompt_file = "embedding.toml"
    ability = "embeddings"
    lacking = "has no embeddings"
    others = "--simulator openai:text-embedding-3-small"

    def judge(self, chosen: Chosen, explanation: Record, passes: Sequence[Sequence[Item]]) -> Asked:
        items = [item for one in passes for item in one]
        if failed := (yield from self.hindrance()):
            return [failed for _ in items]
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
