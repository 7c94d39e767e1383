"""Makes the plan of a recording: cuts documents into contexts and excerpts, and deals them out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.records import SETS
from nxtools.subject.documents import Tokenize, documents
from nxtools.subject.excerpts import Cut, Plan, draws, set_of
from nxtools.subject.text import Passage

FEWEST_DOCUMENTS = 20
PRUNE_FROM = 1 << 16  # excerpts held while few of them are to be drawn


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
    for text, ids in documents(passages, tokenize, cut.document_tokens):
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
        raise _too_few(len(found.documents), cut, dropped)
    dropped["duplicate_excerpts"] = found.keep_distinct()
    found.prune()
    return _dealt(found, cut, masked_first=masked_first, dropped=dropped)


def _too_few(count: int, cut: Cut, dropped: dict[str, int]) -> InputError:
    """Says why there are not enough documents, and what makes more of the same text."""
    short, duplicates = dropped["short_documents"], dropped["duplicate_documents"]
    if not count + short + duplicates:
        return InputError("there is no text", hint=f"{FEWEST_DOCUMENTS} documents are needed, or more")
    least = cut.context if cut.windows == "one" else cut.excerpt
    hint = (
        "give more text; a text file is parted at blank lines, or with --separator LINE at such lines, "
        "and its paragraphs are joined up to --document-tokens"
    )
    if short > count:
        hint = "smaller --excerpt and --context take shorter documents"
    return InputError(
        f"{count} {'document' if count == 1 else 'documents'} of {least} tokens or more, and "
        f"{FEWEST_DOCUMENTS} are needed ({short} were too short, {duplicates} duplicates)",
        hint=hint,
    )


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
