"""What a pattern is learned from and checked on, and what a search chooses."""

from __future__ import annotations

from dataclasses import dataclass

from nxtools.pattern.atoms import Atom
from nxtools.pattern.index import Contexts, Floats, Numbers


@dataclass(frozen=True, slots=True)
class Evidence:
    """A unit's evidence: first the valid positions of the pool, then those of its own excerpts.

    values, weights: (positions,). of_own: (own positions, LONGEST) contexts, -1 for none.
    trust: (contexts + 1,) the weight that the prediction so far has against a new rule.
    of_pool: (contexts of the pool,) the weight of its positions.
    """

    contexts: Contexts
    values: Floats
    weights: Floats
    of_own: Numbers
    trust: Floats
    of_pool: Floats


@dataclass(frozen=True, slots=True)
class Check:
    """Validation, by token: kinds are chosen only where they are right there too.

    weight, sum: (tokens of Kinds.ids,) how often the token occurs, and the sum of its values.
    """

    weight: Floats
    sum: Floats


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen rule: a context with the positions that it took over, a kind, or what is added after `before`
    at `positions`. The others are -1, or None. `spent`: how many tokens and kinds are named up to this one.
    """

    context: int
    kind: int
    positions: Numbers
    spent: int
    before: Atom | None = None
