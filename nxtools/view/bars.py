"""Small drawings in characters: intervals on an axis, and histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Axis:
    """From `left` to `right` over so many columns."""

    left: float
    right: float
    width: int

    @classmethod
    def of_scores(cls, values: Sequence[float], width: int) -> Axis:
        """From the highest of 0, -0.5 and -1 that shows all values, to 1."""
        lowest = min(values, default=0.0)
        return cls(0.0 if lowest >= -0.05 else -0.5 if lowest >= -0.5 else -1.0, 1.0, width)

    def column(self, value: float) -> int:
        share = (value - self.left) / (self.right - self.left)
        return round(max(0.0, min(1.0, share)) * (self.width - 1))

    def interval(self, value: float, low: float | None, high: float | None) -> str:
        """A point with its interval; zero is a line where it is not the edge."""
        line = [" "] * self.width
        if self.left < 0:
            line[self.column(0)] = "┊"
        if low is not None and high is not None:
            begin, end = self.column(low), self.column(high)
            line[begin : end + 1] = "─" * (end + 1 - begin)
            line[begin], line[end] = "├", "┤"
        line[self.column(value)] = "●"
        return "".join(line).rstrip()

    def labels(self) -> str:
        line = [" "] * self.width
        for half in range(round(self.left * 2), round(self.right * 2) + 1):
            value, label = half / 2, f"{half / 2:g}"
            begin = min(max(0, self.column(value) - len(label) // 2), self.width - len(label))
            line[begin : begin + len(label)] = label
        return "".join(line)


def histogram(counts: Sequence[int], height: int) -> list[str]:
    """Rows of blocks, top row first, two columns a bin; heights are logarithms, and one is seen."""
    most = math.log1p(max(counts, default=0)) or 1.0
    tall = [max(math.log1p(n) / most * height * 8, 1) if n else 0 for n in counts]
    return [
        "".join(_EIGHTHS[max(0, min(8, round(full - row * 8)))] * 2 for full in tall).rstrip()
        for row in reversed(range(height))
    ]
