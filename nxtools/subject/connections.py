"""What is asked of a subject's weights: which tokens and units a unit is connected with.

Known without torch: a question that the store answers loads no subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError

Floats = NDArray[np.float32]

VERSION = 2  # of the question: raise it when an answer would come out differently

# Where the vectors of a file live, by the names they have in it; those with a `True` are stored transposed.
NAMES = {
    "site": (("read", False), ("write", False)),
    "stream": (("encoder", False), ("decoder", False)),
    "stream of SAELens": (("W_enc", True), ("W_dec", False)),
}


@dataclass(frozen=True)
class Vectors:
    """A unit that is no neuron: a direction among the values of a site, or a latent of the residual stream
    behind a layer. (width,) or (d,) each; None where the file has none.
    """

    space: str  # "site" or "stream"
    read: Floats | None
    write: Floats | None


@dataclass(frozen=True)
class Connecting:
    """One unit: neuron `index` of the layer, or `vectors`. tokens, units: how many of each sign."""

    subject: str  # its name on the line; what it is called says nothing about the answer
    fingerprint: str
    site: str
    dtype: str
    layer: int
    index: int
    tokens: int
    units: int
    vectors: Vectors | None = None

    def question(self) -> dict[str, Any]:
        """All that the answer depends on."""
        unit: Any = self.index
        if (of := self.vectors) is not None:
            unit = {"space": of.space, "read": of.read, "write": of.write}
        return {
            "weights": self.fingerprint,
            "site": self.site,
            "dtype": self.dtype,
            "unit": [self.layer, unit],
            "tokens": self.tokens,
            "units": self.units,
        }


class VectorFile:
    """The vectors of many units, one a row: `read` and `write` of a site, or `encoder` and `decoder` of the
    residual stream. InputError for what holds neither.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], where: str) -> None:
        found = [kind for kind, names in NAMES.items() if any(name in arrays for name, _ in names)]
        if len(found) != 1:
            wanted = "; ".join(" and ".join(name for name, _ in names) for names in NAMES.values())
            raise InputError(f"does not hold one of: {wanted}", where=where)
        self.space = found[0].split()[0]
        self._read, self._write = (
            _rows(arrays.get(name), transposed, name, where) for name, transposed in NAMES[found[0]]
        )
        self.where = where

    def of(self, index: int) -> Vectors:
        """A row. InputError where there is none."""
        rows = [_row(array, index, self.where) for array in (self._read, self._write)]
        return Vectors(self.space, *rows)


def _rows(array: NDArray[Any] | None, transposed: bool, name: str, where: str) -> NDArray[Any] | None:
    if array is None:
        return None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{name!r} is no table of numbers with a row for each unit", where=where)
    return array.T if transposed else array


def _row(array: NDArray[Any] | None, index: int, where: str) -> Floats | None:
    if array is None:
        return None
    if not 0 <= index < len(array):
        raise InputError(f"{where} has no row {index}, but {len(array)} of them")
    row = np.ascontiguousarray(array[index], np.float32)
    if not np.isfinite(row).all():
        raise InputError(f"{where}: row {index} holds something else than finite numbers")
    return row
