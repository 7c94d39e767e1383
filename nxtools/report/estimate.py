"""Means over units with their 95% intervals, from what unit lines say.

Where every score carries its replicates, units and documents are resampled as in `nxtools.score.summary`;
where one does not, units alone are: Student's interval, too narrow where units share documents.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nxtools.score.bootstrap import MAX_FREEDOM, student, within
from nxtools.score.replicates import Drawn
from nxtools.score.summary import Mean, drawn_weights

Floats = NDArray[np.float64]
Value = tuple[float, Drawn | None]  # a unit's figure, and its replicates where there are some

BOTH, UNITS = "units and documents", "units"
_TOGETHER = 256  # units whose draws are weighted at once: 256 x 200 doubles stay in the second-level cache


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `units` units: value ± margin is its 95% interval over what `over` says is resampled."""

    units: int
    value: float | None
    margin: float | None
    over: str
    freedom: int

    @property
    def low(self) -> float | None:
        return None if self.value is None or self.margin is None else self.value - self.margin

    @property
    def high(self) -> float | None:
        return None if self.value is None or self.margin is None else self.value + self.margin

    @property
    def p(self) -> float | None:
        """How likely a mean so far from 0 is where the true one is 0: Student's t from the same interval."""
        if self.value is None or self.margin is None:
            return None
        if self.margin == 0:
            return 1.0 if self.value == 0 else 0.0
        freedom = min(self.freedom, MAX_FREEDOM)
        return max(0.0, 1.0 - within(abs(self.value) / self.margin * student(freedom), freedom))


class Gathered:
    """The values of some units, absences by reason, and sums over the draws in place of their replicates."""

    def __init__(self, parts: Iterable[Gathered] = ()) -> None:
        parts = list(parts)
        for part in parts:
            part.settle()
        self._mean: Mean = Mean(part._mean for part in parts)
        self._bare: int = sum(part._bare for part in parts)
        self._pending: list[tuple[str, float, Floats]] = []

    def add(self, unit: str, value: float, drawn: Drawn | None) -> None:
        """A unit's value and, if that is known, its value in every draw."""
        self._add(unit, value, None if drawn is None else drawn.values)

    def add_difference(self, unit: str, a: Value, b: Value) -> None:
        """A unit's value on one side less that on the other. Draws of the same documents go together."""
        drawn = None if a[1] is None or b[1] is None else a[1].values - b[1].values
        self._add(unit, a[0] - b[0], drawn)

    def _add(self, unit: str, value: float, drawn: Floats | None) -> None:
        if drawn is None:
            self._bare += 1
            self._mean.values.append(value)
            return
        self._pending.append((unit, value, drawn))
        if len(self._pending) >= _TOGETHER:
            self.settle()

    def settle(self) -> None:
        if self._pending:
            names, values, drawn = zip(*self._pending, strict=True)
            self._mean.add(values, drawn_weights(names, "unit"), np.stack(drawn))
            self._pending.clear()

    @property
    def absent(self) -> Counter[str]:
        return self._mean.absent

    @property
    def values(self) -> Floats:
        """Of all units that have one, in no order that means something."""
        self.settle()
        return np.array(self._mean.values, dtype=np.float64)

    def over(self, threshold: float) -> float | None:
        """Share of the units above the threshold; absent ones are not above it."""
        self.settle()
        return self._mean.over(threshold)

    def mean(self, documents: int) -> Estimate:
        """documents: how many the units share, 0 if that is not known; fewer make the interval wider."""
        values = self.values
        n = len(values)
        if not self._bare:
            self._mean.documents = documents or n
            return Estimate(n, self._mean.value, self._mean.margin, BOTH, min(n, documents or n) - 1)
        margin = student(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n) if n >= 2 else None
        return Estimate(n, self._mean.value, margin, UNITS, n - 1)
