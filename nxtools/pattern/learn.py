"""Learn the patterns of a run's units from their evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.execute import names
from nxtools.pattern.fit import Budget, Fit
from nxtools.pattern.index import PoolIndex, totals
from nxtools.pattern.kinds import Kinds
from nxtools.pattern.lexicon import Lexicon
from nxtools.pattern.select import Check, Evidence, select
from nxtools.pattern.sentence import Pattern

OWN_WEIGHT = 3.0  # of a position of the unit's own excerpts, against one of the pool
SHRINK = 2.0  # positions' worth of trust in the next shorter context


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
    ) -> None:
        """Ids (E, T) of the evidence and validation pools, and which positions are not left out."""
        self.lexicon, self.ids = lexicon, pool_ids
        self.index = PoolIndex(pool_ids, pool_valid, lexicon)
        self.valid, self.validation_valid = pool_valid, validation_valid
        alone = self.index.contexts.token[: self.index.alone]
        same_text = lexicon.one_per_text()
        ids = same_text[validation_ids]
        extra = np.setdiff1d(ids, alone)
        self.kinds = Kinds(lexicon, np.concatenate([alone, extra]), len(alone))
        self._place = np.full(len(lexicon), -1)
        self._place[self.kinds.ids] = np.arange(len(self.kinds.ids))
        self._place = self._place[same_text]
        self._validation_places = self._place[ids[validation_valid]]

    def learn(
        self,
        own: Sample,
        pool: NDArray[np.float32],
        validation: Sample,
        validation_pool: NDArray[np.float32],
        budget: Budget | None = None,
        *,
        use_kinds: bool = True,
        own_weight: float = OWN_WEIGHT,
        shrink: float = SHRINK,
    ) -> Learned:
        """`own`, `pool` (E, T): the evidence. `validation`, `validation_pool`: only to check kinds."""
        budget = budget or Budget()
        evidence = self._evidence(own, pool, own_weight)
        check = self._check(validation, validation_pool, own_weight)
        kinds = self.kinds if use_kinds else None
        choices = select(
            self.index, evidence, budget.literals + budget.literals // 3 + 1, shrink, kinds, check
        )
        pattern, scale = Fit(self.index, evidence, choices, shrink, kinds).within(budget)
        return Learned(pattern, scale, self._coverage(pattern, Sample(self.ids, pool), own))

    def _evidence(self, own: Sample, pool: NDArray[np.float32], own_weight: float) -> Evidence:
        valid = ~np.isnan(own.activations)
        numbers, contexts = self.index.lookup(own.ids, valid)
        mine, shared = own.activations[valid], pool[self.valid]
        weights = np.concatenate([np.ones(len(shared)), np.full(len(mine), own_weight)])
        return Evidence(contexts, np.concatenate([shared, mine]).astype(np.float64), weights, numbers)

    def _check(self, own: Sample, pool: NDArray[np.float32], own_weight: float) -> Check:
        valid = ~np.isnan(own.activations)
        places = self._place[own.ids[valid]]
        known = places >= 0
        places = np.concatenate([self._validation_places, places[known]])
        values = np.concatenate([pool[self.validation_valid], own.activations[valid][known]])
        weights = np.ones(len(places))
        weights[len(self._validation_places) :] = own_weight
        size = len(self.kinds.ids)
        return Check(totals(places, weights, size), totals(places, weights * values, size))

    def _coverage(self, pattern: Pattern, *evidence: Sample) -> float | None:
        named = total = 0.0
        for sample in evidence:
            squares = np.nan_to_num(sample.activations.astype(np.float64)) ** 2
            total += float(squares.sum())
            named += float(squares[names(pattern, sample.ids, self.lexicon)].sum())
        return named / total if total else None
