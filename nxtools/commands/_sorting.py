"""What nx-top does with --sort and --limit: interesting units first."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from nxtools.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nxtools.recordings.deal import Counts
    from nxtools.recordings.run import Place, Run
    from nxtools.stream import Record

# Those of nxtools.recordings.interest, said again because -h does not load numpy.
STATISTICS = ("mean", "variance", "skewness", "kurtosis", "max", "min", "active", "active_negative")
SCORED = ("score", "gap")
KEYS = (*STATISTICS, "start", "context", *SCORED)


@dataclass
class Sorting:
    """By which number units are sorted (None: they stay as they come), and how many are wanted.

    `lacking`: how many had no such number, known at the end.
    """

    key: str | None
    figure: str
    ascending: bool
    limit: int | None
    lacking: int = 0

    @classmethod
    def of(cls, options: dict[str, Any]) -> Sorting:
        """UsageError for options that say nothing together."""
        key, figure = options["sort"], options["figure"]
        if key is None and options["ascending"]:
            raise UsageError("--ascending says how to sort", hint="--sort KEY")
        if figure is not None and key not in SCORED:
            raise UsageError("--figure goes with --sort score or --sort gap")
        return cls(key, figure or "top_and_random", options["ascending"], options["limit"])

    def of_recordings(self, run: Run, wanted: dict[str, Counts], *, paper: bool) -> Iterator[bytes]:
        """Unit lines of merged recordings. What their statistics know is known before lines are made, so only
        the units that are wanted get some."""
        from nxtools.folded import folded
        from nxtools.recordings.interest import ON_LINES

        if self.key is None:
            yield from islice(run.units(wanted, paper=paper), self.limit)
            return
        if self.key in ON_LINES:
            hint = f"{ON_LINES[self.key]} puts it on unit lines: sort those"
            raise UsageError(f"recordings do not know the {self.key} of units", hint=hint)
        if self.key in STATISTICS and self.limit is not None:
            only, lacking = self._first(run)
            lines = run.units(wanted, paper=paper, only=only)
        else:
            lines, lacking = run.units(wanted, paper=paper), None
        yield from self._ranked((folded(line), line) for line in lines)
        self.lacking = self.lacking if lacking is None else lacking

    def of_units(self, units: Iterable[Record], lines: Lines) -> Iterator[bytes]:
        """Unit lines as they came in."""
        found = ((record, lines.of(record)) for record in units)
        if self.key is None:
            yield from (line for _, line in islice(found, self.limit))
        else:
            yield from self._ranked(found)

    def _first(self, run: Run) -> tuple[list[Place], int]:
        """The units that come first by a statistic, and how many have none."""
        from nxtools.recordings.ranking import rank

        assert self.key is not None
        found = list(run.values(self.key))
        found.sort(key=lambda one: (rank(one[1], self.ascending), one[0]))
        return [place for place, _ in found[: self.limit]], sum(number is None for _, number in found)

    def _ranked(self, lines: Iterable[tuple[Record, bytes]]) -> Iterator[bytes]:
        from nxtools.recordings.interest import value
        from nxtools.recordings.ranking import Ranking
        from nxtools.unit import full_name

        assert self.key is not None
        with Ranking(ascending=self.ascending, limit=self.limit) as ranking:
            for record, line in lines:
                name = record["unit"]["layer"], record["unit"]["index"], full_name(record)
                ranking.add(value(record, self.key, self.figure), name, line)
            self.lacking = ranking.lacking
            yield from ranking


class Lines:
    """Lines that are all recordings, or all of them units where there is something to do with these."""

    def __init__(self, *, units: bool) -> None:
        self._units = units
        self._line = b""
        self.kind = ""

    def parse(self, line: bytes) -> Record:
        from nxtools.folded import folded

        self._line = line
        return folded(line)

    def of(self, record: Record) -> bytes:
        """The line of the record that was read last; where anything in it was mended, its own."""
        from nxtools.folded import Folded
        from nxtools.stream import dump

        return self._line + b"\n" if isinstance(record["excerpts"], Folded) else dump(record)

    def check(self, record: Record) -> None:
        from nxtools.folded import check_folded
        from nxtools.recordings.run import check_line
        from nxtools.records import check_unit

        if not self.kind and record.get("kind") == "unit" and not self._units:
            hint = "--sort KEY and --limit N take them; else pipe the output of nx-record in"
            raise InputError("these are unit lines already", hint=hint)
        if self.kind == "unit" or (not self.kind and record.get("kind") == "unit"):
            check_unit(record)
            check_folded(record)
            self.kind = "unit"
        else:
            check_line(record)
            self.kind = "recording"
