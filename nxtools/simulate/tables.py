"""Baseline simulators that know only tokens: what a better explanation has to beat.

A *token table* predicts each token's mean activation in the evidence, a *corpus table* that in all evidence
documents, where nx-record made one. A *token list* keeps the few tokens
whose means matter most and one background for all others: it may name as many tokens as an explanation by
rules has literals, so the two can be compared.

Both come from two numbers per token, its count and the sum of its activations, and so does their score on
validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.score.correlation import correlation

Floats = NDArray[np.float64]
Ids = NDArray[np.integer[Any]]
Activations = NDArray[np.float32]

# How often an extreme excerpt (top, bottom) counts, few beside hundreds of random ones; validation chooses.
WEIGHTS = (1.0, 5.0)
# How often each token counts as seen at the mean besides: rare tokens are mostly noise.
PRIOR = 1.0
_ROUNDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class TokenValues:
    """A simulator: a value for each token that it knows and one for all others.

    tokens: (known,) ids, ascending; values: (known,); weight: which of WEIGHTS was better on validation.
    """

    tokens: NDArray[np.int64]
    values: Activations
    background: float
    weight: float = 1.0

    def predict(self, ids: Ids) -> Activations:
        """Predicted activations of token ids (...) -> (...)."""
        size = 1 + max(int(ids.max(initial=-1)), int(self.tokens.max(initial=-1)))
        lookup = np.full(size, self.background, dtype=np.float32)
        lookup[self.tokens] = self.values
        return lookup[ids]


@dataclass(frozen=True, slots=True, eq=False)
class WeightValues:
    """A simulator made of the subject's weights: a value for each token, and one for each position or None.

    values: (vocabulary,); positions: (tokens of an excerpt,).
    """

    values: Activations
    positions: Activations | None = None

    def predict(self, ids: Ids) -> Activations:
        """Predicted activations of excerpts (..., tokens) -> (..., tokens). Unknown ids get the mean."""
        known = ids < len(self.values)
        found = np.where(known, self.values[np.where(known, ids, 0)], self.values.mean())
        if self.positions is not None:
            found = found + self.positions[: ids.shape[-1]]
        return found.astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Excerpts:
    """A unit's excerpts of one set, and its activations on the set's random pool where there is one.

    ids, activations: (excerpts, tokens), NaN where left out; picks: (excerpts,);
    pool: (pool excerpts, tokens).
    """

    ids: Ids
    activations: Activations
    picks: Sequence[str]
    pool: Activations | None = None


class PoolIndex:
    """The tokens of the random pools of a run, numbered once for all its units.

    evidence, validation: ids (excerpts, tokens) of the two pools, or None where there is none.
    """

    def __init__(self, evidence: Ids | None = None, validation: Ids | None = None) -> None:
        pools = [pool.ravel() for pool in (evidence, validation) if pool is not None]
        self.tokens = np.unique(np.concatenate(pools)).astype(np.int64) if pools else np.empty(0, np.int64)
        self._number = np.full(1 + int(self.tokens.max(initial=0)), -1, dtype=np.intp)
        self._number[self.tokens] = np.arange(len(self.tokens))
        self.evidence = None if evidence is None else _Numbered.of(self._number[evidence.ravel()])
        self.validation = None if validation is None else _Numbered.of(self._number[validation.ravel()])

    def number(self, ids: Ids) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Numbers of ids (...) -> (...), and the numbered tokens: the pools', then those only seen here."""
        known = ids < len(self._number)
        numbers = np.where(known, self._number[np.where(known, ids, 0)], -1)
        unknown = numbers < 0
        new, order = np.unique(ids[unknown], return_inverse=True)
        numbers[unknown] = len(self.tokens) + order
        return numbers, np.concatenate([self.tokens, new.astype(np.int64)])


@dataclass(frozen=True, slots=True, eq=False)
class _Numbered:
    """Tokens by number (positions,), and how often each number occurs."""

    numbers: NDArray[np.intp]
    count: NDArray[np.intp]

    @classmethod
    def of(cls, numbers: NDArray[np.intp]) -> _Numbered:
        return cls(numbers, np.bincount(numbers))


@dataclass(frozen=True, slots=True, eq=False)
class _Tally:
    """How often each token occurs, its activations summed, and the squares of all activations summed."""

    count: Floats
    total: Floats
    square: float

    @classmethod
    def of(cls, tokens: _Numbered, activations: Activations, size: int) -> _Tally:
        exact = activations.astype(np.float64).ravel()
        left_out = np.flatnonzero(np.isnan(exact))
        exact[left_out] = 0.0
        count = np.zeros(size)
        count[: len(tokens.count)] = tokens.count
        np.subtract.at(count, tokens.numbers[left_out], 1.0)
        total = np.bincount(tokens.numbers, exact, size).astype(np.float64, copy=False)
        return cls(count, total, float(exact @ exact))

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(self.count + other.count, self.total + other.total, self.square + other.square)

    def correlations(self, values: Floats) -> Floats:
        """Correlation of the activations with tables of values: (tables, size) -> (tables,), NaN for none."""
        n = self.count.sum()
        mean = self.total.sum() / max(n, 1.0)
        centred = values - ((values @ self.count) / max(n, 1.0))[:, None]
        sums = np.zeros((len(values), 6))
        sums[:, 0] = n
        sums[:, 3] = max(self.square - n * mean**2, 0.0)
        sums[:, 4] = (centred * centred) @ self.count
        sums[:, 5] = centred @ (self.total - mean * self.count)
        return correlation(sums)


def learn(
    index: PoolIndex, evidence: Excerpts, validation: Excerpts, literals: int = 30
) -> tuple[TokenValues, TokenValues]:
    """The token table and the token list of a unit.

    Means are taken over the inline excerpts and the random pool; with a pool, inline excerpts picked at
    random are left out, for they come from it. Of the WEIGHTS of extreme excerpts the one with the
    best correlation on validation is kept, for table and list apart: the mean of that over the inline
    excerpts and that over the pool. Tokens that the evidence lacks get the mean of all in the table, the mean
    of the unnamed in the list.

    Raises ValueError when the evidence has no token with an activation.
    """
    numbers, tokens = index.number(np.concatenate([evidence.ids.ravel(), validation.ids.ravel()]))
    size, cut = len(tokens), evidence.ids.size
    ordinary, extreme = _evidence(index, evidence, numbers[:cut].reshape(evidence.ids.shape), size)
    if not (ordinary.count.any() or extreme.count.any()):
        raise ValueError("no token in the evidence has an activation")
    counts = np.stack([ordinary.count + weight * extreme.count for weight in WEIGHTS])
    totals = np.stack([ordinary.total + weight * extreme.total for weight in WEIGHTS])

    goals = [_Tally.of(_Numbered.of(numbers[cut:]), validation.activations, size)]
    if validation.pool is not None and index.validation is not None:
        goals.append(_Tally.of(index.validation, validation.pool, size))
    return (
        _best(tokens, _tables(counts, totals), goals),
        _best(tokens, _lists(counts, totals, literals), goals),
    )


def of_corpus(
    tokens: NDArray[np.integer[Any]], count: NDArray[np.integer[Any]], means: Activations
) -> TokenValues:
    """The corpus table of a unit: tokens (T,) rising, how often the evidence has each, its mean activation.

    Means are drawn toward that of all by the same prior as those of a token table. Raises ValueError when
    there is no token.
    """
    if not len(tokens):
        raise ValueError("the corpus table has no token")
    counts = count[None].astype(np.float64)
    values, _, background = _tables(counts, counts * means.astype(np.float64))
    return TokenValues(tokens.astype(np.int64), values[0].astype(np.float32), float(background[0]))


def _evidence(
    index: PoolIndex, evidence: Excerpts, numbers: NDArray[np.intp], size: int
) -> tuple[_Tally, _Tally]:
    """Tallies of the random (and other) excerpts, and of the top and bottom ones."""
    picks = np.array(evidence.picks, dtype=object)
    extreme = np.isin(picks, ("top", "bottom"))
    if evidence.pool is None or index.evidence is None:
        ordinary = _inline(numbers, evidence.activations, ~extreme, size)
    else:
        pool = _Tally.of(index.evidence, evidence.pool, size)
        ordinary = pool + _inline(numbers, evidence.activations, ~extreme & (picks != "random"), size)
    return ordinary, _inline(numbers, evidence.activations, extreme, size)


def _inline(
    numbers: NDArray[np.intp], activations: Activations, rows: NDArray[np.bool_], size: int
) -> _Tally:
    return _Tally.of(_Numbered.of(numbers[rows].ravel()), activations[rows], size)


# For each of WEIGHTS: the value of each token (weights, tokens), which tokens are named (the same shape), the
# value of all others (weights,).
_Values = tuple[Floats, NDArray[np.bool_], Floats]


def _means(counts: Floats, totals: Floats, background: Floats) -> Floats:
    """Mean activation of each token, drawn toward the background by the prior: (weights, tokens)."""
    return (totals + PRIOR * background[:, None]) / (counts + PRIOR)


def _tables(counts: Floats, totals: Floats) -> _Values:
    background = totals.sum(-1) / counts.sum(-1)
    return _means(counts, totals, background), counts > 0, background


def _lists(counts: Floats, totals: Floats, literals: int) -> _Values:
    """The tokens whose naming removes most squared error, n ((m - b)² - (m - v)²), b the mean of all others.

    Which tokens are best depends on b and b on which are named: both are settled in turn.
    """
    rows = np.arange(len(counts))[:, None]
    mean = totals / np.maximum(counts, 1.0)
    background = totals.sum(-1) / counts.sum(-1)
    last = min(literals, counts.shape[1]) - 1
    for _ in range(_ROUNDS):
        values = _means(counts, totals, background)
        removed = counts * ((mean - background[:, None]) ** 2 - (mean - values) ** 2)
        best = np.argpartition(-removed, last, axis=-1)[:, : last + 1]
        others = counts.sum(-1) - counts[rows, best].sum(-1)
        rest = totals.sum(-1) - totals[rows, best].sum(-1)
        background = np.where(others > 0, rest / np.maximum(others, 1.0), background)
    named = np.zeros(counts.shape, dtype=bool)
    named[rows, best] = True
    named &= counts > 0
    return np.where(named, _means(counts, totals, background), background[:, None]), named, background


def _best(tokens: NDArray[np.int64], candidates: _Values, goals: list[_Tally]) -> TokenValues:
    values, named, background = candidates
    found = np.stack([goal.correlations(values) for goal in goals])
    best = int(np.argmax(np.nan_to_num(found).sum(0)))
    known = np.flatnonzero(named[best])
    known = known[np.argsort(tokens[known])]
    return TokenValues(
        tokens[known], values[best, known].astype(np.float32), float(background[best]), WEIGHTS[best]
    )
