"""What all methods of nx-score share: other runs' explanations, people's judgements, and which series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nxtools.commands._explained import HUMAN, with_previous
from nxtools.commands._rated import Rated
from nxtools.commands._transfer import transfer_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nxtools.progress import Progress
    from nxtools.stream import Record

# Series of explanations that only some lines have.
SOMETIMES = ("paraphrase", "truth", "unrevised", HUMAN)


class Scoring:
    """Units on their way to a method and from it.

    wanted: the series, the explanation first. by_lines: whether a unit needs no more than its
    line and the one before.
    """

    def __init__(self, options: dict[str, Any], nulls: int = 0) -> None:
        """nulls: units of a layer whose null a language model simulates."""
        from nxtools.score.series import SERIES, TABLES

        by_name = {"all": (*SERIES, *TABLES), "null": ("explanation", "null"), "none": ("explanation",)}
        self.wanted: tuple[str, ...] = by_name[options["baselines"]]
        self._nulls = nulls
        self._transfer, self._rated = transfer_of(options), Rated(options["ratings"])
        self.by_lines = self._transfer is None and not options["ratings"]

    def prepare(self, units: Iterable[Record]) -> Iterable[Record]:
        """With the explanations of another run in place of their own, judgements, and what the null needs."""
        units = self._rated.prepare(units if self._transfer is None else self._transfer(units))
        return with_previous(units, self._nulls) if "null" in self.wanted else units

    def each(self, unit: Record) -> None:
        self._rated.each(unit)

    def say(self, progress: Progress) -> None:
        self._rated.say(progress)
        if self._transfer is not None and self._transfer.without:
            progress.say(self._transfer.told())
