"""What an explainer is shown of a unit: evidence, with activations as levels from 0 to 10, in a view.

* activations: the excerpts with the highest activations on the side that is explained;
* next-token: the same, but each level stands beside the token that follows (behind the last there is none);
* tokens: the tokens with the highest mean activation, without their surroundings;
* contrast: activations, and random excerpts on which the unit stays silent.

Source of the numbers: Bills et al. 2023, "Language models can explain neurons in language models".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nxtools.assistant.prompts import Example, Leveled
from nxtools.records import NO_TOKEN
from nxtools.unit import Unit

if TYPE_CHECKING:
    from nxtools.pool import Shared
    from nxtools.recordings.table import Column

VIEWS = ("activations", "next-token", "tokens", "contrast")
TOKENS = 50  # shown in the view of tokens
LEVELS = 10
PRIOR = 1.0  # how often each token counts as seen at 0 besides: rare tokens are mostly noise

Activations = NDArray[np.float32]
Pools = Callable[[Unit], "Shared | None"]


@dataclass(frozen=True)
class Evidence:
    """What is shown: excerpts, excerpts without any reaction, tokens by strength. scale: the activation that
    a 10 in excerpts stands for."""

    excerpts: tuple[Leveled, ...]
    silent: tuple[Leveled, ...]
    tokens: tuple[tuple[str, int], ...]
    scale: float


def sides(unit: Unit) -> tuple[str, ...]:
    """The signs that are explained one by one."""
    return ("+", "-") if unit.sign == "+-" else (unit.sign,)


def on_side(activations: Activations, sign: str) -> Activations:
    """How strongly a unit fires on one side; the other one is 0. NaN stays."""
    side: Activations = np.maximum(activations if sign == "+" else -activations, np.float32(0))
    return side


def levels(strengths: Activations, scale: float) -> NDArray[np.intp]:
    """min(10, floor(10 x / scale)) of strengths of any shape; what is left out (NaN) is 0."""
    exact = np.nan_to_num(strengths.astype(np.float64), nan=0.0)
    return np.minimum(np.floor(LEVELS * exact / scale), LEVELS).astype(np.intp)


def evidence(
    unit: Unit,
    sign: str,
    view: str,
    count: int,
    pool_of: Pools = lambda unit: None,
    table: Column | None = None,
) -> Evidence | None:
    """`count` excerpts of the evidence in a view; None where the unit never fires on that side, or no token
    has a mean there.

    table: what the view of tokens comes from, in place of the evidence on the line and its pool.
    """
    shown = unit.shown("evidence")
    strengths = on_side(shown.table.activations, sign)
    pick = "top" if sign == "+" else "bottom"
    chosen = [row for row, of in enumerate(shown.picks) if of == pick][:count]
    scale = float(np.nanmax(strengths[chosen], initial=0.0)) if chosen else 0.0
    if not scale > 0:
        return None
    rows = levels(strengths, scale)

    def leveled(row: int) -> Leveled:
        length = int((shown.table.ids[row] != NO_TOKEN).sum())
        texts = tuple(shown.table.vocabulary[int(id)] for id in shown.table.ids[row, :length])
        return seen(Leveled(texts, tuple(rows[row, :length].tolist())), view)

    silent: list[int] = []
    tokens: tuple[tuple[str, int], ...] = ()
    if view == "contrast":
        quiet = [row for row, of in enumerate(shown.picks) if of == "random" and not rows[row].any()]
        silent = quiet[:count]
    if view == "tokens":
        tokens = strongest(unit, sign, pool_of(unit), table)
        if not tokens:
            return None
    return Evidence(tuple(map(leveled, chosen)), tuple(map(leveled, silent)), tokens, scale)


def seen(excerpt: Leveled, view: str) -> Leveled:
    """An excerpt as a view has it."""
    if view != "next-token":
        return excerpt
    return Leveled(excerpt.tokens[1:], excerpt.levels[:-1])


def of_example(example: Example, view: str) -> Evidence:
    """A worked example in a view."""
    best: dict[str, int] = {}
    for excerpt in example.excerpts:
        for token, level in zip(excerpt.tokens, excerpt.levels, strict=True):
            best[token] = max(level, best.get(token, 0))
    tokens = sorted(((t, level) for t, level in best.items() if level), key=lambda pair: (-pair[1], pair[0]))
    excerpts, silent = (tuple(seen(e, view) for e in some) for some in (example.excerpts, example.silent))
    return Evidence(excerpts, silent, tuple(tokens), 10.0)


def strongest(
    unit: Unit, sign: str, pool: Shared | None, table: Column | None = None
) -> tuple[tuple[str, int], ...]:
    """The tokens with the highest mean on one side, with levels: in the evidence and its random pool, or
    in a table. Tokens without a text cannot be shown."""
    texts: dict[int, str] = dict(unit.vocabulary)
    if pool is not None:
        texts |= {id: text for id, text in enumerate(pool.lexicon.texts) if text is not None}
    if table is None:
        known, count, total = _totals(unit, sign, pool)
    else:
        known, count = table.tokens, table.count
        total = on_side(table.values, sign).astype(np.float64) * count
    named = np.array([int(id) in texts for id in known], bool)
    known, mean = known[named], (total / (count + PRIOR))[named]
    order = np.lexsort((known, -mean))[:TOKENS]
    order = order[mean[order] > 0]
    if not order.size:
        return ()
    of_ten = levels(mean[order].astype(np.float32), float(mean[order[0]].astype(np.float32)))
    return tuple(
        (texts[int(known[place])], level)
        for place, level in zip(order, of_ten.tolist(), strict=True)
        if level
    )


def _totals(
    unit: Unit, sign: str, pool: Shared | None
) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[np.float64]]:
    """Tokens of evidence and pool, how often each is there, and the sum of its activations on one side."""
    shown = unit.shown("evidence").table
    ids, strengths = [shown.ids.ravel()], [on_side(shown.activations, sign).ravel()]
    if pool is not None:
        ids.append(pool.pool.ids("evidence").ravel())
        strengths.append(on_side(pool.activations(unit, "evidence"), sign).ravel())
    every, strength = np.concatenate(ids), np.concatenate(strengths)
    present = (every != NO_TOKEN) & ~np.isnan(strength)
    known, number = np.unique(every[present], return_inverse=True)
    total = np.bincount(number, strength[present]).astype(np.float64, copy=False)
    return known, np.bincount(number), total
