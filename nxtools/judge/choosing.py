"""Which held-out excerpts are judged: active ones of all strengths, and silent ones from the random pick.

A unit is *active* on an excerpt where its strength on the side that is explained rises above a share of its
maximum on evidence: GELU and gated units are never exactly 0. Active excerpts come from the spread sample,
which has them of every strength; where the line has none, from the top and random ones. Where the line has
fewer silent ones than active ones, further ones come from the random pool that it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from nxtools.judge.beyond import JUDGED_ON, MARKED, Beyond, PoolOf, drawn, maxima, strengths_of
from nxtools.judge.similar import Similar
from nxtools.records import NO_TOKEN, Failure
from nxtools.unit import Shown, Unit

ACTIVE = 0.1  # of the evidence's maximum
WANTED = "nx-top --held-out"


@dataclass(frozen=True)
class Item:
    """One excerpt that is judged, or one version of it. row: its place among those that are shown;
    marks: places of the tokens that are shown as marked."""

    row: int
    truth: bool
    marks: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Chosen:
    """Excerpts of one unit: `active` by falling strength, `silent` in random order; both are rows of `shown`.

    strengths: (n, tokens) on the side that is explained, NaN where left out. threshold: what a unit that is
    active is above. similar: the unit that fires on a silent excerpt, and the places where, if that is why
    the excerpt was taken.
    """

    unit: Unit
    sign: str
    shown: Shown
    strengths: NDArray[np.float32]
    peak: float
    threshold: float
    active: tuple[int, ...]
    silent: tuple[int, ...]
    similar: Mapping[int, tuple[str, frozenset[int]]] = field(default_factory=dict)

    def tokens(self, row: int) -> list[str]:
        return self.shown.table.texts[row]

    def name(self, row: int) -> str:
        return self.shown.excerpts[row] or str(row)

    def share(self, row: int) -> float:
        """An excerpt's maximum as a share of the evidence's."""
        return float(self._maxima[row] / self.peak)

    @cached_property
    def _maxima(self) -> NDArray[np.float32]:
        return maxima(self.strengths)

    def order(self, rows: Sequence[int], purpose: str) -> list[int]:
        """The rows in an order drawn by hash of unit and excerpt, which is another for each purpose."""
        return sorted(rows, key=lambda row: drawn(self.unit.name, self.name(row), purpose))

    def halves(self) -> list[list[Item]]:
        """Each active excerpt with its own tokens marked, and with as many others; excerpts that have not so
        many others are left out. No half has both versions of an excerpt.

        Where silent excerpts were taken for similar units, these are the wrong ones, with those units' tokens
        marked, and there is one part."""
        if self.similar:
            wrong = [Item(row, False, self.similar[row][1]) for row in self.silent]
            every = {row: Item(row, True, self._own(row)) for row in self.active} | {i.row: i for i in wrong}
            return [[every[row] for row in self.order(list(every), "marks")]]
        first: list[Item] = []
        second: list[Item] = []
        for row in self.order(self.active, "marks"):
            versions = self._versions(row)
            if versions is not None:
                if drawn(self.unit.name, self.name(row), "version")[0] % 2:
                    versions = versions[::-1]
                first.append(versions[0])
                second.append(versions[1])
        return [first, second]

    def _versions(self, row: int) -> tuple[Item, Item] | None:
        strengths = self.strengths[row]
        there = np.flatnonzero(~np.isnan(strengths)).tolist()
        own = self._own(row)
        others = [place for place in there if place not in own]
        if len(others) < len(own):
            return None
        others.sort(key=lambda place: drawn(self.unit.name, self.name(row), f"token {place}"))
        return Item(row, True, own), Item(row, False, frozenset(others[: len(own)]))

    def _own(self, row: int) -> frozenset[int]:
        """The places where the unit fires most."""
        return frozenset(np.flatnonzero(self.strengths[row] >= MARKED * self._maxima[row]).tolist())

    def mixed(self) -> list[Item]:
        """Active and silent excerpts in one order."""
        active = set(self.active)
        return [
            Item(row, row in active) for row in self.order([*self.active, *self.silent], "active or silent")
        ]


def choose(
    unit: Unit,
    sign: str,
    share: float,
    most: int,
    *,
    contrast: bool,
    pool: PoolOf = lambda unit: None,
    similar: Similar | None = None,
) -> Chosen | Failure:
    """At most `most` active and as many silent excerpts; a failure where there are no active ones, or with
    contrast no silent ones.

    pool: where silent ones come from that the line lacks. similar: takes silent ones on which similar units
    fire, in place of random ones.
    """
    evidence = maxima(strengths_of(unit.shown("evidence").table.activations, sign))
    peak = float(evidence.max(initial=0.0))
    if not peak > 0:
        return Failure("score", "no-evidence", "the unit never fires on evidence, so nothing is active")
    shown = unit.shown(JUDGED_ON)
    strengths = strengths_of(shown.table.activations, sign)
    highest = maxima(strengths)
    threshold = share * peak
    picks = np.array(shown.picks, dtype=object)
    there = (shown.table.ids != NO_TOKEN).any(axis=1) if len(picks) else np.zeros(0, bool)
    fires = (highest > threshold) & there
    spread = fires & (picks == "spread")
    sides = {"+": ("top",), "-": ("bottom",), "+-": ("top", "bottom")}[sign]
    among = spread if spread.any() else fires & np.isin(picks, [*sides, "random"])
    rows = sorted(np.flatnonzero(among).tolist(), key=lambda row: (-highest[row], shown.excerpts[row], row))
    if len(rows) > most:  # of every strength alike
        rows = [rows[round(place)] for place in np.linspace(0, len(rows) - 1, most)]
    if not rows:
        return Failure("score", "no-active", f"no held-out excerpt is active: {WANTED} spread=20")
    chosen = Chosen(unit, sign, shown, strengths, peak, threshold, tuple(rows), ())
    if similar is not None:
        return _with_hard(chosen, share, pool, similar)
    quiet = np.flatnonzero(~fires & there & (picks == "random")).tolist()
    chosen = replace(chosen, silent=tuple(chosen.order(quiet, "silent")[:most]))
    if contrast and len(chosen.silent) < len(rows):
        chosen = _with_random(chosen, pool)
    if contrast and not chosen.silent:
        return Failure("score", "no-silent", f"no held-out excerpt is silent: {WANTED} random=20")
    return chosen


def _with_random(chosen: Chosen, pool: PoolOf) -> Chosen:
    """As many silent excerpts as active ones, as far as the pool has them."""
    if (found := pool(chosen.unit)) is None:
        return chosen
    more, shown = Beyond(found, chosen.unit, chosen.sign), frozenset(chosen.shown.excerpts)
    quiet = np.flatnonzero(more.highest <= chosen.threshold).tolist()
    quiet = [place for place in quiet if more.names[place] not in shown]
    quiet.sort(key=lambda place: drawn(chosen.unit.name, more.names[place], "silent"))
    return _behind(chosen, more, quiet[: len(chosen.active) - len(chosen.silent)])


def _with_hard(chosen: Chosen, share: float, pool: PoolOf, similar: Similar) -> Chosen | Failure:
    """As many silent excerpts as active ones on which similar units fire, as far as the pool has them."""
    unit, found = chosen.unit, pool(chosen.unit)
    if found is None or unit.pool is None:
        return Failure("score", "no-pool", "similar units are found in the random pool, which is not at hand")
    more = Beyond(found, unit, chosen.sign)
    column, silent = int(unit.pool["column"]), more.highest <= chosen.threshold
    hard = list(islice(similar.excerpts(found, column, chosen.sign, silent, share), len(chosen.active)))
    if not hard:
        return Failure("score", "no-similar", "similar units fire nowhere where this one is silent")
    first = len(chosen.shown.picks)
    chosen = _behind(chosen, more, [one.place for one in hard])
    names = {first + n: (f"{unit.layer}:{one.column}", one.marks) for n, one in enumerate(hard)}
    return replace(chosen, similar=names)


def _behind(chosen: Chosen, more: Beyond, places: Sequence[int]) -> Chosen:
    """With excerpts of the pool as further silent ones."""
    shown = more.behind(chosen.shown, places)
    added = range(len(chosen.shown.picks), len(shown.picks))
    strengths = strengths_of(shown.table.activations, chosen.sign)
    return replace(chosen, shown=shown, strengths=strengths, silent=(*chosen.silent, *added))
