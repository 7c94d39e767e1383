"""What one pass of the subject over a shard of excerpts leaves behind, for every unit of a layer.

The pass itself is most of the cost and must stay so. Of every layer's activations (batch, tokens, units) each
batch takes per excerpt and unit the maximum, the minimum where a unit is signed, and four sums of powers, in
pieces that fit a processor's cache. Everything else works on those, which are as many times smaller as an
excerpt has tokens; whole rows are copied for the few excerpts that may enter a list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nxtools.arrays import pack
from nxtools.records import SETS
from nxtools.subject.behind import Behind
from nxtools.subject.bins import BINS, Histogram, bins_of, strata_of
from nxtools.subject.excerpts import Plan
from nxtools.subject.keep import Keeper
from nxtools.subject.parts import Part, Shard, parts_of
from nxtools.subject.reduce import Reduced, Reducer
from nxtools.subject.rows import PoolRows, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nxtools.subject.load import Subject
    from nxtools.subject.table import TokenMeans


ENTRANTS = 1 << 15  # rows copied at once: 8 MiB of them at 64 tokens


@dataclass(frozen=True)
class Keep:
    """How many excerpts are kept per unit and set: in the list of each side, and in each stratum."""

    top: int = 20
    spread: int = 2


@dataclass(frozen=True)
class Recording:
    """What a shard left behind of one layer: the recording itself, and where the parts of the pool went."""

    data: bytes
    pool: list[str]
    tokens: int
    near_duplicates: int


class LayerRecorder:
    """Gathers one layer's recording over the batches of one shard."""

    def __init__(
        self,
        units: int,
        plan: Plan,
        keep: Keep,
        *,
        signed: bool,
        excerpts: NDArray[np.int64],
        reduce: Reducer,
        put: Callable[[bytes], str],
    ) -> None:
        """`excerpts` (n,) of the plan will come."""
        self.units = units
        self.plan = plan
        self.sides = (1, -1) if signed else (1,)
        cells = len(SETS) * units
        self.lists = {side: Keeper(cells, keep.top) for side in self.sides}
        self.strata = BINS * len(self.sides)
        self.spread = Keeper(cells * self.strata, keep.spread)
        self.drawn_from = Histogram(cells * self.strata)
        self.histogram = {side: Histogram(cells * BINS) for side in self.sides}
        self.powers = np.zeros((4, len(SETS), units))
        self.tokens = np.zeros(len(SETS), np.int64)
        self.minimum = np.full((len(SETS), units), np.inf, np.float32)
        self.maximum = np.full((len(SETS), units), -np.inf, np.float32)
        self.nonfinite = np.zeros(units, np.int64)
        kept = cells * (keep.top * len(self.sides) + 16 * keep.spread)  # spread over eight octaves, say
        self._rows = Rows(plan.excerpt, min(kept, units * len(excerpts)))
        self._reduce = reduce
        self._pool = PoolRows(units, plan.excerpt, int((plan.pool_rank[excerpts] >= 0).sum()))
        self._pool_blobs: list[str] = []
        self._put = put
        self._unit = np.arange(units, dtype=np.int32)

    def add(self, values: torch.Tensor, part: Part) -> None:
        """values: activations (excerpts, tokens, units)."""
        counted, excerpts = values[:, part.first :], part.excerpts
        of_set = np.arange(len(SETS))[:, None] == self.plan.set[excerpts]  # (sets, excerpts)
        reduced = self._reduce(counted, of_set, signed=len(self.sides) == 2)
        self.powers += reduced.powers
        self.tokens += of_set.sum(axis=1) * counted.shape[1]
        self._add_extremes(reduced, of_set)
        if reduced.bad is not None:
            self._count_nonfinite(counted, reduced.bad)
        self._offer(values, part, _without_bad(reduced))
        members = self.plan.pool_rank[excerpts] >= 0
        if members.any():
            pooled = values[torch.from_numpy(members).to(values.device)]
            for full in self._pool.add(pooled, part.first, excerpts[members]):
                self._pool_blobs.append(self._put(pack(full)))
        if self._rows.fresh > self._rows.kept // 2:
            self._settle()

    def _add_extremes(self, reduced: Reduced, of_set: NDArray[np.bool_]) -> None:
        for place, members in enumerate(of_set):
            if members.any():
                highest = reduced.maximum[members].max(axis=0)
                np.maximum(self.maximum[place], highest, out=self.maximum[place])
                if reduced.minimum is not None:
                    lowest = reduced.minimum[members].min(axis=0)
                    np.minimum(self.minimum[place], lowest, out=self.minimum[place])

    def _count_nonfinite(self, values: torch.Tensor, bad: NDArray[np.bool_]) -> None:
        columns = np.flatnonzero(bad.any(axis=0))
        counts = (~torch.isfinite(values[:, :, torch.from_numpy(columns).to(values.device)])).sum((0, 1))
        self.nonfinite[columns] += counts.cpu().numpy()

    def _offer(self, values: torch.Tensor, part: Part, reduced: Reduced) -> None:
        """Offer every excerpt to the lists that it may enter, and keep the rows of those."""
        maximum, minimum = reduced.maximum, reduced.minimum
        sets = self.plan.set[part.excerpts].astype(np.int32)
        cells = sets[:, None] * np.int32(self.units) + self._unit
        heights = {1: maximum} if minimum is None else {1: maximum, -1: -minimum}
        enters: dict[int, NDArray[np.bool_]] = {}
        for side, height in heights.items():
            self.histogram[side].add(cells * np.int32(BINS) + bins_of(height))
            bar = self.lists[side].bar.reshape(len(SETS), self.units)[sets]
            enters[side] = (height >= bar) & (height > 0)
        which = strata_of(maximum, minimum)
        stratum = cells * np.int32(self.strata) + which
        self.drawn_from.add(stratum)
        priority = -self.plan.priority[part.excerpts].astype(np.float32)
        drawn = (priority[:, None] >= self.spread.bar[stratum]) & (which % BINS > 0)
        every = np.flatnonzero(np.logical_or.reduce([drawn, *enters.values()]))
        for begin in range(0, len(every), ENTRANTS):
            at = every[begin : begin + ENTRANTS]  # of the (excerpt, unit) pairs
            row, unit = np.divmod(at, self.units)
            taken = _take(values, row, unit)
            place = self._rows.add(taken, part.first, part.excerpts[row])
            counted = taken.numpy()[:, part.first :]
            identifier = self.plan.id[part.excerpts[row]]
            for side, height in heights.items():
                here = np.flatnonzero(enters[side].ravel()[at])
                pair = at[here]
                peak = (counted[here].argmax(1) if side == 1 else counted[here].argmin(1)) + part.first
                key = part.keys[row[here], peak]
                keeper = self.lists[side]
                keeper.offer(cells.ravel()[pair], height.ravel()[pair], identifier[here], place[here], key)
            here = np.flatnonzero(drawn.ravel()[at])
            self.spread.offer(stratum.ravel()[at[here]], priority[row[here]], identifier[here], place[here])

    def _keepers(self) -> dict[str, Keeper]:
        names = dict(zip(self.sides, ("top", "bottom"), strict=False))
        return {names[side]: keeper for side, keeper in self.lists.items()} | {"spread": self.spread}

    def _settle(self) -> None:
        keepers = self._keepers().values()
        for keeper in keepers:
            keeper.settle()
        self._rows.keep_only(np.concatenate([keeper.place for keeper in keepers]))

    def finish(self) -> Recording:
        """The recording as one blob; its fields are described in docs/commands/nx-record.md."""
        self._settle()
        arrays: dict[str, NDArray[Any]] = {
            "powers": self.powers,
            "tokens": self.tokens,
            "maximum": self.maximum,
            "nonfinite": self.nonfinite,
            "spread.histogram": self.drawn_from.counts(),
        }
        if len(self.sides) == 2:
            arrays["minimum"] = self.minimum
        for side, name in zip(self.sides, ("top", "bottom"), strict=False):
            arrays[f"{name}.histogram"] = self.histogram[side].counts()
        # Rows in an order of their own, by unit and then by excerpt: that of a few units lie together.
        unit = np.zeros(len(self._rows.row), np.int32)
        used = np.zeros(len(unit), bool)
        for name, keeper in self._keepers().items():
            cell = keeper.cell // self.strata if name == "spread" else keeper.cell
            unit[keeper.place] = cell % self.units
            used[keeper.place] = True
        places = np.flatnonzero(used)
        places = places[np.lexsort((self._rows.excerpt[places], unit[places]))]
        number = np.zeros(len(unit), np.int32)
        number[places] = np.arange(len(places), dtype=np.int32)
        for name, keeper in self._keepers().items():
            arrays[f"{name}.cell"] = keeper.cell
            arrays[f"{name}.place"] = number[keeper.place]
            if name != "spread":  # which goes by the plan's priorities
                arrays[f"{name}.rank"] = keeper.rank
                arrays[f"{name}.key"] = keeper.key
        arrays["row"] = self._rows.row[places]
        arrays["scale"] = self._rows.scale[places]
        arrays["excerpt"] = self._rows.excerpt[places]
        refused = sum(keeper.refused for keeper in self.lists.values())
        return Recording(pack(arrays), self._pool_blobs, int(self.tokens.sum()), refused)


def _without_bad(reduced: Reduced) -> Reduced:
    """With zeros, which no list takes, for what is not finite."""
    if reduced.bad is None:
        return reduced
    zero = np.float32(0)
    minimum = None if reduced.minimum is None else np.where(reduced.bad, zero, reduced.minimum)
    return replace(reduced, maximum=np.where(reduced.bad, zero, reduced.maximum), minimum=minimum)


def _take(values: torch.Tensor, row: NDArray[np.int64], unit: NDArray[np.int64]) -> torch.Tensor:
    """Rows (n, tokens) of values (excerpts, tokens, units), float32 on the processor."""
    device = values.device
    taken = values[torch.from_numpy(row).to(device), :, torch.from_numpy(unit).to(device)]
    return taken.float().cpu().contiguous()


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
    put: Callable[[bytes], str],
    progress: Callable[[int], None] = lambda excerpts: None,
    tables: Mapping[int, TokenMeans] = MappingProxyType({}),
) -> Iterator[tuple[int, Recording]]:
    """The recordings of a shard by layer, from one pass that ends at the last layer asked for.

    `tables`, by layer, take the means of the same pass, also of layers that are not recorded.

    Batches have one shape, so that activations do not depend on where a shard ends: the last one is filled up
    with zeros that nobody looks at. `bos` is put in front of every context and is not part of it. `put` takes
    the parts of the pool and returns their digests; it is called from another thread.
    """
    from nxtools.subject.sites import captured

    excerpts = shard.excerpts(plan)
    context = plan.context[excerpts]
    sites = [site for site in subject.sites if site.layer in {*layers, *tables}]
    reduce = Reducer()
    recorders = {
        site.layer: LayerRecorder(
            site.width,
            plan,
            keep,
            signed=both_sides(site.layer),
            excerpts=excerpts,
            reduce=reduce,
            put=put,
        )
        for site in sites
        if site.layer in layers
    }
    takers = {
        site.layer: [taker[site.layer] for taker in (recorders, tables) if site.layer in taker]
        for site in sites
    }
    width = plan.contexts.shape[1]
    lead = 0 if bos is None else 1
    parts: list[Part] = []
    behind = Behind()

    def read(layer: int, activations: torch.Tensor) -> None:
        for part in parts:
            first = lead + part.slot * plan.excerpt
            values = activations[: len(part.rows), first : first + plan.excerpt]
            if part.rows[-1] != len(part.rows) - 1:
                rows = torch.from_numpy(part.rows).to(activations.device)
                values = activations[rows, first : first + plan.excerpt]
            for taker in takers[layer]:
                behind(partial(taker.add, values, part))

    with captured(subject.model, sites, read) as run, behind:
        for begin in range(shard.first, shard.last, batch):
            end = min(begin + batch, shard.last)
            contexts = plan.contexts[begin:end]
            ids = np.zeros((batch, width + lead), np.int64)
            ids[: end - begin, lead:] = contexts
            if bos is not None:
                ids[:, 0] = bos
            here = excerpts[slice(*np.searchsorted(context, [begin, end]))]
            parts = list(parts_of(plan, here, begin, contexts))
            run(torch.from_numpy(ids).to(subject.device))
            progress(len(here))
    takers.clear()
    while recorders:
        layer = next(iter(recorders))
        yield layer, recorders.pop(layer).finish()
