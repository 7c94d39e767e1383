"""The one loop in several processes, each over blocks of lines.

Where a unit takes less time than its parsed parts take to travel, giving single answers to processes gains
nothing. So lines go out as they came, and each process parses them, asks the store, computes, keeps, and
prints. What comes back is what is new on each line, in the order of the input.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nxtools import progress
from nxtools.errors import InputError
from nxtools.folded import Folded, checked, folded, written
from nxtools.records import check_unit
from nxtools.stage import Counts, Loop
from nxtools.stream import Reader, Record

if TYPE_CHECKING:
    from nxtools.parallel import Workers
    from nxtools.stage import Step
    from nxtools.store import Store

AHEAD = 4  # blocks a process that may be read, counting those that wait for one before them

_NUMBER = "\0number"  # where a unit carries the number of its line in the block; never written

# Of a line that goes out: bytes, or from where to where in the line that came.
Piece = bytes | tuple[int, int]


class Work(Protocol):
    """What a command does with units, in whatever process."""

    def begin(self, store: Store) -> Callable[[Record], Step]:
        """What is done with one unit."""
        ...

    def prepare(self, units: Iterable[Record]) -> Iterable[Record]:
        """Units as they are read, one by one, changed by what the unit before says at most."""
        ...

    def seen(self) -> Any:
        """What was noted of units since this was last asked."""
        ...

    def see(self, seen: Any) -> None:
        """Takes in what another process has noted."""
        ...


@dataclass
class Each:
    """Work that looks at every unit alone, and notes nothing."""

    begin: Callable[[Store], Callable[[Record], Step]]

    def prepare(self, units: Iterable[Record]) -> Iterable[Record]:
        return units

    def seen(self) -> None:
        pass

    def see(self, seen: None) -> None:
        pass


@dataclass
class Block:
    """Some lines, where each came from, and the line before them."""

    before: bytes  # the last line that was a unit
    lines: list[tuple[str, bytes]]


@dataclass
class Done:
    """What came of a block: lines that go out, each by its number and in pieces, and the error behind them.

    bad: what was wrong with lines that were left out.
    """

    lines: list[tuple[int, list[Piece]]]
    counts: Counts
    warnings: list[str]
    bad: list[InputError]
    seen: Any = None
    error: InputError | None = None


@dataclass
class Side:
    """Does blocks in a process of its own."""

    work: Work
    store: Callable[[], AbstractContextManager[Store]]
    keep_going: bool = False

    def __call__(self, blocks: list[Block]) -> list[Done]:
        spare_the_collector()
        return [self._done(block) for block in blocks]

    def _done(self, block: Block) -> Done:
        self.work.seen()  # what another process had noted when this one began
        with progress.kept() as warnings, self.store() as store:
            bad: list[InputError] = []
            reading = _Reading(block, bad if self.keep_going else None)
            units = iter(self.work.prepare(reading))
            next(units, None)  # the one before
            loop = Loop(
                units,
                checked(self.work.begin(store)),
                store,
                where=lambda: reading.where,
                keep_going=self.keep_going,
                on_bad=bad.append,
            )
            done = Done([], loop.counts, warnings, bad)
            try:
                for unit in loop:
                    done.lines.append((unit.pop(_NUMBER), _pieces(unit)))
            except InputError as error:
                done.error = error
        done.counts.skipped = len(bad)
        done.seen = self.work.seen()
        return done


def spare_the_collector() -> None:
    """A line of 40 excerpts is 200 lists and dicts without a cycle among them: to look for one at every 700
    new ones takes a fifth of the time of a run that finds its answers in the store.
    """
    gc.set_threshold(200_000)


class _Reading:
    """The units of a block, the one before it first; each knows the number of its line.

    bad: takes what is wrong with a line; None: it is raised.
    """

    def __init__(self, block: Block, bad: list[InputError] | None) -> None:
        self.block, self.bad = block, bad
        self.where = ""

    def __iter__(self) -> Iterator[Record]:
        for number, (where, line) in enumerate([("", self.block.before), *self.block.lines], start=-1):
            self.where = where
            try:
                record = _unit(line)
            except InputError as error:
                error.where = error.where or self.where
                if self.bad is None:
                    raise
                self.bad.append(error)
            else:
                record[_NUMBER] = number
                yield record


def _unit(line: bytes) -> Record:
    record = folded(line)
    check_unit(record)
    return record


def _pieces(unit: Record) -> list[Piece]:
    excerpts = unit.get("excerpts")
    if not isinstance(excerpts, Folded):
        return [*written(unit)]
    return [excerpts.place if piece is excerpts.raw else piece for piece in written(unit)]


class Divided:
    """Lines of a reader, from where it stands, done by `jobs` processes, `lines` at a time: iterate it for
    what goes out.

    counts: of all blocks so far. InputError as of the loop, behind the lines before it.
    """

    def __init__(
        self,
        reader: Reader,
        work: Work,
        store: Callable[[], AbstractContextManager[Store]],
        jobs: int,
        lines: int,
        *,
        before_waiting: Callable[[], None] = lambda: None,
        keep_going: bool = False,
        on_bad: Callable[[InputError], None] = lambda error: None,
    ) -> None:
        from nxtools.parallel import Workers

        self.counts = Counts()
        self._reader, self._work = reader, work
        self._before_waiting, self._on_bad = before_waiting, on_bad
        self._before = reader.line
        self._lines, self._most = lines, AHEAD * jobs
        self._workers: Workers = Workers(Side(work, store, keep_going), jobs, fork=True)
        self._blocks: deque[Block] = deque()  # those whose lines have not gone out, in order
        self._error: InputError | None = None  # what ended the reading

    def __iter__(self) -> Generator[list[bytes]]:
        done: dict[int, Done] = {}
        with self._workers, closing(self._workers.results(self._read, lambda block: block)) as results:
            while True:
                self._before_waiting()
                chunk = next(results, None)
                if chunk is None:
                    break
                done |= {id(block): found for block, found in chunk}
                while self._blocks and (found := done.pop(id(self._blocks[0]), None)):
                    yield from self._out(self._blocks.popleft(), found)
        if self._error is not None:
            raise self._error

    def _out(self, block: Block, done: Done) -> Iterator[list[bytes]]:
        for warning in done.warnings:
            progress.warn_once(warning)
        for error in done.bad:
            self._on_bad(error)
        for number, pieces in done.lines:
            line = block.lines[number][1]
            yield [line[slice(*piece)] if isinstance(piece, tuple) else piece for piece in pieces]
        self.counts.add(done.counts)
        self._work.see(done.seen)
        if done.error is not None:
            raise done.error

    def _read(self) -> Sequence[Block]:
        """The next block: what can be had without waiting, unless there is nothing else to wait for."""
        ended = self._error is not None
        if ended or len(self._blocks) >= self._most or (self._blocks and not self._reader.ready()):
            return ()
        try:
            lines = self._reader.take(self._lines)
        except InputError as error:
            self._error = error
            return ()
        if not lines:
            return ()
        self._blocks.append(Block(self._before, lines))
        for _, line in reversed(lines):
            with suppress(InputError):
                _unit(line)
                self._before = line
                break
        return [self._blocks[-1]]
