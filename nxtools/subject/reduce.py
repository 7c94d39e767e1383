"""What is taken of all activations: per excerpt and unit the extremes, and the sums of four powers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

PIECE = 1 << 17  # values reduced together: with their squares in float64 they stay in a processor's cache


@dataclass(frozen=True)
class Reduced:
    """What is left of n excerpts and N units."""

    maximum: NDArray[np.float32]  # (n, N)
    minimum: NDArray[np.float32] | None  # (n, N)
    bad: NDArray[np.bool_] | None  # (n, N) where something is not finite; None where nothing is
    powers: NDArray[np.float64]  # (4, groups, N) sums over the excerpts of a group, without bad ones


class Reducer:
    """Reduces activations (excerpts, tokens, units), in pieces.

    Sums are float64 from the first, so that moments do not depend on how text is cut into excerpts.
    """

    def __init__(self) -> None:
        self._scratch = torch.empty(0)

    def __call__(self, values: torch.Tensor, groups: NDArray[np.bool_], *, signed: bool) -> Reduced:
        """groups: (groups, excerpts), which excerpts are summed up together. `minimum`: for signed units."""
        excerpts, tokens, units = values.shape
        device = values.device
        wide = torch.float32 if device.type == "mps" else torch.float64  # mps has no float64
        maximum = torch.empty((excerpts, units), device=device)
        minimum = torch.empty((excerpts, units), device=device) if signed else None
        powers = torch.empty((4, excerpts, units), dtype=wide, device=device)
        step = min(excerpts, max(1, PIECE // (tokens * units)))
        piece = self._piece(step * tokens * units, wide, device).view(2, step, tokens, units)
        for first in range(0, excerpts, step):
            here = slice(first, min(first + step, excerpts))
            x = values[here].float()
            torch.amax(x, 1, out=maximum[here])
            if minimum is not None:
                torch.amin(x, 1, out=minimum[here])
            power, square = piece[:, : len(x)]
            torch.sum(power.copy_(x), 1, out=powers[0, here])
            torch.sum(torch.mul(power, power, out=square), 1, out=powers[1, here])
            torch.sum(power.mul_(square), 1, out=powers[2, here])
            torch.sum(square.mul_(square), 1, out=powers[3, here])
        finite = powers[0].isfinite()
        bad = None if bool(finite.all()) else ~finite
        if bad is not None:
            powers[:, bad] = 0.0
        shares = torch.from_numpy(groups).to(device, wide)
        return Reduced(
            maximum.cpu().numpy(),
            None if minimum is None else minimum.cpu().numpy(),
            None if bad is None else bad.cpu().numpy(),
            torch.stack([shares @ power for power in powers]).cpu().double().numpy(),
        )

    def _piece(self, size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Room for two pieces. New memory costs more than what is done in it, so it is kept."""
        if self._scratch.numel() < 2 * size or (self._scratch.dtype, self._scratch.device) != (dtype, device):
            self._scratch = torch.empty(2 * size, dtype=dtype, device=device)
        return self._scratch[: 2 * size]
