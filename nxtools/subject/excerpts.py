"""The plan of a recording: documents, contexts and excerpts, settled before the subject runs.

A plan is a function of the text, the tokenizer and the settings alone. Whatever is chosen by chance is chosen
by hash, so that the choice depends neither on order nor on how the work is cut into shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.arrays import pack, unpack
from nxtools.errors import UsageError
from nxtools.subject.text import Passage

SET_BOUNDS = (0.5, 0.75, 1.0)  # evidence 1/2, validation 1/4, held-out 1/4


@dataclass(frozen=True)
class Cut:
    """How text is cut into what the subject sees and what is kept.

    context, excerpt: tokens; the excerpt's divide the context's.
    windows: "all" non-overlapping contexts of a document, or "one" at a place drawn by hash, as in the paper.
    draw: how many excerpts to keep, drawn by hash; None keeps all.
    document_tokens: paragraphs of one file are joined until a document has at least so many tokens.
    keep_first: whether the first position of a context counts, where no BOS token stands in front of it.
    pool: random excerpts per set (evidence, validation, held-out) that all units share.
    """

    context: int = 64
    excerpt: int = 64
    windows: str = "all"
    draw: int | None = None
    document_tokens: int = 1024
    keep_first: bool = False
    seed: int = 0
    pool: tuple[int, int, int] = (400, 200, 200)

    def __post_init__(self) -> None:
        if self.excerpt < 2:
            raise UsageError("an excerpt of one token shows nothing", hint="make --excerpt 2 or more")
        if self.context < 1 or self.context % self.excerpt:
            raise UsageError(
                f"a context of {self.context} tokens cannot be cut into excerpts of {self.excerpt}",
                hint="make --context a multiple of --excerpt",
            )

    def question(self) -> dict[str, Any]:
        return {**asdict(self), "pool": list(self.pool)}


@dataclass(frozen=True)
class Plan:
    """S excerpts in K contexts of D documents.

    Contexts stand in the order of their excerpts' priorities: any run of them is then a random sample of the
    text, and the first excerpts that fall into a bin of the spread are mostly the ones that stay there.
    """

    contexts: NDArray[np.int32]  # (K, context) token ids; a document's last context may end in zeros
    context: NDArray[np.int32]  # (S,) row of `contexts`, rising
    slot: NDArray[np.int32]  # (S,) which excerpt of its context
    document: NDArray[np.int32]  # (S,) row of `documents`
    start: NDArray[np.int32]  # (S,) first token's place in the document
    set: NDArray[np.uint8]  # (S,) index into SETS
    id: NDArray[np.uint64]  # (S,) beginning of the sha256 of the token ids
    priority: NDArray[np.uint32]  # (S,) 24 bits by hash: the lowest are drawn into `spread`
    draw: NDArray[np.uint64]  # (S,) by hash: the lowest of a set are its random pool
    pool_rank: NDArray[np.int32]  # (S,) place in the random pool of its set, -1 outside
    documents: list[str]
    excerpt: int
    masked_first: bool  # the first position of every context is left out
    dropped: dict[str, int]  # what was left out, by reason

    @property
    def size(self) -> int:
        return len(self.id)

    def ids(self, which: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Token ids (n, excerpt) of the excerpts at `which`."""
        by_excerpt = self.contexts.reshape(len(self.contexts), -1, self.excerpt)
        ids: NDArray[np.int32] = by_excerpt[self.context[which], self.slot[which]]
        return ids

    def counted(self, which: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which positions (n, excerpt) of the excerpts at `which` are not left out."""
        counted = np.ones((len(which), self.excerpt), bool)
        counted[:, 0] = (self.slot[which] > 0) | (not self.masked_first)
        return counted

    def to_bytes(self) -> bytes:
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return pack(arrays, {name: value for name, value in vars(self).items() if name not in arrays})

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Plan:
        arrays, facts = unpack(data)
        values: dict[str, Any] = {**arrays, **facts}
        return cls(**values)


def text_digest(passages: Iterable[Passage]) -> str:
    """One digest of all the text in its order and of where it is cut; file names do not enter."""
    digest = hashlib.sha256()
    for passage in passages:
        text = passage.text.encode("utf-8")
        digest.update(b"%d %d\n" % (passage.continues, len(text)))
        digest.update(text)
    return digest.hexdigest()


def excerpt_name(identifier: int) -> str:
    return f"{identifier:016x}"


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64-bit numbers that look independent of each other and uniform (the finaliser of SplitMix64)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draws(names: NDArray[np.uint64], seed: int, purpose: str) -> NDArray[np.uint64]:
    """A uniform number by hash for each name; numbers for different seeds or purposes are independent."""
    salt = int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:8], "little")
    return mix(mix(names) ^ np.uint64(salt))


def set_of(document: str, seed: int) -> int:
    """Which of SETS a document belongs to, by hash of the seed and the digest of its text."""
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{document}".encode()).digest()[:8], "little") / 2**64
    return next(place for place, bound in enumerate(SET_BOUNDS) if draw < bound)
