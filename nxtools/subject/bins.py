"""Bins of excerpt maxima, fixed for all time so that histograms of any recordings add up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Excerpt maxima are binned by half octaves from 2^-16 to 2^16; bin 0 holds what is below or not positive. The
# bin is read off the bits of the float (exponent and first bit of the mantissa), so it is exact everywhere.
BINS = 65
LOWEST_BIN = (127 - 16) * 2


def bins_of(maxima: NDArray[np.float32]) -> NDArray[np.int32]:
    """The bin 0 … BINS-1 of each value; the edges of the others are `bin_edges()`."""
    bits = np.ascontiguousarray(maxima).view(np.int32)
    bins: NDArray[np.int32] = np.clip((bits >> 22) - (LOWEST_BIN - 1), 0, BINS - 1)
    return bins


def strata_of(maxima: NDArray[np.float32], minima: NDArray[np.float32] | None) -> NDArray[np.int32]:
    """The stratum of each excerpt: the bin of its largest magnitude, plus BINS where that is negative.

    `minima` of None: only what is above zero counts. Every excerpt is in one stratum, so that drawing some of
    each, in any number, is a sample of all.
    """
    if minima is None:
        return bins_of(maxima)
    negative = -minima > maxima
    return bins_of(np.maximum(maxima, -minima)) + np.int32(BINS) * negative


def bin_edges() -> NDArray[np.float64]:
    """Lower edges of bins 1 … BINS-1: 2^e and 1.5·2^e."""
    octave, half = np.divmod(np.arange(BINS - 1), 2)
    edges: NDArray[np.float64] = np.ldexp(1.0 + 0.5 * half, octave - 16)
    return edges


class Histogram:
    """Counts of cells. What is to be counted is gathered first: few passes over all cells are better."""

    def __init__(self, cells: int) -> None:
        self._counts = np.zeros(cells, np.int64)
        self._waiting: list[NDArray[np.int32]] = []

    def add(self, cells: NDArray[np.int32]) -> None:
        """Count each of these, an array of any shape."""
        self._waiting.append(cells.ravel())
        if sum(map(len, self._waiting)) >= len(self._counts):
            self._count()

    def _count(self) -> None:
        if self._waiting:
            self._counts += np.bincount(np.concatenate(self._waiting), minlength=len(self._counts))
            self._waiting = []

    def counts(self) -> NDArray[np.uint32]:
        self._count()
        return self._counts.astype(np.uint32)
