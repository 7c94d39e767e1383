"""Simulated activations by excerpt, as one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nxtools.stream import Record
    from nxtools.unit import Shown

Activations = NDArray[np.float32]


class Expected:
    """What a simulator said of each token of some excerpts; null where it failed."""

    def __init__(self, by_excerpt: Mapping[str, Sequence[float | None]]) -> None:
        self.excerpts = sorted(by_excerpt)
        rows = [by_excerpt[name] for name in self.excerpts]
        self.lengths = list(map(len, rows))
        self.values: Activations = np.array(list(chain.from_iterable(rows)), np.float32)

    def question(self) -> Record:
        """The same for questions, whatever the order was."""
        return {"excerpts": " ".join(self.excerpts), "lengths": self.lengths, "values": self.values}

    def on(self, shown: Shown) -> Activations:
        """(n, tokens), in the order of the excerpts; NaN where nothing was said."""
        shape = shown.table.activations.shape
        place = {name: number for number, name in enumerate(self.excerpts)}
        found = [place.get(name, -1) for name in shown.excerpts]
        if self.lengths.count(shape[1]) == len(place) and -1 not in found:
            return self.values.reshape(len(place), shape[1])[found]
        ends = np.cumsum([0, *self.lengths])
        rows = np.full(shape, np.nan, np.float32)
        for row, number in zip(rows, found, strict=True):
            if number >= 0:
                row[: self.lengths[number]] = self.values[ends[number] : ends[number + 1]]
        return rows
