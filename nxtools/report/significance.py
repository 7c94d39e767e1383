"""Tests for paired values, and their correction when there are several."""

from __future__ import annotations

import math
from collections.abc import Sequence


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p of so many wins and losses where each is as likely: binomial, exact; ties left out.

    The first term comes from log-gammas, the further ones from the ratio of neighbours.
    """
    n, fewer = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    term = math.exp(
        math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1) - n * math.log(2)
    )
    tail = 0.0
    for k in range(fewer, -1, -1):
        tail += term
        if term < tail * 1e-17:
            break
        term *= k / (n - k + 1)
    return min(1.0, 2 * tail)


def holm(p: Sequence[float]) -> list[float]:
    """Each p corrected for there being several, which hold together at the level of one (Holm 1979)."""
    out = [0.0] * len(p)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        out[place] = largest
    return out
