"""Excerpts laid out for patterns to run on: where tokens, spellings, likenesses and classes stand in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import ANYTHING, Atom
from nxtools.pattern.lexicon import Ids, Lexicon
from nxtools.pattern.sentence import Context

Positions = NDArray[np.intp]


class Text:
    """Excerpts (E, T) laid out in one row: where an atom stands is looked up once for many patterns.

    `vocabulary`: the text of each id, or a Lexicon made of it, which `like` needs, with the subject's
    embedding. Every row stands alone: what came before its first token is not known.
    """

    def __init__(
        self, ids: NDArray[np.integer], vocabulary: Lexicon | Mapping[int, str] | Sequence[str]
    ) -> None:
        self.lexicon = vocabulary if isinstance(vocabulary, Lexicon) else Lexicon(vocabulary)
        self.shape, self.ids, self.width = ids.shape, ids.ravel(), ids.shape[1]
        self.vocabulary = max(len(self.lexicon), int(ids.max(initial=-1)) + 1)
        self._positions: dict[Atom, Positions] = {}

    @property
    def size(self) -> int:
        return len(self.ids)

    def named(self, atom: Atom) -> Ids:
        """Ids of an atom; `anything` also takes those that have no text. InputError for `like` without an
        embedding."""
        if atom.form == "class" and atom == ANYTHING:
            return np.arange(self.vocabulary)
        return self.lexicon.ids(atom)

    def positions(self, atom: Atom) -> Positions:
        """Where an atom stands."""
        found = self._positions.get(atom)
        if found is None:
            found = self._positions[atom] = np.flatnonzero(self._among(self.ids, atom))
        return found

    def after(self, context: Context) -> Positions:
        """The positions that `context` stands right before."""
        last = self.positions(context[-1])
        last = last[(last + 1) % self.width != 0]
        found: Positions = last[self.preceded(context[:-1], last)] + 1
        return found

    def preceded(self, context: Context, positions: Positions) -> NDArray[np.bool_]:
        """(positions,): which of them `context` stands right before, in the same excerpt."""
        found: NDArray[np.bool_] = positions % self.width >= len(context)
        for back, atom in enumerate(reversed(context), start=1):
            found &= self._among(self.ids[positions - back], atom)
        return found

    def _among(self, ids: NDArray[np.integer], atom: Atom) -> NDArray[np.bool_]:
        named = self.named(atom)
        if len(named) == 1:
            return np.asarray(ids == named[0])
        mask = np.zeros(self.vocabulary, dtype=bool)
        mask[named] = True
        among: NDArray[np.bool_] = mask[ids]
        return among
