"""Run a pattern on tokens.

Of the rules for one item of the sentence (a token, a spelling, a likeness, a class) the most specific that
matches a position speaks for it. Where a rule names the token itself, that is the answer. Elsewhere each
other item that speaks moves the prediction from the background to its level, so they add up; unless one of
them says 0 ("not …"), which is then the answer. In the end the pattern's shifts are added, which look at what
stands before the token only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import ANYTHING, Atom
from nxtools.pattern.lexicon import Ids, Lexicon
from nxtools.pattern.sentence import FULL, Context, Pattern, Rule

Levels = NDArray[np.float32]

NOWHERE = np.zeros(0, dtype=np.intp)


def execute(
    pattern: Pattern, ids: NDArray[np.integer], vocabulary: Lexicon | Mapping[int, str] | Sequence[str]
) -> Levels:
    """What `pattern` predicts for excerpts: float32 (E, T), as a share of the scale (10 in print is 1).

    `ids`: (E, T) token ids of excerpts. `vocabulary`: the text of each id, or a Lexicon made of it, which
    a pattern with `like` needs, with the subject's embedding. Every row stands alone: what came before its
    first token is not known, so no context reaches over it.
    Raises InputError for `like` without an embedding.
    """
    text = _Text(ids, vocabulary)
    rules_of: dict[Atom, list[Rule]] = {}
    for rule in pattern.rules:
        rules_of.setdefault(rule.current, []).append(rule)
    named = [rule for atom, rules in rules_of.items() if atom.form == "token" for rule in rules]
    predicted = np.full(ids.size, pattern.otherwise, dtype=np.float32)
    refused = np.zeros(ids.size, dtype=bool)
    for atom, rules in rules_of.items():
        if atom.form != "token":
            level, speaks = _most_specific(rules, text)
            predicted += np.where(speaks, level - pattern.otherwise, 0)
            refused |= speaks & (level == 0)
    predicted[refused] = 0
    if named:
        level, speaks = _most_specific(named, text)
        predicted = np.where(speaks, level, predicted)
    everywhere = np.arange(ids.size) if pattern.shifts else NOWHERE
    for shift in pattern.shifts:
        predicted[text.matches(shift.context, everywhere)] += shift.step
    return predicted.reshape(ids.shape) / np.float32(FULL)


def names(
    pattern: Pattern, ids: NDArray[np.integer], vocabulary: Lexicon | Mapping[int, str] | Sequence[str]
) -> NDArray[np.bool_]:
    """Which positions of excerpts (E, T) a rule of `pattern` matches.

    The others have its background, and what it adds after what stands before them.
    """
    _, speaks = _most_specific(pattern.rules, _Text(ids, vocabulary))
    return speaks.reshape(ids.shape)


class _Text:
    """Excerpts laid out in one row, and where the atoms of a pattern stand in them."""

    def __init__(
        self, ids: NDArray[np.integer], vocabulary: Lexicon | Mapping[int, str] | Sequence[str]
    ) -> None:
        self.lexicon = vocabulary if isinstance(vocabulary, Lexicon) else Lexicon(vocabulary)
        self.ids, self.width = ids.ravel(), ids.shape[1]
        self.size = max(len(self.lexicon), int(ids.max(initial=-1)) + 1)

    def named(self, atom: Atom) -> Ids:
        """Ids of an atom; `anything` also takes the ids that have no text."""
        return np.arange(self.size) if atom == ANYTHING else self.lexicon.ids(atom)

    def among(self, ids: NDArray[np.integer], atom: Atom) -> NDArray[np.bool_]:
        named = self.named(atom)
        if len(named) == 1:
            return np.asarray(ids == named[0])
        mask = np.zeros(self.size, dtype=bool)
        mask[named] = True
        among: NDArray[np.bool_] = mask[ids]
        return among

    def matches(self, context: Context, current: Ids) -> Ids:
        """Those of the positions `current` that `context` stands right before, in the same excerpt."""
        found: Ids = current[current % self.width >= len(context)]
        for back, atom in enumerate(reversed(context), start=1):
            found = found[self.among(self.ids[found - back], atom)]
        return found


def _most_specific(rules: Iterable[Rule], text: _Text) -> tuple[Levels, NDArray[np.bool_]]:
    """For each position the level of the most specific rule that matches, and whether one does.

    Two rules for one item that are equally specific and both match: the stronger one, then the positive one.
    """
    ordered = sorted(rules, key=lambda rule: (rule.specificity, abs(rule.level), rule.level))
    levels = np.array([0, *(rule.level for rule in ordered)], dtype=np.float32)
    last = np.zeros(text.size, dtype=np.int16)  # by id: the last rule without a context that matches, from 1
    longer: dict[Atom, list[tuple[int, Rule]]] = {}
    for number, rule in enumerate(ordered, start=1):
        if rule.context:
            longer.setdefault(rule.current, []).append((number, rule))
        else:
            last[text.named(rule.current)] = number
    won = last[text.ids]
    for atom, numbered in longer.items():
        current = np.flatnonzero(text.among(text.ids, atom))
        for number, rule in numbered:
            found = text.matches(rule.context, current)
            won[found] = np.maximum(won[found], number)
    return levels[won], won > 0
