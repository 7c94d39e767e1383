"""The corpus table: each unit's mean activation by token, over all the evidence and nothing else.

The plan says which tokens the evidence has, so they are known before the subject runs. A shard keeps means
over its own part of the evidence, in the form that recordings/table.py reads and puts together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nxtools.arrays import encode_rows, pack
from nxtools.records import SETS

if TYPE_CHECKING:
    import torch

    from nxtools.subject.excerpts import Plan
    from nxtools.subject.parts import Part

SEEN = 2  # a token's occurrences in the evidence: one alone says little
EVIDENCE = SETS.index("evidence")
UNITS_AT_ONCE = 256  # transposed and shortened together


def evidence_tokens(plan: Plan) -> NDArray[np.int32]:
    """The tokens of the table, rising: those that the evidence has at least twice, where they count."""
    ids, count = np.unique(_tokens(plan, np.flatnonzero(plan.set == EVIDENCE)), return_counts=True)
    kept: NDArray[np.int32] = ids[count >= SEEN]
    return kept


def _tokens(plan: Plan, excerpts: NDArray[np.int64]) -> NDArray[np.int32]:
    """The tokens of excerpts at the positions that count, in one row."""
    tokens: NDArray[np.int32] = plan.ids(excerpts)[plan.counted(excerpts)]
    return tokens


@dataclass(frozen=True)
class ShardTokens:
    """A shard's part of the table's tokens: `ids` (T,) rising, and how often its evidence has each (T,)."""

    ids: NDArray[np.int32]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, plan: Plan, excerpts: NDArray[np.int64], known: NDArray[np.int32]) -> ShardTokens:
        """Of the shard with these excerpts; `known`: see `evidence_tokens`."""
        ids, count = np.unique(_tokens(plan, excerpts[plan.set[excerpts] == EVIDENCE]), return_counts=True)
        kept = np.isin(ids, known)
        return cls(ids[kept], count[kept])

    def memory(self, units: int) -> int:
        """Bytes while the shard is recorded."""
        return len(self.ids) * units * 8

    def stored(self, units: int) -> int:
        """Bytes in the store."""
        return len(self.ids) * (units * 2 + 12) + units * 4 + 400


class TokenMeans:
    """Sums one layer's activations by token over the batches of one shard.

    Each batch is summed in float32 and added to the whole in float64. Batches are the same for any size of
    shard, so the sums of shards add up to those of all the text, but for float64's last digits.
    """

    def __init__(self, units: int, plan: Plan, tokens: ShardTokens) -> None:
        self.units, self.plan, self.tokens = units, plan, tokens
        self._sums = np.zeros((len(tokens.ids), units))

    def add(self, values: torch.Tensor, part: Part) -> None:
        """values: activations (excerpts, tokens, units)."""
        import torch

        rows = np.flatnonzero(self.plan.set[part.excerpts] == EVIDENCE)
        ids = self.plan.ids(part.excerpts[rows])[:, part.first :].ravel()
        known = np.isin(ids, self.tokens.ids)
        if not known.any():
            return
        which, number = np.unique(ids[known], return_inverse=True)
        device = values.device
        mine = values[torch.from_numpy(rows).to(device), part.first :].reshape(-1, self.units)
        mine = mine[torch.from_numpy(np.flatnonzero(known)).to(device)].float()
        summed = by_index if device.type == "cpu" else by_product
        sums = summed(mine, torch.from_numpy(number).to(device), len(which))
        self._sums[np.searchsorted(self.tokens.ids, which)] += sums.cpu().numpy()

    def finish(self) -> bytes:
        """`tokens` (T,), `count` (T,), `row` (units, T) means as float16 in units of `scale` (units,)."""
        size = len(self.tokens.ids)
        row, scale = np.empty((self.units, size), np.float16), np.empty(self.units, np.float32)
        for first in range(0, self.units, UNITS_AT_ONCE):
            here = slice(first, first + UNITS_AT_ONCE)
            means = (self._sums[:, here] / self.tokens.count[:, None]).T.astype(np.float32)
            row[here], scale[here] = encode_rows(means)
        return pack({"tokens": self.tokens.ids, "count": self.tokens.count, "row": row, "scale": scale})


def by_index(rows: torch.Tensor, number: torch.Tensor, count: int) -> torch.Tensor:
    """(count, units): the sum of the rows (n, units) of each number (n,)."""
    return rows.new_zeros((count, rows.shape[1])).index_add_(0, number, rows)


def by_product(rows: torch.Tensor, number: torch.Tensor, count: int) -> torch.Tensor:
    """The same on devices whose index_add_ adds in no fixed order."""
    import torch

    chosen = number == torch.arange(count, device=rows.device)[:, None]
    return chosen.to(rows.dtype) @ rows
