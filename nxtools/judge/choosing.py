"""Which held-out excerpts are judged: active ones of all strengths, and silent ones from the random pick.

A unit is *active* on an excerpt where its strength on the side that is explained rises above a share of its
maximum on evidence: GELU and gated units are never exactly 0. Active excerpts come from the spread sample,
which has them of every strength; where the line has none, from the top and random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from nxtools.explain.showing import on_side
from nxtools.records import NO_TOKEN, Failure
from nxtools.unit import Shown, Unit

JUDGED_ON = "held-out"
MARKED = 0.3  # of an excerpt's maximum: what Delphi marks in fuzzing
ACTIVE = 0.1  # of the evidence's maximum


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
    active is above.
    """

    unit: Unit
    sign: str
    shown: Shown
    strengths: NDArray[np.float32]
    peak: float
    threshold: float
    active: tuple[int, ...]
    silent: tuple[int, ...]

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
        many others are left out. No half has both versions of an excerpt."""
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
        own = [place for place in there if strengths[place] >= MARKED * self._maxima[row]]
        others = [place for place in there if place not in set(own)]
        if len(others) < len(own):
            return None
        others.sort(key=lambda place: drawn(self.unit.name, self.name(row), f"token {place}"))
        return Item(row, True, frozenset(own)), Item(row, False, frozenset(others[: len(own)]))

    def mixed(self) -> list[Item]:
        """Active and silent excerpts in one order."""
        active = set(self.active)
        return [
            Item(row, row in active) for row in self.order([*self.active, *self.silent], "active or silent")
        ]


def drawn(*names: str) -> bytes:
    """Chance that is the same in every run."""
    return blake2b("\0".join(names).encode("utf-8", "replace"), digest_size=8).digest()


def maxima(strengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row; 0 where all of it is left out."""
    found: NDArray[np.float32] = np.nan_to_num(strengths, nan=0.0).max(axis=1, initial=0.0)
    return found


def strengths_of(activations: NDArray[np.float32], sign: str) -> NDArray[np.float32]:
    """How strongly a unit fires on a side, on either one for "+-". NaN stays."""
    return np.abs(activations) if sign == "+-" else on_side(activations, sign)


def choose(unit: Unit, sign: str, share: float, most: int, *, contrast: bool) -> Chosen | Failure:
    """At most `most` active and as many silent excerpts; a failure where there are no active ones, or with
    contrast no silent ones.
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
    chosen = Chosen(unit, sign, shown, strengths, peak, threshold, tuple(rows), ())
    quiet = np.flatnonzero(~fires & there & (picks == "random")).tolist()
    silent = tuple(chosen.order(quiet, "silent")[:most])
    if not rows or (contrast and not silent):
        what, more = ("silent", "random=20") if rows else ("active", "spread=20")
        return Failure("score", f"no-{what}", f"no held-out excerpt is {what}: nx-top --held-out {more}")
    return Chosen(unit, sign, shown, strengths, peak, threshold, tuple(rows), silent)
