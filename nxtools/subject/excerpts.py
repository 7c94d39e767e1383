"""Text becomes documents, contexts and excerpts: the plan of a recording, made before the subject runs.

A plan is a function of the text, the tokenizer and the settings alone. Whatever is chosen by chance is chosen
by hash, so that the choice depends neither on order nor on how the work is cut into shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.arrays import pack, unpack
from nxtools.errors import InputError, UsageError
from nxtools.records import SETS
from nxtools.subject.text import Passage

FEWEST_DOCUMENTS = 20
DOCUMENTS_AT_ONCE = 256
SET_BOUNDS = (0.5, 0.75, 1.0)  # evidence 1/2, validation 1/4, held-out 1/4
PRUNE_FROM = 1 << 16  # excerpts held while few of them are to be drawn

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


def make_plan(passages: Iterable[Passage], tokenize: Tokenize, cut: Cut, *, masked_first: bool) -> Plan:
    """Cuts passages into documents, contexts and excerpts and deals them out.

    Dropped and counted: documents too short for an excerpt, tokens behind a document's last whole excerpt,
    documents whose text was there before, excerpts whose tokens were there before (those of the evidence stay
    rather than those of the other sets). Raises InputError when there are fewer than 20 documents, or none of
    a set.
    """
    found = _Gathered(cut)
    dropped = {"short_documents": 0, "tail_tokens": 0, "duplicate_documents": 0, "duplicate_excerpts": 0}
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
        first = 0
        if cut.windows == "one":
            places = len(ids) - cut.context + 1
            draw = draws(np.array([int(name, 16)], np.uint64), cut.seed, "window")
            first, whole = int(draw[0] % np.uint64(places)), cut.context // cut.excerpt
        else:
            dropped["tail_tokens"] += len(ids) - whole * cut.excerpt
        found.add(name, ids[first : first + whole * cut.excerpt], first)
    if len(found.documents) < FEWEST_DOCUMENTS:
        raise InputError(
            f"{len(found.documents)} documents of {cut.excerpt} tokens or more, and "
            f"{FEWEST_DOCUMENTS} are needed ({dropped['short_documents']} were too short, "
            f"{dropped['duplicate_documents']} duplicates)",
            hint="give more text, --separator LINE where such lines part documents, "
            "or smaller --document-tokens",
        )
    dropped["duplicate_excerpts"] = found.keep_distinct()
    found.prune()
    return _dealt(found, cut, masked_first=masked_first, dropped=dropped)


class _Gathered:
    """Documents cut into excerpts, as they come. Where few are to be drawn, only those few are held."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.documents: list[str] = []
        self.contexts = np.zeros((0, cut.context), np.int32)
        # of each excerpt
        self.context = np.zeros(0, np.int32)
        self.slot = np.zeros(0, np.int32)
        self.document = np.zeros(0, np.int32)
        self.start = np.zeros(0, np.int32)
        self.set = np.zeros(0, np.uint8)
        self.id = np.zeros(0, np.uint64)
        self._names = ("context", "slot", "document", "start", "set", "id")
        self._new: list[dict[str, NDArray[Any]]] = []
        self._count = self._contexts = 0  # with what is new
        self._most = 2 * (cut.draw or 0) + PRUNE_FROM
        self._ids: list[NDArray[np.uint64]] = []  # of all that came, pruned or not

    def add(self, name: str, ids: NDArray[np.int32], first: int) -> None:
        """ids: whole excerpts of a document, `first` the place of the first token."""
        cut = self.cut
        whole, per_context = len(ids) // cut.excerpt, cut.context // cut.excerpt
        padded = np.zeros((-(-whole // per_context), cut.context), np.int32)
        padded.reshape(-1)[: len(ids)] = ids
        number = np.arange(whole, dtype=np.int32)
        names = np.array([_id(row) for row in ids.reshape(whole, -1)], np.uint64)
        self._ids.append(names)
        self._new.append(
            {
                "contexts": padded,
                "context": self._contexts + number // per_context,
                "slot": number % per_context,
                "document": np.full(whole, len(self.documents), np.int32),
                "start": first + number * cut.excerpt,
                "set": np.full(whole, set_of(name, cut.seed), np.uint8),
                "id": names,
            }
        )
        self.documents.append(name)
        self._contexts += len(padded)
        self._count += whole
        if cut.draw is not None and self._count > self._most:
            self.prune()

    def _gather(self) -> None:
        for name in ("contexts", *self._names):
            setattr(self, name, np.concatenate([getattr(self, name), *(new[name] for new in self._new)]))
        self._new = []

    def _keep(self, which: NDArray[np.int64]) -> None:
        for name in self._names:
            setattr(self, name, getattr(self, name)[which])
        used, context = np.unique(self.context, return_inverse=True)
        self.contexts, self.context = self.contexts[used], context.astype(np.int32)
        self._count, self._contexts = len(which), len(used)

    def keep_distinct(self) -> int:
        """Of equal excerpts keep one: of the lowest set, there the first. Returns how many went."""
        self._gather()
        order = np.lexsort((np.arange(len(self.id)), self.set, self.id))
        fresh = np.ones(len(order), bool)
        fresh[1:] = self.id[order][1:] != self.id[order][:-1]
        self._keep(np.sort(order[fresh]))
        every = np.concatenate(self._ids)
        return len(every) - len(np.unique(every))

    def prune(self) -> None:
        """Drop what will not be drawn. Equal excerpts have equal draws: the lowest of all are among these."""
        self._gather()
        if self.cut.draw is None:
            return
        draw = draws(self.id, self.cut.seed, "draw")
        lowest = np.unique(draw)[: self.cut.draw]
        self._keep(np.flatnonzero(draw <= lowest[-1]))
        self._most = max(self._most, 2 * self._count)


def _dealt(found: _Gathered, cut: Cut, *, masked_first: bool, dropped: dict[str, int]) -> Plan:
    for number, name in enumerate(SETS):
        if not (found.set == number).any():
            raise InputError(
                f"no excerpt is left for {name}, and every set needs some",
                hint="give more text or more --excerpts; another --seed deals documents anew",
            )
    spread, pool = draws(found.id, cut.seed, "spread"), draws(found.id, cut.seed, "pool")
    lowest = np.full(len(found.contexts), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, found.context, spread)
    contexts = np.argsort(lowest, kind="stable")
    moved = np.empty(len(contexts), np.int32)
    moved[contexts] = np.arange(len(contexts), dtype=np.int32)
    order = np.lexsort((found.slot, moved[found.context]))
    used, document = np.unique(found.document[order], return_inverse=True)
    return Plan(
        contexts=found.contexts[contexts],
        context=moved[found.context[order]],
        slot=found.slot[order],
        document=document.astype(np.int32),
        start=found.start[order],
        set=found.set[order],
        id=found.id[order],
        priority=(spread[order] >> np.uint64(40)).astype(np.uint32),
        draw=pool[order],
        pool_rank=_pool_ranks(pool[order], found.set[order], cut.pool),
        documents=[found.documents[number] for number in used.tolist()],
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
