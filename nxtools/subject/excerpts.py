"""Text becomes documents, contexts and excerpts: the plan of a recording, made before the subject runs.

A plan is a function of the text, the tokenizer and the settings alone. Whatever is chosen by chance is chosen
by hash, so that the choice depends neither on order nor on how the work is cut into shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.arrays import pack, unpack
from nxtools.errors import InputError, UsageError
from nxtools.records import SETS
from nxtools.subject.text import Passage

FEWEST_DOCUMENTS = 20
RECORDING_VERSION = 1  # raise it when the same activations would leave other bytes behind
DOCUMENTS_AT_ONCE = 256
SET_BOUNDS = (0.5, 0.75, 1.0)  # evidence 1/2, validation 1/4, held-out 1/4

Tokenize = Callable[[Sequence[str]], list[list[int]]]


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
        if self.excerpt < 1 or self.context % self.excerpt:
            raise UsageError(
                f"a context of {self.context} tokens cannot be cut into excerpts of {self.excerpt}",
                hint="make --context a multiple of --excerpt",
            )

    def question(self) -> dict[str, Any]:
        return {**asdict(self), "pool": list(self.pool)}


@dataclass(frozen=True)
class Plan:
    """S excerpts in K contexts of D documents. Excerpts are in the order of the text."""

    contexts: NDArray[np.int32]  # (K, context) token ids; a document's last context may end in zeros
    context: NDArray[np.int32]  # (S,) row of `contexts`
    slot: NDArray[np.int32]  # (S,) which excerpt of its context
    document: NDArray[np.int32]  # (S,) row of `documents`
    start: NDArray[np.int32]  # (S,) first token's place in the document
    set: NDArray[np.uint8]  # (S,) index into SETS
    id: NDArray[np.uint64]  # (S,) beginning of the sha256 of the token ids
    priority: NDArray[np.uint32]  # (S,) 24 bits by hash: the lowest are drawn into `spread`
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

    def to_bytes(self) -> bytes:
        names = [
            f.name for f in fields(self) if f.name not in ("documents", "excerpt", "masked_first", "dropped")
        ]
        facts = {
            "documents": self.documents,
            "excerpt": self.excerpt,
            "masked_first": self.masked_first,
            "dropped": self.dropped,
        }
        return pack({name: getattr(self, name) for name in names}, facts)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Plan:
        arrays, facts = unpack(data)
        return cls(**{**arrays, **facts})


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


def mix(values: NDArray[np.uint64], stream: int) -> NDArray[np.uint64]:
    """Independent uniform 64-bit numbers for the same values in each stream (the finaliser of SplitMix64)."""
    z = values + np.uint64((stream * 0x9E3779B97F4A7C15) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def set_of(document: str, seed: int) -> int:
    """Which of SETS a document belongs to, by hash of the seed and the digest of its text."""
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{document}".encode()).digest()[:8], "little") / 2**64
    return next(place for place, bound in enumerate(SET_BOUNDS) if draw < bound)


def make_plan(passages: Iterable[Passage], tokenize: Tokenize, cut: Cut, *, masked_first: bool) -> Plan:
    """Cuts passages into documents, contexts and excerpts and deals them out.

    Dropped and counted: documents too short for an excerpt, tokens behind a document's last whole excerpt,
    documents whose text was there before, excerpts whose tokens were there before (those of the evidence stay
    rather than those of the other sets). Raises InputError when fewer than 20 documents are left.
    """
    dropped = {"short_documents": 0, "tail_tokens": 0, "duplicate_documents": 0, "duplicate_excerpts": 0}
    contexts: list[NDArray[np.int32]] = []
    rows: list[tuple[int, int, int, int]] = []  # context, slot, document, start
    documents: list[str] = []
    seen: set[str] = set()
    for text, ids in _documents(passages, tokenize, cut.document_tokens):
        name = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
        if name in seen:
            dropped["duplicate_documents"] += 1
            continue
        seen.add(name)
        whole = len(ids) // cut.excerpt
        if not whole or (cut.windows == "one" and len(ids) < cut.context):
            dropped["short_documents"] += 1
            continue
        if cut.windows == "one":
            places = len(ids) - cut.context + 1
            first = int(mix(np.array([int(name, 16)], np.uint64), cut.seed + 101)[0] % np.uint64(places))
            ids, whole = ids[first : first + cut.context], cut.context // cut.excerpt
        else:
            first = 0
            dropped["tail_tokens"] += len(ids) - whole * cut.excerpt
        per_context = cut.context // cut.excerpt
        padded = np.zeros((-(-whole // per_context), cut.context), np.int32)
        padded.reshape(-1)[: whole * cut.excerpt] = ids[: whole * cut.excerpt]
        for k in range(whole):
            rows.append(
                (len(contexts) + k // per_context, k % per_context, len(documents), first + k * cut.excerpt)
            )
        contexts.extend(padded)
        documents.append(name)
    if len(documents) < FEWEST_DOCUMENTS:
        raise InputError(
            f"{len(documents)} documents of {cut.excerpt} tokens or more, and {FEWEST_DOCUMENTS} are needed "
            f"({dropped['short_documents']} were too short, {dropped['duplicate_documents']} duplicates)",
            hint="give more text, --separator LINE where such lines part documents, "
            "or smaller --document-tokens",
        )
    table = np.array(rows, np.int32).reshape(-1, 4)
    sets = np.array([set_of(name, cut.seed) for name in documents], np.uint8)[table[:, 2]]
    tokens = np.stack(contexts).reshape(len(contexts), -1, cut.excerpt)[table[:, 0], table[:, 1]]
    names = np.array([_id(row) for row in tokens], np.uint64)
    first_of_id = _first_of_each(names, sets)
    dropped["duplicate_excerpts"] = len(names) - len(first_of_id)
    kept = first_of_id
    if cut.draw is not None and cut.draw < len(kept):
        drawn = np.argsort(mix(names[kept], cut.seed + 211), kind="stable")[: cut.draw]
        kept = np.sort(kept[drawn])
    table, sets, names = table[kept], sets[kept], names[kept]
    used, context = np.unique(table[:, 0], return_inverse=True)
    return Plan(
        contexts=np.stack(contexts)[used],
        context=context.astype(np.int32),
        slot=table[:, 1].copy(),
        document=table[:, 2].copy(),
        start=table[:, 3].copy(),
        set=sets,
        id=names,
        priority=(mix(names, cut.seed + 307) >> np.uint64(40)).astype(np.uint32),
        pool_rank=_pool_ranks(mix(names, cut.seed + 401), sets, cut.pool),
        documents=documents,
        excerpt=cut.excerpt,
        masked_first=masked_first,
        dropped=dropped,
    )


def _documents(
    passages: Iterable[Passage], tokenize: Tokenize, enough: int
) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """(text, token ids) of documents: passages that may continue are joined until they hold enough tokens."""
    texts: list[str] = []
    for text in _joined(passages, tokenize, enough):
        texts.append(text)
        if len(texts) == DOCUMENTS_AT_ONCE:
            yield from _tokenized(texts, tokenize)
            texts = []
    yield from _tokenized(texts, tokenize)


def _tokenized(texts: list[str], tokenize: Tokenize) -> Iterator[tuple[str, NDArray[np.int32]]]:
    if texts:
        for text, ids in zip(texts, tokenize(texts), strict=True):
            yield text, np.array(ids, np.int32)


def _joined(passages: Iterable[Passage], tokenize: Tokenize, enough: int) -> Iterator[str]:
    """Texts of documents. What is left at the end of a file joins the document before it."""
    run: list[str] = []
    for passage in passages:
        if not passage.continues and run:
            yield from _join_run(run, tokenize, enough)
            run = []
        run.append(passage.text)
    yield from _join_run(run, tokenize, enough)


def _join_run(run: list[str], tokenize: Tokenize, enough: int) -> Iterator[str]:
    if len(run) <= 1:
        yield from run
        return
    document: list[str] = []
    tokens = 0
    held: list[str] | None = None  # the last full document, until we know that it has a successor
    for first in range(0, len(run), DOCUMENTS_AT_ONCE):
        part = run[first : first + DOCUMENTS_AT_ONCE]
        for text, ids in zip(part, tokenize(part), strict=True):
            document.append(text)
            tokens += len(ids)
            if tokens >= enough:
                if held is not None:
                    yield "\n\n".join(held)
                held, document, tokens = document, [], 0
    if held is not None or document:
        yield "\n\n".join([*(held or []), *document])


def _id(row: NDArray[np.int32]) -> int:
    return int.from_bytes(hashlib.sha256(row.astype("<i4").tobytes()).digest()[:8], "big")


def _first_of_each(ids: NDArray[np.uint64], sets: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Places of the excerpts that stay when equal ones are dropped: of the lowest set, there the first."""
    order = np.lexsort((np.arange(len(ids)), sets, ids))
    fresh = np.ones(len(ids), bool)
    fresh[1:] = ids[order][1:] != ids[order][:-1]
    return np.sort(order[fresh])


def _pool_ranks(
    draws: NDArray[np.uint64], sets: NDArray[np.uint8], sizes: Sequence[int]
) -> NDArray[np.int32]:
    """Places in the pool: the excerpts with the lowest draws of each set, the lowest first."""
    ranks = np.full(len(draws), -1, np.int32)
    for which, size in zip(range(len(SETS)), sizes, strict=True):
        members = np.flatnonzero(sets == which)
        chosen = members[np.argsort(draws[members], kind="stable")[:size]]
        ranks[chosen] = np.arange(len(chosen))
    return ranks
