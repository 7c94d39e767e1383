"""What to add after certain tokens: it competes with rules, and touches what rules have taken, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.before import Before
from nxtools.pattern.evidence import Choice
from nxtools.pattern.index import LONGEST, Numbers, totals

if TYPE_CHECKING:
    from nxtools.pattern.select import Search

SIZES = np.arange(1, LONGEST + 1)


class Adding:
    """The part of a search that looks at what stands before. The search must have kinds."""

    def __init__(self, search: Search, before: Before, kind_gain: float) -> None:
        self.search, self.before = search, before
        evidence = search.evidence
        self.head = np.concatenate([search.index.of_position[:, 0], evidence.of_own[:, 0]])
        self.rows = np.concatenate([search.index.of_position, evidence.of_own])
        self.check_values = before.values.copy()
        self.weight = before.sums(evidence.weights)
        self.open = np.full(len(self.weight), kind_gain)
        self.open[: len(before.kinds.ids)] = 1.0

    def best(self, least: float) -> Choice | None:
        """What to add after a token or a kind, if that removes more than `least` and than any kind does."""
        search = self.search
        free = search.taken == 0
        predicted = np.where(free, search.background[self.head], search.predicted)
        sums = self.before.sums(search.evidence.weights * (search.values - predicted))
        gains = sums * sums / (self.weight + search.shrink) * self.open
        kind_gains = (
            search.kind_sum * search.kind_sum / (search.kind_weight + search.shrink) * search.kind_open
        )
        least = max(least, float(kind_gains.max(initial=0.0)))
        while gains[best := int(gains.argmax())] > least:
            self.open[best] = gains[best] = 0
            step = float(sums[best] / (self.weight[best] + search.shrink))
            among, atom = self.before.among(best), self.before.atom(best)
            if atom is not None and self._holds(step, among):
                positions = np.flatnonzero(among[self.before.at])
                search.removed += step * float(sums[best])
                search.spent += 1
                self._add(step, positions)
                self._add_to_check(step, among)
                return Choice(-1, -1, positions, search.spent, atom)
        return None

    def _holds(self, step: float, among: NDArray[np.bool_]) -> bool:
        """Whether it removes error on the validation tokens that no rule names alone."""
        here = self._checked(among)
        weight = self.before.weights[here]
        residual = self.check_values[here] - self.search.check_background[self.before.token[here]]
        return bool(2 * step * (weight * residual).sum() > step * step * weight.sum())

    def _checked(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return among[self.before.before] & (self.search.check_weight[self.before.token] > 0)

    def _add_to_check(self, step: float, among: NDArray[np.bool_]) -> None:
        here = self._checked(among)
        moved = step * self.before.weights[here]
        self.search.check_sum -= totals(self.before.token[here], moved, len(self.search.check_sum))
        self.check_values[among[self.before.before]] -= step

    def _add(self, step: float, positions: Numbers) -> None:
        """With `step` more predicted there, so much less is left to predict."""
        search = self.search
        search.values[positions] -= step
        moved = step * search.evidence.weights[positions]
        takes = search.taken[positions][:, None] < SIZES
        np.subtract.at(search.sum, self.rows[positions], moved[:, None] * takes)
        search.sum[search.none] = 0
        free = search.taken[positions] == 0
        search.leave(totals(self.head[positions[free]], moved[free], search.none))
