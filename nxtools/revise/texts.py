"""New texts to challenge an explanation with, all from evidence documents: excerpts of the corpus, and
neighbours of the excerpts in which the unit is strongest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nxtools.records import NO_TOKEN, SETS
from nxtools.subject.excerpts import Plan, excerpt_name
from nxtools.unit import Unit

NEAR = 4  # tokens: the peak and those before it that are replaced, as far back as patterns look
CUTS = (1, 2, 4, 8)  # tokens that are left before the peak when its context is cut
STRONGEST = 10  # excerpts of each side that get neighbours

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Texts:
    """n texts. contexts: all that the subject sees; before: how many tokens of it stand before the excerpt;
    counted: (n, tokens) where the excerpt has activations that are wanted; names: (n,)."""

    contexts: tuple[Ids, ...]
    before: tuple[int, ...]
    counted: NDArray[np.bool_]
    names: tuple[str, ...]

    @property
    def ids(self) -> Ids:
        """Token ids (n, tokens) of the excerpts; 0 behind a text's end, where nothing is counted."""
        rows = np.zeros(self.counted.shape, np.int32)
        for row, context, before in zip(rows, self.contexts, self.before, strict=True):
            row[: len(context) - before] = context[before:]
        return rows

    def activations(self, measured: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of the excerpts (n, tokens), from those of the contexts; NaN where nothing is counted."""
        rows = np.full(self.counted.shape, np.nan, np.float32)
        for place, (context, before) in enumerate(zip(self.contexts, self.before, strict=True)):
            rows[place, : len(context) - before] = measured[place, before : len(context)]
        rows[~self.counted] = np.nan
        return rows


def corpus(plan: Plan, bos: int | None, count: int) -> Texts:
    """Evidence excerpts outside the random pool, the first by a draw by hash: the same for all units."""
    outside = np.flatnonzero((plan.set == SETS.index("evidence")) & (plan.pool_rank < 0))
    chosen = outside[np.argsort(plan.draw[outside], kind="stable")[:count]]
    lead = np.array([] if bos is None else [bos], np.int32)
    before = plan.slot[chosen] * plan.excerpt
    contexts = [
        np.concatenate([lead, plan.contexts[row, : first + plan.excerpt]])
        for row, first in zip(plan.context[chosen].tolist(), before.tolist(), strict=True)
    ]
    names = tuple(excerpt_name(int(name)) for name in plan.id[chosen])
    return Texts(tuple(contexts), tuple((before + len(lead)).tolist()), plan.counted(chosen), names)


def joined(texts: Sequence[Texts]) -> Texts:
    """Those of several plans, whose excerpts are of one length, as one."""
    if len(texts) == 1:
        return texts[0]
    return Texts(
        tuple(c for one in texts for c in one.contexts),
        tuple(b for one in texts for b in one.before),
        np.concatenate([one.counted for one in texts]),
        tuple(n for one in texts for n in one.names),
    )


def neighbours(
    unit: Unit, lead: Callable[[str, int], Ids], bos: int | None, follows: Callable[[int], Ids]
) -> Texts:
    """Minimal pairs of the unit's strongest evidence excerpts, up to the peak: one of the last tokens
    replaced by another that `follows` the same token in ordinary text, or the context cut.

    `lead` gives what stood before an excerpt. Only what the change can reach within NEAR tokens is counted.
    """
    shown = unit.shown("evidence")
    made: list[tuple[Ids, int, int, int, str]] = []  # context, before, first and last counted, name
    for row, name in _strongest(unit):
        ids = shown.table.ids[row]
        values = shown.table.activations[row]
        peak = int(np.nanargmax(np.abs(values)))
        text, front = ids[: peak + 1], lead(name, int((ids != NO_TOKEN).sum()))
        for back in range(min(NEAR, peak)):
            other = _other(follows(int(text[peak - back - 1])), int(text[peak - back]), f"{name} {back}")
            if other is not None:
                changed = text.copy()
                changed[peak - back] = other
                made.append(
                    (np.concatenate([front, changed]), len(front), peak - back, peak, f"{name}~{back}")
                )
        only = np.array([] if bos is None else [bos], np.int32)
        for left in CUTS:
            if left < peak:
                tail = text[peak - left :]
                first = 0 if bos is not None else 1
                made.append((np.concatenate([only, tail]), len(only), first, left, f"{name}<{left}"))
    width = max((len(context) - before for context, before, *_ in made), default=0)
    counted = np.zeros((len(made), width), bool)
    for mask, (_, _, first, last, _) in zip(counted, made, strict=True):
        mask[first : last + 1] = True
    return Texts(
        tuple(one[0].astype(np.int32) for one in made),
        tuple(one[1] for one in made),
        counted,
        tuple(one[4] for one in made),
    )


def _strongest(unit: Unit) -> list[tuple[int, str]]:
    """Rows and names of the strongest evidence excerpts of each side."""
    shown = unit.shown("evidence")
    found: list[tuple[int, str]] = []
    for pick in ("top", "bottom"):
        rows = [row for row, of in enumerate(shown.picks) if of == pick][:STRONGEST]
        found += [(row, shown.excerpts[row]) for row in rows]
    return [(row, name) for row, name in found if not np.isnan(shown.table.activations[row]).all()]


def _other(candidates: Sequence[int] | Ids, than: int, seed: str) -> int | None:
    """One of the candidates by hash, as often as it is among them; not the token itself."""
    others = [int(id) for id in candidates if id != than]
    if not others:
        return None
    draw = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little")
    return others[draw % len(others)]


class Successors:
    """What follows a token in some text, (E, T) ids."""

    def __init__(self, ids: NDArray[np.integer]) -> None:
        first, then = ids[:, :-1].ravel(), ids[:, 1:].ravel()
        order = np.argsort(first, kind="stable")
        self._first, self._then = first[order], then[order].astype(np.int32)

    def __call__(self, token: int) -> Ids:
        begin, end = np.searchsorted(self._first, [token, token + 1])
        return self._then[begin:end]
