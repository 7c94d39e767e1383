"""Run a pattern on tokens.

Of the rules for one item of the sentence (a token, a spelling, a likeness, a class) the most specific that
matches a position speaks for it. Where a rule names the token itself, that is the answer. Elsewhere each
other item that speaks moves the prediction from the background to its level, so they add up; unless one of
them says 0 ("not …"), which is then the answer. Then the pattern's shifts are added, which look at what
stands before the token only. Of all that is said beyond the background a share lingers on the tokens after
it, and what is early has something added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.along import earliness, lingered
from nxtools.pattern.atoms import Atom
from nxtools.pattern.lexicon import Lexicon
from nxtools.pattern.sentence import FULL, TENTHS, Pattern, Rule
from nxtools.pattern.text import Positions, Text

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
    return run(pattern, Text(ids, vocabulary))


def run(pattern: Pattern, text: Text) -> Levels:
    """The same on excerpts that were laid out, which many patterns may share."""
    levels = said(pattern, text)
    if pattern.lingering:
        share = np.float32(pattern.lingering / TENTHS)
        levels = levels + share * lingered(levels - np.float32(pattern.otherwise / FULL))
    if pattern.early:
        levels += np.float32(pattern.early / FULL) * earliness(text.width)
    return levels


def said(pattern: Pattern, text: Text) -> Levels:
    """What rules and shifts say, without what goes along the text.

    Where no rule for a spelling, a likeness or a class looks at what stands before, what is said without a
    context depends on the token alone, and is worked out by id.
    """
    tokens: dict[Atom, list[Rule]] = {}
    others: dict[Atom, list[Rule]] = {}
    for rule in pattern.rules:
        (tokens if rule.current.form == "token" else others).setdefault(rule.current, []).append(rule)
    by_id = not any(rule.context for rules in others.values() for rule in rules)
    where = text.named if by_id else text.positions
    predicted = np.full(text.vocabulary if by_id else text.size, pattern.otherwise, dtype=np.float32)
    refused = []
    for atom, rules in others.items():
        at, levels = _spoken(where(atom), rules, text)
        predicted[at] += levels - pattern.otherwise
        refused.append(at[levels == 0])
    for at in refused:
        predicted[at] = 0
    for atom, rules in tokens.items():
        for rule in rules:
            if not rule.context:
                predicted[where(atom)] = rule.level
    if by_id:
        predicted = predicted[text.ids]
    for atom, rules in tokens.items():
        if any(rule.context for rule in rules):
            at, levels = _spoken(text.positions(atom), rules, text)
            predicted[at] = levels
    for shift in pattern.shifts:
        predicted[text.after(shift.context)] += shift.step
    return predicted.reshape(text.shape) / np.float32(FULL)


def names(
    pattern: Pattern, ids: NDArray[np.integer], vocabulary: Lexicon | Mapping[int, str] | Sequence[str]
) -> NDArray[np.bool_]:
    """Which positions of excerpts (E, T) a rule of `pattern` matches.

    The others have its background, and what it adds after what stands before them.
    """
    text = Text(ids, vocabulary)
    matched = np.zeros(text.size, dtype=bool)
    for rule in pattern.rules:
        at = text.positions(rule.current)
        matched[at[text.preceded(rule.context, at)]] = True
    return matched.reshape(text.shape)


def _spoken(at: Positions, rules: Sequence[Rule], text: Text) -> tuple[Positions, Levels]:
    """Where the rules for one item, which stands at `at`, match, and what the most specific of those says.

    Two that are equally specific and both match: the stronger one, then the positive one. `at` may be ids
    where no rule has a context.
    """
    levels = np.full(len(at), np.nan, dtype=np.float32)
    for rule in sorted(rules, key=lambda rule: (rule.specificity, abs(rule.level), rule.level)):
        levels[text.preceded(rule.context, at) if rule.context else slice(None)] = rule.level
    spoken = ~np.isnan(levels)
    return at[spoken], levels[spoken]
