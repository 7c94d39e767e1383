"""Lines in the order of a number, without keeping them in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

IN_MEMORY = 1 << 26  # bytes of lines before they go to the disk

Rank = tuple[bool, float]  # sorts as it should


def rank(number: float | None, ascending: bool) -> Rank:
    """The largest number first, or the smallest; no number last."""
    if number is None:
        return True, 0.0
    return False, number if ascending else -number


class Ranking:
    """The `limit` lines with the largest numbers, or all, from the largest down (or from the smallest up).

    Lines of equal numbers stand in the order of their names, and then as they came; those without a number
    last. Lines that cannot be among the first any more are not kept. `lacking`: how many had no number.
    """

    def __init__(self, *, ascending: bool = False, limit: int | None = None) -> None:
        self.lacking = 0
        self._ascending, self._limit = ascending, limit
        self._came = 0
        self._places: list[tuple[Any, int, int]] = []  # rank, name, number; and where the line lies
        self._worst: Any = None  # what a line must come before
        self._spool = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
        self._end = 0

    def add(self, number: float | None, name: tuple[Any, ...], line: bytes) -> None:
        self.lacking += number is None
        self._came += 1
        place = (rank(number, self._ascending), name, self._came)
        if self._worst is not None and place > self._worst:
            return
        self._spool.write(line)
        self._places.append((place, self._end, len(line)))
        self._end += len(line)
        if self._limit is not None and len(self._places) >= 2 * self._limit + 64:
            self._places = sorted(self._places)[: self._limit]
            self._worst = self._places[-1][0]

    def __iter__(self) -> Iterator[bytes]:
        for _, begin, length in sorted(self._places)[: self._limit]:
            self._spool.seek(begin)
            yield self._spool.read(length)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()
