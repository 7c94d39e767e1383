"""The strongest of many weights, kept while they pass by in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Strongest:
    """Of each row the k largest and k smallest, and mean and standard deviation of all of them."""

    def __init__(self, rows: int, k: int, device: torch.device) -> None:
        self._k = k
        self._values = [torch.zeros((rows, 0), device=device) for _ in "+-"]
        self._places = [torch.zeros((rows, 0), dtype=torch.long, device=device) for _ in "+-"]
        self._sums = torch.zeros((2, rows), dtype=torch.float64)  # here: not every device has float64
        self.count = 0

    def add(self, values: Tensor, places: Tensor) -> None:
        """values: (rows, n); places: (n,) numbers that say what each column is."""
        squares = torch.linalg.vector_norm(values, dim=1) ** 2
        self._sums += torch.stack([values.sum(1), squares]).cpu().double()
        self.count += values.shape[1]
        for sign in range(2):
            top = values.topk(min(self._k, values.shape[1]), dim=1, largest=not sign)
            both = torch.cat([self._values[sign], top.values], dim=1)
            order = both.argsort(dim=1, descending=not sign, stable=True)[:, : self._k]
            self._values[sign] = both.gather(1, order)
            self._places[sign] = torch.cat([self._places[sign], places[top.indices]], dim=1).gather(1, order)

    def records(
        self, named: Callable[[int], dict[str, Any]], *, centred: bool = False
    ) -> list[dict[str, Any]]:
        """For each row `positive` and `negative`, strongest first, with `mean` and `sd` of all weights.

        centred: less the mean. Only what is above 0 is positive.
        """
        mean, square = self._sums / max(self.count, 1)
        sd = (square - mean**2).clamp(min=0).sqrt().tolist()
        values = [(part.cpu() - (mean[:, None] if centred else 0.0)).tolist() for part in self._values]
        places = [part.tolist() for part in self._places]
        return [
            {
                "positive": _listed(values[0][row], places[0][row], named, 1),
                "negative": _listed(values[1][row], places[1][row], named, -1),
                "mean": _short(mean[row].item()),
                "sd": _short(sd[row]),
                "of": self.count,
            }
            for row in range(len(sd))
        ]


def _listed(
    values: list[float], places: list[int], named: Callable[[int], dict[str, Any]], sign: int
) -> list[dict[str, Any]]:
    pairs = zip(values, places, strict=True)
    return [named(place) | {"weight": _short(value)} for value, place in pairs if sign * value > 0]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
