"""The random pool: a few hundred excerpts of each set that all units of a run share.

Unit lines are too small for it. A line names a blob and the unit's column; the blob says which tokens the
pool has and where its activations lie among the recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from nxtools.arrays import decode_rows, pack, unpack
from nxtools.recordings.layer import Layer
from nxtools.records import SETS

OpenBlob = Callable[[str], memoryview]
Places = NDArray[np.int64]


def pack_tokens(layer: Layer) -> bytes:
    """The pool's tokens and names, excerpts in the pool's order. The same for all layers of a run."""
    corpus, excerpts = layer.corpus, layer.pool.excerpt.tolist()
    return pack(
        {
            "ids": np.stack([corpus.ids(excerpt) for excerpt in excerpts]),
            "counted": np.stack([corpus.counted(excerpt) for excerpt in excerpts]),
            "set": corpus.set[layer.pool.excerpt],
            "excerpt": corpus.id[layer.pool.excerpt],
        },
        {"documents": [corpus.document(excerpt) for excerpt in excerpts]},
    )


def pack_places(tokens: str, vocabulary: str, embedding: str | None, layer: Layer) -> bytes:
    """Where one layer's activations on the pool lie: excerpt i is at `place[i]` of part `source[i]`.

    `vocabulary`, `embedding`: the blobs with every token's text and embedding.
    `sizes`: excerpts of each set in all the text, out of which the pool was drawn.
    """
    facts = {
        "tokens": tokens,
        "vocabulary": vocabulary,
        "embedding": embedding,
        "parts": layer.pool_blobs,
        "sizes": layer.corpus.sizes.tolist(),
    }
    return pack({"source": layer.pool.source, "place": layer.pool.place}, facts)


class Tokens:
    """What the pools of all layers of a run have in common; `digests` tell one run's from another's."""

    def __init__(self, digests: tuple[str, str, str | None], open_blob: OpenBlob) -> None:
        self.digests = digests
        tokens, vocabulary, embedding = digests
        arrays, names = unpack(open_blob(tokens))
        self.documents: list[str] = names["documents"]
        self.ids, self.counted = arrays["ids"], arrays["counted"]
        self.set, self.names = arrays["set"], arrays["excerpt"]
        self.vocabulary: list[str] = orjson.loads(bytes(open_blob(vocabulary)))  # by token id
        self.embedding: NDArray[np.float32] | None = None  # (ids, dimensions)
        if embedding:
            rows, _ = unpack(open_blob(embedding))
            self.embedding = decode_rows(rows["row"], rows["scale"])


class Pool:
    """The pool as later commands see it. Raises InputError (MissingBlob) where a part of it is gone.

    like: that of another layer, whose tokens are taken where they are the same.
    """

    def __init__(self, digest: str, open_blob: OpenBlob, like: Pool | None = None) -> None:
        self.digest = digest
        places, facts = unpack(open_blob(digest))
        digests = facts["tokens"], facts["vocabulary"], facts["embedding"]
        self.tokens: Tokens
        if like is not None and like.tokens.digests == digests:
            self.tokens = like.tokens
        else:
            self.tokens = Tokens(digests, open_blob)
        self.sizes: list[int] = facts["sizes"]
        self.documents, self.vocabulary = self.tokens.documents, self.tokens.vocabulary
        self.embedding = self.tokens.embedding
        self._ids, self._counted = self.tokens.ids, self.tokens.counted
        self._set, self._names = self.tokens.set, self.tokens.names
        self._source, self._place = places["source"], places["place"]
        self._parts = [unpack(open_blob(blob))[0] for blob in facts["parts"]]

    @cached_property
    def _members(self) -> dict[str, NDArray[np.int64]]:
        return {name: np.flatnonzero(self._set == number) for number, name in enumerate(SETS)}

    @cached_property
    def _places(self) -> dict[str, list[tuple[dict[str, NDArray[Any]], Places, Places]]]:
        """By set, of each part its arrays, which of the set's excerpts it has, and where."""
        places = {}
        for name, members in self._members.items():
            source, place = self._source[members], self._place[members]
            mine = [(arrays, np.flatnonzero(source == part)) for part, arrays in enumerate(self._parts)]
            places[name] = [(arrays, rows, place[rows]) for arrays, rows in mine if len(rows)]
        return places

    def ids(self, which: str) -> NDArray[np.int32]:
        """Token ids (excerpts, tokens) of a set's part of the pool."""
        return self._ids[self._members[which]]

    def counted(self, which: str) -> NDArray[np.bool_]:
        """Which positions (excerpts, tokens) count; the others are left out for every unit."""
        return self._counted[self._members[which]]

    def excerpts(self, which: str) -> list[str]:
        """Names of the excerpts of a set's part."""
        return [f"{name:016x}" for name in self._names[self._members[which]].tolist()]

    def documents_of(self, which: str) -> list[str]:
        return [self.documents[member] for member in self._members[which].tolist()]

    @property
    def units(self) -> int:
        """How many have a column."""
        return int(self._parts[0]["row"].shape[0]) if self._parts else 0

    def activations(self, column: int, which: str) -> NDArray[np.float32]:
        """A unit's activations (excerpts, tokens) on a set's part; NaN where a position is left out."""
        places = self._places[which]
        rows = np.empty((sum(len(mine) for _, mine, _ in places), self._ids.shape[1]), np.float32)
        for arrays, mine, at in places:
            rows[mine] = decode_rows(arrays["row"][column, at], arrays["scale"][column, at])
        return rows
