"""Whole excerpts of single units, taken from a layer's activations and kept while a list has use for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

POOL_PART_BYTES = 1 << 24  # of one layer: a wide model's pool goes to the disk in parts


def scaled(rows: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (…, tokens) as float16 in units of each row's largest magnitude, and those magnitudes (…).

    Real models exceed float16's 65,504, and the scale keeps three significant digits for quiet rows.
    Positions before `first` are left out: NaN. So are whole rows where something is not finite.
    """
    scale = rows[..., first:].abs().amax(-1)
    scale = torch.where(scale.isfinite(), scale, torch.nan)
    short = (rows / torch.where(scale == 0, 1.0, scale)[..., None]).half()
    short[..., :first] = torch.nan
    return short, scale


class Rows:
    """A table of rows that grows as they come; the places of dropped rows are used again.

    `row` (places, tokens) float16 in units of `scale`; `excerpt`: place in the plan.
    """

    def __init__(self, tokens: int, places: int) -> None:
        """`places`: how many rows will be kept at a time, or thereabouts."""
        self.row = np.empty((places, tokens), np.float16)
        self.scale = np.empty(places, np.float32)
        self.excerpt = np.empty(places, np.int32)
        self._free = np.arange(places, dtype=np.int32)
        self.fresh = 0  # rows added since rows were last dropped
        self.kept = 0  # rows that were left then

    def add(self, rows: torch.Tensor, first: int, excerpt: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Keep rows (n, tokens), float32 on the processor; returns their places (n,)."""
        count = len(rows)
        if len(self._free) < count:
            self._grow(count - len(self._free))
        places, self._free = self._free[:count], self._free[count:]
        short, scale = scaled(rows, first)
        self.row[places], self.scale[places], self.excerpt[places] = short.numpy(), scale.numpy(), excerpt
        self.fresh += count
        return places

    def _grow(self, wanted: int) -> None:
        size = len(self.row)
        larger = max(size + wanted, size + size // 2)
        self._free = np.append(self._free, np.arange(size, larger, dtype=np.int32))
        for name in ("row", "scale", "excerpt"):
            old = getattr(self, name)
            new = np.empty((larger, *old.shape[1:]), old.dtype)
            new[:size] = old
            setattr(self, name, new)

    def keep_only(self, places: NDArray[np.int32]) -> None:
        """Drop the rows at all other places; a place may be named more than once."""
        free = np.ones(len(self.row), bool)
        free[places] = False
        self._free = np.flatnonzero(free).astype(np.int32)
        self.fresh, self.kept = 0, len(free) - len(self._free)


class PoolRows:
    """Rows of the random pool for all units of a layer, handed out in parts of bounded size.

    A part has `row` (units, excerpts, tokens) float16, `scale` (units, excerpts) and `excerpt` (excerpts,).
    """

    def __init__(self, units: int, tokens: int, excerpts: int) -> None:
        """`excerpts`: how many there will be in all."""
        self._most = max(1, POOL_PART_BYTES // (units * tokens * 2))
        self._shape = units, tokens
        self._left = excerpts
        self._filled = 0
        self._begin()

    def _begin(self) -> None:
        units, tokens = self._shape
        size = min(self._left, self._most)
        self._left -= size
        self._row = torch.empty((units, size, tokens), dtype=torch.float16)
        self._scale = torch.empty((units, size))
        self._excerpt = np.empty(size, np.int32)
        self._filled = 0

    def add(
        self, values: torch.Tensor, first: int, excerpt: NDArray[np.integer[Any]]
    ) -> list[dict[str, NDArray[Any]]]:
        """Take excerpts' activations (n, tokens, units); returns the parts that are full now."""
        full = []
        done = 0
        while done < len(values):
            count = min(len(values) - done, len(self._excerpt) - self._filled)
            here = slice(self._filled, self._filled + count)
            short, scale = scaled(values[done : done + count].float().transpose(1, 2), first)
            self._row[:, here], self._scale[:, here] = short.transpose(0, 1), scale.T
            self._excerpt[here] = excerpt[done : done + count]
            self._filled += count
            done += count
            if self._filled == len(self._excerpt):
                full.append(
                    {"row": self._row.numpy(), "scale": self._scale.numpy(), "excerpt": self._excerpt}
                )
                self._begin()
        return full
