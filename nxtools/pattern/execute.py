"""Run a pattern on tokens.

Of the rules for one item of the sentence (a token, a spelling, a likeness, a class) the most specific that
matches a position speaks for it. Where a rule names the token itself, that is the answer. Elsewhere each
other item that speaks moves the prediction from the background to its level, so they add up; unless one of
them says 0 ("not …"), which is then the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import ANYTHING, Atom
from nxtools.pattern.lexicon import Ids, Lexicon
from nxtools.pattern.sentence import FULL, Pattern, Rule

Levels = NDArray[np.float32]


def execute(
    pattern: Pattern, ids: NDArray[np.integer], vocabulary: Lexicon | Mapping[int, str] | Sequence[str]
) -> Levels:
    """What `pattern` predicts for excerpts: float32 (E, T), as a share of the scale (10 in print is 1).

    `ids`: (E, T) token ids of excerpts. `vocabulary`: the text of each id, or a Lexicon made of it, which
    a pattern with `like` needs, with the subject's embedding. Every row stands alone: what came before its
    first token is not known, so no context reaches over it.
    Raises InputError for `like` without an embedding.
    """
    lexicon = vocabulary if isinstance(vocabulary, Lexicon) else Lexicon(vocabulary)
    size = max(len(lexicon), int(ids.max(initial=-1)) + 1)
    rules_of: dict[Atom, list[Rule]] = {}
    for rule in pattern.rules:
        rules_of.setdefault(rule.current, []).append(rule)
    named = [rule for atom, rules in rules_of.items() if atom.form == "token" for rule in rules]
    predicted = np.full(ids.shape, pattern.otherwise, dtype=np.float32)
    refused = np.zeros(ids.shape, dtype=bool)
    for atom, rules in rules_of.items():
        if atom.form != "token":
            level, speaks = _most_specific(rules, ids, lexicon, size)
            predicted += np.where(speaks, level - pattern.otherwise, 0)
            refused |= speaks & (level == 0)
    predicted[refused] = 0
    if named:
        level, speaks = _most_specific(named, ids, lexicon, size)
        predicted = np.where(speaks, level, predicted)
    return predicted / np.float32(FULL)


def names(
    pattern: Pattern, ids: NDArray[np.integer], vocabulary: Lexicon | Mapping[int, str] | Sequence[str]
) -> NDArray[np.bool_]:
    """Which positions of excerpts (E, T) a rule of `pattern` matches; the others have its background."""
    lexicon = vocabulary if isinstance(vocabulary, Lexicon) else Lexicon(vocabulary)
    size = max(len(lexicon), int(ids.max(initial=-1)) + 1)
    alone = [_named(rule.current, lexicon, size) for rule in pattern.rules if not rule.context]
    by_id = np.zeros(size, dtype=bool)
    by_id[np.concatenate([*alone, np.zeros(0, dtype=np.intp)])] = True
    matched: NDArray[np.bool_] = by_id[ids]
    for rule in pattern.rules:
        if rule.context:
            matched[_matches(rule, ids, lexicon, size)] = True
    return matched


def _most_specific(
    rules: Iterable[Rule], ids: NDArray[np.integer], lexicon: Lexicon, size: int
) -> tuple[Levels, NDArray[np.bool_]]:
    """For each position the level of the most specific rule that matches, and whether one does.

    Two rules for one item that are equally specific and both match: the stronger one, then the positive one.
    """
    ordered = sorted(rules, key=lambda rule: (rule.specificity, abs(rule.level), rule.level))
    levels = np.array([0, *(rule.level for rule in ordered)], dtype=np.float32)
    last = np.zeros(size, dtype=np.int32)  # by id: the last rule without a context that matches, from 1
    for number, rule in enumerate(ordered, start=1):
        if not rule.context:
            last[_named(rule.current, lexicon, size)] = number
    won = last[ids]
    for number, rule in enumerate(ordered, start=1):
        if rule.context:
            rows, columns = _matches(rule, ids, lexicon, size)
            won[rows, columns] = np.maximum(won[rows, columns], number)
    return levels[won], won > 0


def _matches(rule: Rule, ids: NDArray[np.integer], lexicon: Lexicon, size: int) -> tuple[Ids, Ids]:
    """Rows and columns of the positions that end a match of `rule`."""
    rows, columns = _among(ids, rule.current, lexicon, size)[:, len(rule.context) :].nonzero()
    columns += len(rule.context)
    for back, atom in enumerate(reversed(rule.context), start=1):
        matching = _among(ids[rows, columns - back], atom, lexicon, size)
        rows, columns = rows[matching], columns[matching]
    return rows, columns


def _among(ids: NDArray[np.integer], atom: Atom, lexicon: Lexicon, size: int) -> NDArray[np.bool_]:
    named = _named(atom, lexicon, size)
    if len(named) == 1:
        return np.asarray(ids == named[0])
    mask = np.zeros(size, dtype=bool)
    mask[named] = True
    among: NDArray[np.bool_] = mask[ids]
    return among


def _named(atom: Atom, lexicon: Lexicon, size: int) -> Ids:
    """Ids of an atom; `anything` also takes the ids that have no text."""
    return np.arange(size) if atom == ANYTHING else lexicon.ids(atom)
