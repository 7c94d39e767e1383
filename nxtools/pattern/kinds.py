"""What tokens have in common: the candidates for `like`, `ending`, `starting` and the classes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import CLASSES, Atom, Form
from nxtools.pattern.lexicon import Ids, Lexicon

ENDINGS = (1, 2, 3)  # lengths in characters
BEGINNINGS = (2, 3)
FEWEST = 2  # tokens that a kind must have: one alone is better named
FEW = 4  # where less than one in so many tokens counts, their kinds are faster looked up than all are summed
BLOCK = 1_000  # rows of the likeness matrix at a time

Numbers = NDArray[np.intp]
Floats = NDArray[np.float64]


class Kinds:
    """Candidate kinds of the tokens `ids` (one id for each text), numbered; members are places in `ids`.

    Likenesses have the first `exemplars` tokens, and none without an embedding.
    """

    def __init__(
        self, lexicon: Lexicon, ids: Ids, exemplars: int, likenesses: tuple[Form, ...] = ("like",)
    ) -> None:
        self.lexicon, self.ids, self._likenesses = lexicon, ids, likenesses
        spelled: dict[Atom, list[int]] = {}
        for place, id in enumerate(ids):
            for atom in _spelled(lexicon.texts[id]):
                spelled.setdefault(atom, []).append(place)
        named: dict[Atom, Numbers] = {atom: np.array(places) for atom, places in spelled.items()}
        self._exemplars = ids[:exemplars]
        if lexicon.has_embedding:
            for first in range(0, exemplars, BLOCK):
                block = self._exemplars[first : first + BLOCK]
                for id, cosines in zip(block, lexicon.cosines(block, ids), strict=True):
                    text = lexicon.texts[id]
                    if text is not None:
                        for form in likenesses:
                            named[Atom(form, text)] = np.flatnonzero(cosines >= lexicon.alike(form))
        named = {atom: places for atom, places in named.items() if FEWEST <= len(places) < len(ids)}
        self.atoms = list(named)
        self._number = {atom: number for number, atom in enumerate(self.atoms)}
        self._of_id: dict[int, Numbers] = {}
        lengths = [len(places) for places in named.values()]
        self._members = np.concatenate([*named.values(), np.zeros(0, dtype=np.intp)])
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.intp)])
        by_token = np.argsort(self._members, kind="stable")
        self._kinds = np.repeat(np.arange(len(named)), lengths)[by_token]
        self._token_starts = np.searchsorted(self._members[by_token], np.arange(len(ids) + 1))

    def __len__(self) -> int:
        return len(self.atoms)

    def members(self, kind: int) -> Numbers:
        """Places of the tokens of a kind."""
        return self._members[self._starts[kind] : self._starts[kind + 1]]

    def of_place(self, place: int) -> Numbers:
        """Kinds of the token at a place."""
        return self._kinds[self._token_starts[place] : self._token_starts[place + 1]]

    def of(self, places: Numbers) -> tuple[Numbers, Numbers]:
        """All pairs (index into `places`, kind) of the tokens at `places`."""
        first = self._token_starts[places]
        count = self._token_starts[places + 1] - first
        which = np.repeat(np.arange(len(places)), count)
        within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        return which, self._kinds[first[which] + within]

    def of_id(self, id: int) -> Numbers:
        """Kinds of a token that may be none of `ids`."""
        kinds = self._of_id.get(id)
        if kinds is None:
            atoms = list(_spelled(self.lexicon.texts[id]))
            if self.lexicon.has_embedding:
                cosines = self.lexicon.cosines(np.array([id]))[0, self._exemplars]
                for form in self._likenesses:
                    alike = self._exemplars[cosines >= self.lexicon.alike(form)]
                    atoms += [Atom(form, text) for text in map(self.lexicon.texts.__getitem__, alike) if text]
            found = [self._number[atom] for atom in atoms if atom in self._number]
            kinds = self._of_id[id] = np.array(found, dtype=np.intp)
        return kinds

    def sums(self, values: Floats) -> Floats:
        """(kinds,): the sum of `values` (ids,) over the members of each kind."""
        if not self.atoms:
            return np.zeros(0)
        return np.add.reduceat(values[self._members], self._starts[:-1])

    def sums_of_few(self, rows: Floats) -> Floats:
        """(n, kinds): the same of rows (n, ids), faster where most values are 0."""
        places = np.flatnonzero(rows.any(axis=0))
        if len(places) * FEW > len(self.ids):
            return np.array([self.sums(values) for values in rows])
        which, of = self.of(places)
        return np.array([np.bincount(of, values[places][which], len(self)) for values in rows])


def _spelled(text: str | None) -> Iterable[Atom]:
    """The classes, endings and beginnings of a token."""
    if text is None:
        return
    for name, belongs in CLASSES.items():
        if belongs(text):
            yield Atom("class", name)
    for length in ENDINGS:
        if len(text) >= length and text[-length:].isalpha():
            yield Atom("ending", text[-length:])
    for length in BEGINNINGS:
        if len(text) >= length and text[:length].strip().isalpha():
            yield Atom("starting", text[:length])
