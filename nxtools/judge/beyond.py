"""Held-out excerpts of the random pool, beyond those on the line; and how strongly a unit fires."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nxtools.explain.showing import on_side
from nxtools.records import NO_TOKEN, Table
from nxtools.unit import Shown, Unit

if TYPE_CHECKING:
    from nxtools.pool import Shared

JUDGED_ON = "held-out"
MARKED = 0.3  # of an excerpt's maximum: what Delphi marks in fuzzing

PoolOf = Callable[[Unit], "Shared | None"]


class Beyond:
    """names: of the pool's excerpts (n,), in its order."""

    def __init__(self, pool: Shared, unit: Unit, sign: str) -> None:
        self.names = pool.names(JUDGED_ON)
        self._pool, self._unit, self._sign = pool, unit, sign

    @cached_property
    def _activations(self) -> NDArray[np.float32]:
        return self._pool.activations(self._unit, JUDGED_ON)

    @cached_property
    def highest(self) -> NDArray[np.float32]:
        """The unit's maximum on each excerpt (n,), on its side."""
        return maxima(strengths_of(self._activations, self._sign))

    def behind(self, shown: Shown, places: Sequence[int]) -> Shown:
        """The excerpts of a line with some of the pool's behind them, which are random ones."""
        pool, chosen = self._pool.pool, list(places)
        ids = pool.ids(JUDGED_ON)[chosen]
        documents = pool.documents_of(JUDGED_ON)
        table = shown.table
        width = max(table.ids.shape[1], ids.shape[1])
        return Shown(
            Table(
                np.concatenate([_wide(table.ids, width, NO_TOKEN), _wide(ids, width, NO_TOKEN)]),
                np.concatenate(
                    [_wide(table.activations, width, np.nan), _wide(self._activations[chosen], width, np.nan)]
                ),
                table.texts + [[pool.vocabulary[id] for id in row if id != NO_TOKEN] for row in ids.tolist()],
            ),
            (*shown.picks, *["random"] * len(chosen)),
            (*shown.documents, *(documents[place] for place in chosen)),
            (*shown.excerpts, *(self.names[place] for place in chosen)),
            (*shown.probabilities, *[None] * len(chosen)),
        )


def _wide(rows: NDArray[Any], width: int, fill: float) -> NDArray[Any]:
    """Rows that end in a filler."""
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)


def drawn(*names: str) -> bytes:
    """Chance that is the same in every run."""
    return blake2b("\0".join(names).encode("utf-8", "replace"), digest_size=8).digest()


def maxima(strengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row; 0 where all of it is left out."""
    found: NDArray[np.float32] = np.nan_to_num(strengths, nan=0.0).max(axis=-1, initial=0.0)
    return found


def strengths_of(activations: NDArray[np.float32], sign: str) -> NDArray[np.float32]:
    """How strongly a unit fires on a side, on either one for "+-". NaN stays."""
    return np.abs(activations) if sign == "+-" else on_side(activations, sign)
