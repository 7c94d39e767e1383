"""Figures with the documents reweighted, in draws that all units share, as score lines carry them.

A figure's draws are 16-bit steps over -1 … 1, in base64. Ablation scores have no lower bound: where a draw
lies beyond, all of the figure are divided by a `scale` first.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError

Floats = NDArray[np.float64]

DRAWS = 200
STEPS = 32767


class Drawn(NamedTuple):
    """A figure's draws as they are kept: 400 bytes."""

    steps: bytes
    scale: float = 1.0

    @property
    def values(self) -> Floats:
        """(draws,)"""
        found: Floats = np.frombuffer(self.steps, "<i2") * (self.scale / STEPS)
        return found


def packed(replicates: Mapping[str, Floats]) -> dict[str, Any]:
    """What goes on the line, by figure, from (draws,)."""
    return {name: _packed(values) for name, values in replicates.items()}


def _packed(values: Floats) -> Any:
    most = float(np.abs(values).max(initial=0.0))
    if most <= 1:
        return _base64(values)
    scale = float(f"{1.001 * most:.4g}")  # not below the largest, whichever way it is rounded
    return {"scale": scale, "draws": _base64(values / scale)}


def _base64(values: Floats) -> str:
    return binascii.b2a_base64(np.rint(values * STEPS).astype("<i2").tobytes(), newline=False).decode()


def unpacked(packed: Mapping[str, Any]) -> dict[str, Floats]:
    """(draws,) by figure."""
    return {name: drawn(value).values for name, value in packed.items()}


def drawn(packed: Any) -> Drawn:
    """One figure's draws. InputError when they are damaged."""
    scale = 1.0
    if isinstance(packed, dict):
        packed, scale = packed.get("draws"), packed.get("scale")
    if not isinstance(packed, str) or not isinstance(scale, int | float):
        raise InputError("the field 'replicates' holds neither base64 nor `scale` and `draws`")
    try:
        steps = binascii.a2b_base64(packed)
    except binascii.Error as error:
        raise InputError(f"the field 'replicates' is no base64: {error}") from error
    if len(steps) != 2 * DRAWS:
        raise InputError(f"the field 'replicates' holds {len(steps)} bytes, not {2 * DRAWS}")
    return Drawn(steps, float(scale))
