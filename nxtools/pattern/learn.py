"""Learn the patterns of a run's units from their evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.atoms import LIKENESSES, Form
from nxtools.pattern.before import Before, tokens_before
from nxtools.pattern.corpus import Corpus, Counted, Means
from nxtools.pattern.evidence import Check, Evidence, gathered
from nxtools.pattern.fading import GAIN, Seen, Validation, faded, said_along
from nxtools.pattern.fit import NOTHING, Budget, Fit, Fitted
from nxtools.pattern.index import Floats, PoolIndex, totals
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.lexicon import Lexicon
from nxtools.pattern.select import KIND_GAIN, KIND_GAIN_BY_MEANS, select
from nxtools.pattern.sentence import Pattern
from nxtools.pattern.text import Text
from nxtools.pattern.tree import Numbers

SHRINK = 2.0  # positions' worth of trust in the next shorter context

# How much a position of the unit's own excerpts weighs against one of the pool. Where a corpus table says
# what single tokens do, more or less of it may be better, and validation chooses.
OWN_WEIGHT = 3.0
OWN_WEIGHTS = (2.0, 6.0)


class Sample(NamedTuple):
    """Excerpts with one unit's activations: ids (E, T) int, activations (E, T) float32, NaN: left out."""

    ids: NDArray[np.integer]
    activations: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Learned:
    """A learned pattern. `scale`: the activation that it prints as 10. `coverage`: the share of the squared
    activation of the evidence that lies where a rule matches; None where there is no activation."""

    pattern: Pattern
    scale: float
    coverage: float | None


class Learner:
    """Learns the patterns of units that share their pools of random excerpts."""

    def __init__(
        self,
        lexicon: Lexicon,
        pool_ids: NDArray[np.integer],
        pool_valid: NDArray[np.bool_],
        validation_ids: NDArray[np.integer],
        validation_valid: NDArray[np.bool_],
        counted: Counted | None = None,
    ) -> None:
        """Ids (E, T) of the evidence and validation pools, and which positions are not left out; and where
        there is a corpus table, its tokens."""
        self.lexicon, self.pool_ids = lexicon, pool_ids
        self.corpus = None if counted is None else Corpus(lexicon, pool_ids, pool_valid, counted)
        self.index = PoolIndex(pool_ids, pool_valid, lexicon) if self.corpus is None else self.corpus.index
        self.weights = np.ones(int(pool_valid.sum())) if self.corpus is None else self.corpus.weight
        self._weight_of = self.index.sums(self.weights)
        self.valid, self.validation_valid = pool_valid, validation_valid
        self.validation_ids = validation_ids
        alone = self.index.contexts.token[: self.index.alone]
        same_text = lexicon.one_per_text()
        ids = same_text[validation_ids]
        extra = np.setdiff1d(ids, alone)
        likenesses: tuple[Form, ...] = ("like",) if self.corpus is None else tuple(LIKENESSES)
        self.kinds = Kinds(lexicon, np.concatenate([alone, extra]), len(alone), likenesses)
        self._place = np.full(len(lexicon), -1)
        self._place[self.kinds.ids] = np.arange(len(self.kinds.ids))
        self._place = self._place[same_text]
        self._validation_places = self._place[ids[validation_valid]]
        self._validation_count = np.bincount(self._validation_places, minlength=len(self.kinds.ids))
        self._pool_before = tokens_before(self._place[pool_ids], pool_valid)
        self._validation_before = tokens_before(self._place[validation_ids], validation_valid)

    @cached_property
    def _evidence_pool(self) -> Text:
        return Text(self.pool_ids, self.lexicon)

    @cached_property
    def _validation(self) -> Text:
        return Text(self.validation_ids, self.lexicon)

    def learn(
        self,
        own: Sample,
        pool: NDArray[np.float32],
        validation: Sample,
        validation_pool: NDArray[np.float32],
        budget: Budget | None = None,
        *,
        means: Means | None = None,
        use_kinds: bool = True,
        own_weight: float = OWN_WEIGHT,
        shrink: float = SHRINK,
        zero: float = 0.0,
    ) -> Learned:
        """`own`, `pool` (E, T), `means`: the evidence. `validation`, `validation_pool`: what kinds and
        weights are checked on. `means` come with a learner that knows their tokens. `zero`: the value that
        an activation of 0 has; what lies on the other side of it is no activation."""
        budget = budget or Budget()
        kinds = self.kinds if use_kinds else None
        check = self._check(validation, validation_pool, own_weight)
        before = None
        if kinds is not None and means is not None:
            before = self._before(own, validation, validation_pool, own_weight)

        weighted = self._evidence(own, pool, shrink, means)

        def learned(weight: float) -> tuple[Fit, Fitted]:
            evidence = weighted(weight)
            most = budget.literals + budget.literals // 10 + 2
            gain = KIND_GAIN if means is None else KIND_GAIN_BY_MEANS
            choices = select(evidence, most, shrink, kinds, check, gain, before)
            fit = Fit(evidence, choices, shrink, kinds)
            return fit, fit.within(budget)

        checked = Validation(
            Seen(Text(validation.ids, self.lexicon), validation.activations),
            Seen(self._validation, validation_pool),
        )
        if means is None:
            fit, best = learned(own_weight)
        else:
            found = [learned(weight) for weight in OWN_WEIGHTS]
            fit, best = max(found, key=lambda one: checked.fits(one[1].pattern))
        best = self._along(fit, best, budget, pool, checked)
        squares = self._squares(pool, own, len(fit.evidence.values), zero)
        total = float(squares.sum())
        coverage = float(squares[fit.matched(best.said)].sum()) / total if total else None
        return Learned(best.pattern, best.scale, coverage)

    def _along(
        self,
        fit: Fit,
        best: Fitted,
        budget: Budget,
        pool: NDArray[np.float32],
        checked: Validation,
    ) -> Fitted:
        """The pattern with what lingers and what is early, where it is better so."""
        if self.pool_ids.shape[0] == 0 or self.pool_ids.shape[1] == 1:  # no text that anything goes along
            return best
        along, before = faded(best.pattern, Seen(self._evidence_pool, pool), checked)
        if along == NOTHING:
            return best
        usual = best.scale * float(said_along(best.pattern, along, self._evidence_pool)[self.valid].mean())
        found = fit.lower(usual).within(budget, along._replace(early=along.early * best.scale))
        better = budget.allows(found.pattern) and checked.fits(found.pattern) > before + GAIN
        return found if better else best

    def _evidence(
        self, own: Sample, pool: NDArray[np.float32], shrink: float, means: Means | None
    ) -> Callable[[float], Evidence]:
        """The evidence, for any weight of a position of the unit's own excerpts."""
        valid = ~np.isnan(own.activations)
        numbers, contexts = self.index.lookup(own.ids, valid)
        trust = np.full(len(contexts) + 1, shrink)
        if means is None:
            shared = pool[self.valid].astype(np.float64)
        else:
            assert self.corpus is not None
            shared = self.corpus.values(pool, means)
            trust[: len(self.index.contexts)] *= self.corpus.observed
        mine = own.activations[valid].astype(np.float64)
        values = np.concatenate([shared, mine])

        def weighted(own_weight: float) -> Evidence:
            weights = np.concatenate([self.weights, np.full(len(mine), own_weight)])
            return gathered(self.index, contexts, numbers, values, weights, trust, self._weight_of)

        return weighted

    def _check(self, own: Sample, pool: NDArray[np.float32], own_weight: float) -> Check:
        valid = ~np.isnan(own.activations)
        places, size = self._place[own.ids[valid]], len(self.kinds.ids)
        known = places >= 0
        places, values = places[known], own.activations[valid][known].astype(np.float64)
        occurs = self._validation_count + own_weight * np.bincount(places, minlength=size)
        shared = totals(self._validation_places, pool[self.validation_valid].astype(np.float64), size)
        return Check(occurs, shared + own_weight * totals(places, values, size))

    def _before(
        self, own: Sample, validation: Sample, validation_pool: NDArray[np.float32], own_weight: float
    ) -> Before:
        """What stands before the positions of the evidence, and before those of validation."""
        mine, theirs = ~np.isnan(own.activations), ~np.isnan(validation.activations)
        none = np.full(len(self.weights) - len(self._pool_before), -1)  # before tokens that the pool lacks
        at = [self._pool_before, none, tokens_before(self._places(own.ids), mine)]
        checked = [
            self._validation_before,
            tokens_before(self._places(validation.ids), theirs),
        ]
        token = np.concatenate([self._validation_places, self._places(validation.ids)[theirs]])
        values = np.concatenate([validation_pool[self.validation_valid], validation.activations[theirs]])
        weights = np.ones(len(token))
        weights[len(self._validation_places) :] = own_weight
        known = token >= 0
        return Before(
            self.kinds,
            np.concatenate(at),
            token[known],
            np.concatenate(checked)[known],
            values[known].astype(np.float64),
            weights[known],
        )

    def _places(self, ids: NDArray[np.integer]) -> Numbers:
        """Places in `kinds.ids` of tokens, -1 for those that have none."""
        return np.where(ids < 0, -1, self._place[ids])

    def _squares(self, pool: NDArray[np.float32], own: Sample, size: int, zero: float) -> Floats:
        """(positions,): squared activations of the evidence."""
        shared, mine = pool[self.valid], own.activations[~np.isnan(own.activations)]
        values: Floats = np.full(size, zero)
        values[: len(shared)] = shared
        values[size - len(mine) :] = mine
        values -= zero
        if zero:
            values = np.maximum(values * np.sign(zero), 0.0)
        return values * values
