"""What one pass of the subject over a shard of excerpts leaves behind, for every unit of a layer.

The pass itself is most of the cost and must stay so. Of every layer's activations (batch, tokens, units) each
batch takes per excerpt and unit the maximum, the minimum where a unit is signed, and four sums of powers, in
pieces that fit a processor's cache. Everything else works on those, which are as many times smaller as an
excerpt has tokens; whole rows are copied for the few excerpts that enter a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nxtools.arrays import encode_rows, pack
from nxtools.records import SETS
from nxtools.subject.bins import BINS, bins_of
from nxtools.subject.excerpts import Plan
from nxtools.subject.keep import Keeper

if TYPE_CHECKING:
    from collections.abc import Callable

    from nxtools.subject.load import Subject


PIECE = 1 << 18  # float32 values of a layer reduced together: 1 MiB, about a core's second-level cache
ENTRANTS = 1 << 15  # rows copied at once: 8 MiB of them at 64 tokens
KEY_TOKENS = 8  # excerpts with the same tokens up to the peak are near duplicates


@dataclass(frozen=True)
class Keep:
    """How many excerpts are kept per unit, set and side: in the list, and in each bin of the maximum."""

    top: int = 20
    spread: int = 2


@dataclass(frozen=True)
class Shard:
    """Which excerpts of a plan one pass covers: those of the contexts first..last-1."""

    number: int
    first: int
    last: int

    def excerpts(self, plan: Plan) -> NDArray[np.int64]:
        return np.flatnonzero((plan.context >= self.first) & (plan.context < self.last))


def row_type(tokens: int) -> np.dtype[Any]:
    """An excerpt in a list: place in the plan, position of the peak, activations in units of the scale."""
    return np.dtype(
        [("excerpt", np.int32), ("peak", np.int32), ("scale", np.float32), ("row", np.float16, (tokens,))]
    )


class LayerRecorder:
    """Gathers one layer's recording over the batches of one shard."""

    def __init__(self, units: int, plan: Plan, keep: Keep, *, signed: bool, pool_size: int) -> None:
        self.units = units
        self.plan = plan
        self.sides = (1, -1) if signed else (1,)
        tokens = plan.excerpt
        cells = len(SETS) * units
        kind = row_type(tokens)
        self.lists = {side: Keeper(cells, keep.top, kind) for side in self.sides}
        self.spread = {side: Keeper(cells * BINS, keep.spread, kind) for side in self.sides}
        self.histogram = {side: np.zeros(cells * BINS, np.int64) for side in self.sides}
        self.powers = np.zeros((4, len(SETS), units))
        self.tokens = np.zeros(len(SETS), np.int64)
        self.minimum = np.full((len(SETS), units), np.inf, np.float32)
        self.maximum = np.full((len(SETS), units), -np.inf, np.float32)
        self.nonfinite = np.zeros(units, np.int64)
        self.pool_rows = np.zeros((units, pool_size, tokens), np.float16)
        self.pool_scale = np.zeros((units, pool_size), np.float32)
        self.pool_excerpt = np.zeros(pool_size, np.int32)
        self._pooled = 0
        self._unit = np.arange(units)

    def add(
        self, values: torch.Tensor, excerpts: NDArray[np.int64], slot: int, first: int, keys: Keys
    ) -> None:
        """values: activations (excerpts, tokens, units); positions before `first` are left out."""
        reduced = _reduce(values[:, first:], signed=len(self.sides) == 2)
        maximum, minimum, powers = reduced
        plan = self.plan
        sets = plan.set[excerpts].astype(np.int64)
        bad = ~np.isfinite(powers[0])
        if bad.any():
            columns = np.flatnonzero(bad.any(axis=0))
            counts = (~torch.isfinite(values[:, first:, torch.from_numpy(columns).to(values.device)])).sum(
                (0, 1)
            )
            self.nonfinite[columns] += counts.cpu().numpy()
        of_set = np.arange(len(SETS))[:, None] == sets  # (sets, excerpts)
        self.powers += of_set.astype(np.float64) @ powers.astype(np.float64)
        self.tokens += of_set.sum(axis=1) * (values.shape[1] - first)
        for place in np.unique(sets):
            members = sets == place
            np.maximum(self.maximum[place], maximum[members].max(axis=0), out=self.maximum[place])
            if minimum is not None:
                np.minimum(self.minimum[place], minimum[members].min(axis=0), out=self.minimum[place])
        cells = sets[:, None] * self.units + self._unit
        for side in self.sides:
            height = maximum if side == 1 else -minimum  # type: ignore[operator]
            self._offer(values, excerpts, slot, first, keys, side, height, cells)
        self._pool(values, excerpts, first)

    def _offer(
        self,
        values: torch.Tensor,
        excerpts: NDArray[np.int64],
        slot: int,
        first: int,
        keys: Keys,
        side: int,
        height: NDArray[np.float32],
        cells: NDArray[np.int64],
    ) -> None:
        """height: (excerpts, units), how far a unit goes to this side in each excerpt."""
        lists, spread = self.lists[side], self.spread[side]
        which = bins_of(height)
        binned = cells * BINS + which
        self.histogram[side] += np.bincount(binned.ravel(), minlength=len(self.histogram[side]))
        rank = -self.plan.priority[excerpts].astype(np.float32)
        to_list = (height >= lists.bar[cells]) & (height > 0)
        to_spread = (rank[:, None] >= spread.bar[binned]) & (which > 0)
        rows, units = np.nonzero(to_list | to_spread)
        for begin in range(0, len(rows), ENTRANTS):
            row, unit = rows[begin : begin + ENTRANTS], units[begin : begin + ENTRANTS]
            cell, bin_, peak = cells[row, unit], binned[row, unit], height[row, unit]
            enters = to_list[row, unit] & (
                peak >= lists.bar[cell]
            )  # earlier entrants may have raised the bar
            drawn = to_spread[row, unit] & (rank[row] >= spread.bar[bin_])
            still = enters | drawn
            row, unit, cell, bin_, peak = row[still], unit[still], cell[still], bin_[still], peak[still]
            enters, drawn = enters[still], drawn[still]
            payload = self._rows(values, excerpts, row, unit, first, side)
            identifier = self.plan.id[excerpts[row]]
            key = keys.at(row, payload["peak"] + slot * self.plan.excerpt)
            lists.offer(cell[enters], peak[enters], identifier[enters], payload[enters], key[enters])
            spread.offer(bin_[drawn], rank[row][drawn], identifier[drawn], payload[drawn])

    def _rows(
        self,
        values: torch.Tensor,
        excerpts: NDArray[np.int64],
        row: NDArray[np.int64],
        unit: NDArray[np.int64],
        first: int,
        side: int,
    ) -> NDArray[Any]:
        device = values.device
        taken = values[
            torch.from_numpy(row).to(device), :, torch.from_numpy(unit).to(device)
        ]  # (entrants, tokens)
        rows = taken.float().cpu().numpy()
        payload = np.empty(len(row), row_type(rows.shape[1]))
        payload["excerpt"] = excerpts[row]
        payload["peak"] = (rows[:, first:] if side == 1 else -rows[:, first:]).argmax(axis=1) + first
        rows[:, :first] = np.nan
        payload["row"], payload["scale"] = encode_rows(rows)
        return payload

    def _pool(self, values: torch.Tensor, excerpts: NDArray[np.int64], first: int) -> None:
        members = np.flatnonzero(self.plan.pool_rank[excerpts] >= 0)
        if not len(members):
            return
        rows = (
            values[torch.from_numpy(members).to(values.device)]
            .float()
            .cpu()
            .numpy()
            .transpose(2, 0, 1)
            .copy()
        )
        rows[:, :, :first] = np.nan  # (units, excerpts, tokens)
        here = slice(self._pooled, self._pooled + len(members))
        self.pool_rows[:, here], self.pool_scale[:, here] = encode_rows(rows)
        self.pool_excerpt[here] = excerpts[members]
        self._pooled += len(members)

    def to_bytes(self) -> bytes:
        """The recording as one blob; its fields are described in docs/stream.md."""
        arrays: dict[str, NDArray[Any]] = {
            "powers": self.powers,
            "tokens": self.tokens,
            "maximum": self.maximum,
            "nonfinite": self.nonfinite,
            "pool.row": self.pool_rows,
            "pool.scale": self.pool_scale,
            "pool.excerpt": self.pool_excerpt,
        }
        if len(self.sides) == 2:
            arrays["minimum"] = self.minimum
        refused = 0
        for side, name in zip(self.sides, ("top", "bottom"), strict=False):
            for keeper, kind in ((self.lists[side], name), (self.spread[side], f"{name}.spread")):
                cell, payload, rank, key = keeper.kept()
                arrays[f"{kind}.cell"] = cell.astype(np.int32)
                arrays[f"{kind}.rank"] = rank
                arrays[f"{kind}.key"] = key
                for part in ("excerpt", "peak", "scale", "row"):
                    arrays[f"{kind}.{part}"] = payload[part]
                refused += keeper.refused
            arrays[f"{name}.histogram"] = self.histogram[side].astype(np.uint32)
        return pack(arrays, {"units": self.units, "near_duplicates": refused})


class Keys:
    """A number for the last 8 tokens up to every position of a batch of contexts."""

    def __init__(self, contexts: NDArray[np.int32]) -> None:
        padded = np.pad(contexts.astype(np.int64) + 2, ((0, 0), (KEY_TOKENS - 1, 0)), constant_values=1)
        tokens = padded.astype(np.uint64)
        keys = np.zeros(contexts.shape, np.uint64)
        for back in range(KEY_TOKENS):
            keys = keys * np.uint64(0x100000001B3) + tokens[:, back : back + contexts.shape[1]]
        self._keys = keys

    def at(self, row: NDArray[np.int64], position: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
        found: NDArray[np.uint64] = self._keys[row, position]
        return found


def _reduce(
    values: torch.Tensor, *, signed: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32]]:
    """Per excerpt and unit: maximum, minimum if asked, sums of the first four powers (4, excerpts, units)."""
    excerpts, tokens, units = values.shape
    kind = {"dtype": torch.float32, "device": values.device}
    maximum = torch.empty((excerpts, units), **kind)  # type: ignore[call-overload]
    minimum = torch.empty((excerpts, units), **kind) if signed else None  # type: ignore[call-overload]
    powers = torch.empty((4, excerpts, units), **kind)  # type: ignore[call-overload]
    step = max(1, PIECE // (tokens * units))
    for first in range(0, excerpts, step):
        here = slice(first, first + step)
        x = values[here].float()
        torch.amax(x, 1, out=maximum[here])
        if minimum is not None:
            torch.amin(x, 1, out=minimum[here])
        square = x * x
        torch.sum(x, 1, out=powers[0, here])
        torch.sum(square, 1, out=powers[1, here])
        torch.sum(x.mul(square), 1, out=powers[2, here])
        torch.sum(square.mul_(square), 1, out=powers[3, here])
    return (
        maximum.cpu().numpy(),
        None if minimum is None else minimum.cpu().numpy(),
        powers.cpu().numpy(),
    )


def record_shard(
    subject: Subject,
    plan: Plan,
    shard: Shard,
    layers: list[int],
    keep: Keep,
    *,
    both_sides: Callable[[int], bool],
    batch: int,
    bos: int | None,
    progress: Callable[[int], None] = lambda excerpts: None,
) -> dict[int, bytes]:
    """The recordings of a shard by layer, from one pass that ends at the last layer asked for.

    Batches have one shape, so that activations do not depend on where a shard ends: the last one is filled up
    with zeros that nobody looks at. `bos` is put in front of every context and is not part of it.
    """
    from nxtools.subject.sites import captured

    excerpts = shard.excerpts(plan)
    pool_size = int((plan.pool_rank[excerpts] >= 0).sum())
    sites = [site for site in subject.sites if site.layer in layers]
    recorders = {
        site.layer: LayerRecorder(site.width, plan, keep, signed=both_sides(site.layer), pool_size=pool_size)
        for site in sites
    }
    width = plan.contexts.shape[1]
    lead = 0 if bos is None else 1
    parts: list[tuple[int, NDArray[np.int64], NDArray[np.int64], Keys]] = []  # slot, rows, excerpts, keys

    def read(layer: int, activations: torch.Tensor) -> None:
        for slot, rows, members, keys in parts:
            tokens = slice(lead + slot * plan.excerpt, lead + (slot + 1) * plan.excerpt)
            values = activations[: len(rows), tokens]
            if rows[-1] != len(rows) - 1:
                values = activations[torch.from_numpy(rows).to(activations.device), tokens]
            first = 1 if plan.masked_first and slot == 0 else 0
            recorders[layer].add(values, members, slot, first, keys)

    order = np.lexsort((plan.slot[excerpts], plan.context[excerpts]))
    excerpts = excerpts[order]
    with captured(subject.model, sites, read) as run:
        for begin in range(shard.first, shard.last, batch):
            end = min(begin + batch, shard.last)
            ids = np.zeros((batch, width + lead), np.int64)
            ids[: end - begin, lead:] = plan.contexts[begin:end]
            if bos is not None:
                ids[:, 0] = bos
            here = excerpts[
                np.searchsorted(plan.context[excerpts], begin) : np.searchsorted(plan.context[excerpts], end)
            ]
            parts.clear()
            for slot in np.unique(plan.slot[here]):
                members = here[plan.slot[here] == slot]
                rows = (plan.context[members] - begin).astype(np.int64)
                parts.append((int(slot), rows, members, Keys(plan.contexts[begin:end][rows])))
            run(torch.from_numpy(ids).to(subject.device))
            progress(len(here))
    return {layer: recorder.to_bytes() for layer, recorder in recorders.items()}
