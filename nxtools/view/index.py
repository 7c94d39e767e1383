"""Units of files that are not kept in memory: where each line is, and what the start page has of it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nxtools.errors import InputError
from nxtools.folded import folded
from nxtools.records import check_unit
from nxtools.stream import ZSTD_MAGIC, Record, chunks, cut_short, decompressed, opened, shown
from nxtools.view.model import row
from nxtools.view.overview import Overview
from nxtools.view.report import Addresses

BUFFER = 1 << 20  # bytes: lines are long


class Changed(InputError):
    """A file is no longer the one that was read."""

    def __init__(self, name: str) -> None:
        super().__init__("has changed since it was read", where=shown(name), hint="start nx-view again")


class Lines:
    """The lines of a file, and any of them again. Pipes and what is compressed are copied to disk first."""

    def __init__(self, name: str) -> None:
        """InputError when it cannot be read."""
        self.name = name
        with opened(name) as file:
            plain = name != "-" and stat.S_ISREG(os.fstat(file.fileno()).st_mode) and not _is_zstd(file, name)
            self._file = os.fdopen(os.dup(file.fileno()), "rb", BUFFER) if plain else _copied(file, name)
        self._stamp = _stamp(os.fstat(self._file.fileno())) if plain else None

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """Number from 1, place in bytes, and bytes of each line that is not blank.

        InputError when the last one has no newline.
        """
        place = 0
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                raise cut_short(self.name, number)
            if not line.isspace():
                yield number, place, line[:-1]
            place += len(line)

    def read(self, place: int, length: int) -> bytes:
        """Changed when the file is not what it was."""
        if self._stamp is not None:
            try:
                same = _stamp(Path(self.name).stat()) == self._stamp
            except OSError:
                same = False
            if not same:
                raise Changed(self.name)
        return os.pread(self._file.fileno(), length, place)

    def close(self) -> None:
        self._file.close()


def _is_zstd(file: Any, name: str) -> bool:
    return name.endswith(".zst") or file.peek(len(ZSTD_MAGIC)).startswith(ZSTD_MAGIC)


def _copied(file: Any, name: str) -> IO[bytes]:
    copy = tempfile.TemporaryFile(buffering=BUFFER)  # noqa: SIM115
    for chunk in decompressed(chunks(file), name):
        copy.write(chunk)
    copy.flush()
    return copy


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Place:
    lines: Lines
    begin: int
    length: int


class Index:
    """All units of some files: the start page's `rows` and `overview`, and any unit again by its address."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        keep_going: bool = False,
        on_bad: Callable[[InputError], None] = lambda error: None,
        each: Callable[[str, Record], None] = lambda address, record: None,
    ) -> None:
        """each: told of every unit and its address.

        InputError, with its line, for what is no unit; with `keep_going` it is skipped and counted.
        """
        self._each = each
        self.rows: list[Record] = []
        self.skipped = 0
        self._places: dict[str, Place] = {}
        self._addresses, self._overview = Addresses(), Overview()
        for name in names:
            lines = Lines(name)
            for number, begin, line in lines:
                try:
                    self._add(line, Place(lines, begin, len(line)))
                except InputError as error:
                    error.where = error.where or f"{shown(name)}:{number}"
                    if not keep_going:
                        raise
                    self.skipped += 1
                    on_bad(error)
        self.overview = self._overview.data()

    def _add(self, line: bytes, place: Place) -> None:
        record = folded(line)
        check_unit(record)
        told = row(record)
        self._overview.add(record)
        address = self._addresses.of(record)
        self._places[address] = place
        self.rows.append({"address": address, **told})
        self._each(address, record)

    def __getitem__(self, address: str) -> Record:
        """The unit line itself. KeyError for none; Changed."""
        place = self._places[address]
        return folded(place.lines.read(place.begin, place.length))
