"""What to add after certain tokens: it competes with rules, and touches what rules have taken, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nxtools.pattern.before import Before
from nxtools.pattern.evidence import Choice
from nxtools.pattern.index import Floats, first_of_best, totals
from nxtools.pattern.tree import LONGEST, Numbers

if TYPE_CHECKING:
    from nxtools.pattern.select import Search

SIZES = np.arange(1, LONGEST + 1)


class Adding:
    """The part of a search that looks at what stands before. The search must have kinds.

    Its candidates are the tokens and kinds of Before. `weight`, `free`, `sum` of each: of the positions that
    it stands before, of those among them that are free, and of their residuals; `taken`: (positions,) the
    length of the chosen context that took it.
    """

    def __init__(self, search: Search, before: Before, kind_gain: float) -> None:
        self.search, self.before = search, before
        evidence = search.evidence
        self.head = np.concatenate([evidence.index.head, evidence.of_own[:, 0]])
        self.taken = np.zeros(len(self.head), dtype=np.intp)
        self.check_values = before.values.copy()
        self.weight = before.sums(evidence.weights)
        self.free = self.weight.copy()
        self.sum = before.sums(evidence.weights * (evidence.values - search.mean))
        self._behind: list[tuple[Numbers, Floats, Floats]] = []
        self.open = np.full(len(self.weight), kind_gain)
        self.open[: len(before.kinds.ids)] = 1.0

    def best(self, least: float) -> Choice | None:
        """What to add after a token or a kind, if that removes more than `least` and than any kind does."""
        search = self.search
        self._catch_up()
        gains = self.sum * self.sum / (self.weight + search.shrink) * self.open
        least = max(least, float(search.kind_gains().max(initial=0.0)))
        while gains[best := first_of_best(gains)] > least:
            self.open[best] = gains[best] = 0
            left = float(self.sum[best])
            step = left / (float(self.weight[best]) + search.shrink)
            among, atom = self.before.among(best), self.before.atom(best)
            if atom is not None and self._holds(step, among):
                positions = np.flatnonzero(among[self.before.at])
                search.removed += step * left
                search.spent += 1
                self._add(step, positions)
                self._add_to_check(step, among)
                return Choice(search.spent, before=atom, positions=positions)
        return None

    def took(self, number: int, length: int, step: float) -> None:
        """A context has taken what was left of its positions, and predicts `step` more there."""
        positions = self.search.evidence.positions(number)
        taken = self.taken[positions]
        positions = positions[taken < length]
        weights = self.search.evidence.weights[positions]
        self._behind.append((positions, step * weights, weights * (self.taken[positions] == 0)))
        self.taken[positions] = length

    def _catch_up(self) -> None:
        """With what contexts took: all of a step at once."""
        if self._behind:
            positions, moved, freed = map(np.concatenate, zip(*self._behind, strict=True))
            moved, freed = self.before.sums_at(positions, moved, freed)
            self.sum -= moved
            self.free -= freed
            self._behind.clear()

    def moved_kind(self, steps: Floats) -> None:
        """So much more, by head, is predicted at free positions."""
        moved = steps[self.head] * self.search.evidence.weights * (self.taken == 0)
        positions = np.flatnonzero(moved)
        self.sum -= self.before.sums_at(positions, moved[positions])[0]

    def moved_background(self, shift: float) -> None:
        """So much more is predicted at all free positions."""
        self._catch_up()
        self.sum -= shift * self.free

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
        moved = step * search.evidence.weights[positions]
        self.sum -= self.before.sums_at(positions, moved)[0]
        takes = self.taken[positions][:, None] < SIZES
        np.subtract.at(search.sum, search.evidence.rows(positions), moved[:, None] * takes)
        search.sum[search.none] = 0
        free = self.taken[positions] == 0
        search.leave(totals(self.head[positions[free]], moved[free], search.none))
