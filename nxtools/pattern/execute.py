"""Run a pattern on tokens: the level of the rule that says most about each position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.pattern.atoms import CLASSES, SPECIFICITY, Atom
from nxtools.pattern.sentence import FULL, Pattern, Rule

Mask = NDArray[np.bool_]


class Lexicon:
    """The texts of a tokenizer's ids, and which ids each atom of a pattern names.

    Several ids may share a text; ids that the vocabulary leaves out match `anything` only. Build it once
    for many patterns: what an atom names is looked up once. Not to be shared between threads.
    """

    def __init__(self, vocabulary: Mapping[int, str] | Sequence[str]) -> None:
        if isinstance(vocabulary, Mapping):
            self.texts = [vocabulary.get(id) for id in range(max(vocabulary, default=-1) + 1)]
        else:
            self.texts = list(vocabulary)
        self._named: dict[Atom, NDArray[np.intp]] = {}

    @cached_property
    def _by_text(self) -> dict[str, list[int]]:
        ids: dict[str, list[int]] = {}
        for id, text in enumerate(self.texts):
            if text is not None:
                ids.setdefault(text, []).append(id)
        return ids

    def ids(self, atom: Atom) -> NDArray[np.intp]:
        """The ids that `atom` names, ascending."""
        named = self._named.get(atom)
        if named is None:
            named = self._named[atom] = np.array(self._find(atom), dtype=np.intp)
        return named

    def _find(self, atom: Atom) -> list[int]:
        if atom.form == "token":
            return self._by_text.get(atom.text, [])
        if atom.form == "starting":
            return [
                id for id, text in enumerate(self.texts) if text is not None and text.startswith(atom.text)
            ]
        if atom.form == "ending":
            return [id for id, text in enumerate(self.texts) if text is not None and text.endswith(atom.text)]
        if atom.form == "class":
            belongs = CLASSES[atom.text]
            return [id for id, text in enumerate(self.texts) if text is not None and belongs(text)]
        raise InputError(f"{atom} needs the subject's embedding")


def execute(
    pattern: Pattern, ids: NDArray[np.integer], vocabulary: Lexicon | Mapping[int, str] | Sequence[str]
) -> NDArray[np.float32]:
    """What `pattern` predicts for excerpts: float32 (E, T), as a share of the unit's maximum (-1 to 1).

    `ids`: (E, T) token ids of excerpts. `vocabulary`: the text of each id, or a Lexicon made of it. Every row
    stands alone: what came before its first token is not known, so no context reaches over it.
    """
    lexicon = vocabulary if isinstance(vocabulary, Lexicon) else Lexicon(vocabulary)
    rules = by_precedence(pattern.rules)
    levels = np.array([pattern.otherwise, *(rule.level for rule in rules)], dtype=np.float32) / FULL
    size = max(len(lexicon.texts), int(ids.max(initial=-1)) + 1)
    winner = np.zeros(size, dtype=np.int32)  # by id: the last rule without a context that matches it
    for number, rule in enumerate(rules, start=1):
        if len(rule.steps) == 1:
            winner[lexicon.ids(rule.current)] = number
    won = winner[ids]
    for number, rule in enumerate(rules, start=1):
        if len(rule.steps) > 1:
            rows, columns = _matches(rule, ids, lexicon, size)
            won[rows, columns] = np.maximum(won[rows, columns], number)
    predicted: NDArray[np.float32] = levels[won]
    return predicted


def by_precedence(rules: Sequence[Rule]) -> list[Rule]:
    """Rules so that of those that match a position the last one wins.

    The more specific wins (see `Rule.specificity`); then the longer text of an ending or beginning; then
    the stronger level; then the positive one.
    """

    def precedence(rule: Rule) -> tuple[object, ...]:
        spelled = sum(
            len(atom.text) for atom in rule.steps if SPECIFICITY[atom.form] == SPECIFICITY["ending"]
        )
        return (rule.specificity, spelled, abs(rule.level), rule.level)

    return sorted(rules, key=precedence)


def _matches(
    rule: Rule, ids: NDArray[np.integer], lexicon: Lexicon, size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the positions that end a match of `rule`."""
    rows, columns = _among(ids, lexicon.ids(rule.current), size)[:, len(rule.context) :].nonzero()
    columns += len(rule.context)
    for back, atom in enumerate(reversed(rule.context), start=1):
        matching = _among(ids[rows, columns - back], lexicon.ids(atom), size)
        rows, columns = rows[matching], columns[matching]
    return rows, columns


def _among(ids: NDArray[np.integer], named: NDArray[np.intp], size: int) -> Mask:
    if len(named) == 1:
        return np.asarray(ids == named[0])
    mask = np.zeros(size, dtype=bool)
    mask[named] = True
    among: Mask = mask[ids]
    return among
