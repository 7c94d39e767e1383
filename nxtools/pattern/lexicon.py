"""The texts of a tokenizer's ids, and which ids each atom of a pattern names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.pattern.atoms import CLASSES, LIKENESSES, Atom, Form

Ids = NDArray[np.intp]

# Centred embeddings of two tokens that have nothing to do with each other have a cosine of about
# 0 +- 1/sqrt(dimensions). With few dimensions, several of those deviations would be more than it can be.
ALIKE_AT_MOST = 0.9


class Lexicon:
    """The texts of a tokenizer's ids, looked up by atom.

    Several ids may share a text: they are one token here. Ids without a text (left out, or empty) match
    `anything` only. `embedding`: (ids, dimensions), the subject's own, for `like`. Build it once for many
    patterns: what an atom names is looked up once. Not to be shared between threads.
    """

    def __init__(
        self,
        vocabulary: Mapping[int, str] | Sequence[str],
        embedding: NDArray[np.floating] | None = None,
    ) -> None:
        if isinstance(vocabulary, Mapping):
            vocabulary = [vocabulary.get(id, "") for id in range(max(vocabulary, default=-1) + 1)]
        self.texts = [text or None for text in vocabulary]
        self._by_text: dict[str, list[int]] = {}
        for id, text in enumerate(self.texts):
            if text is not None:
                self._by_text.setdefault(text, []).append(id)
        self._one = np.arange(len(self.texts))
        for ids in self._by_text.values():
            self._one[ids] = ids[-1]
        self._named: dict[Atom, Ids] = {}
        self._directions = None if embedding is None else _directions(embedding)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def has_embedding(self) -> bool:
        return self._directions is not None

    def ids(self, atom: Atom) -> Ids:
        """The ids that `atom` names, ascending. Raises InputError for `like` when there is no embedding."""
        named = self._named.get(atom)
        if named is None:
            named = self._named[atom] = np.array(self._find(atom), dtype=np.intp)
        return named

    def one_per_text(self) -> Ids:
        """(ids,): for each id the one that stands for its text; itself where it has none.

        The last one does: single bytes come first in a vocabulary, and a tokenizer hardly uses those that
        are a token as well.
        """
        return self._one

    def cosines(self, ids: Ids, others: Ids | None = None) -> NDArray[np.float32]:
        """(ids, others): of embeddings, to all where no others are named. InputError without them."""
        if self._directions is None:
            raise InputError("`like` needs the subject's embedding")
        of_others = self._directions if others is None else self._directions[others]
        cosines: NDArray[np.float32] = self._directions[ids] @ of_others.T
        return cosines

    def alike(self, form: Form) -> float:
        """The cosine from which on two tokens are alike."""
        assert self._directions is not None
        return min(LIKENESSES[form] / float(np.sqrt(self._directions.shape[1])), ALIKE_AT_MOST)

    def _find(self, atom: Atom) -> Sequence[int] | Ids:
        exact = self._by_text.get(atom.text, [])
        if atom.form == "token":
            return exact
        if atom.form in LIKENESSES:
            within = self.one_per_text()[: 0 if self._directions is None else len(self._directions)]
            cosines = self.cosines(np.array(exact[-1:], dtype=np.intp), within)
            return np.union1d(exact, np.flatnonzero((cosines >= self.alike(atom.form)).any(axis=0)))
        if atom.form == "starting":
            return [
                id for id, text in enumerate(self.texts) if text is not None and text.startswith(atom.text)
            ]
        if atom.form == "ending":
            return [id for id, text in enumerate(self.texts) if text is not None and text.endswith(atom.text)]
        belongs = CLASSES[atom.text]
        return [id for id, text in enumerate(self.texts) if text is not None and belongs(text)]


def _directions(embedding: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1 around the mean: what all tokens share says nothing about likeness."""
    centred = embedding.astype(np.float32) - embedding.mean(axis=0, dtype=np.float32)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    directions: NDArray[np.float32] = centred / np.maximum(lengths, np.finfo(np.float32).tiny)
    return directions
