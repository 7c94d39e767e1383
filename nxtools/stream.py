"""JSON lines in and out: one object a line, zstd where the bytes or the name say so.

A reader names file, line and what to do when a line is no record. A last line without newline means that
the writer died in the middle, so it is an error. A writer puts whole lines out, and a reader downstream
that left early (`| head`) is no error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from nxtools.errors import InputError

Record = dict[str, Any]

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BUFFER_BYTES = 1 << 20


class ReaderLeft(Exception):
    """Whoever read our output has enough (a broken pipe on stdout, nowhere else)."""


def _chunks(name: str) -> Iterator[bytes]:
    """The bytes of a file or of stdin (`-`) as they come."""
    try:
        with contextlib.ExitStack() as stack:
            source = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
            while chunk := source.read1(BUFFER_BYTES):  # type: ignore[union-attr]
                yield chunk
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", where=shown(name), hint="check the path"
        ) from error


def decompressed(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The same bytes, decompressed when they begin like zstd. InputError when they are damaged or cut short.

    zstandard's own stream reader takes the end of the file for the end of the data, wherever that is.
    """
    head = b""
    while len(head) < len(ZSTD_MAGIC) and (chunk := next(chunks, b"")):
        head += chunk  # a pipe may hand out single bytes
    if not head.startswith(ZSTD_MAGIC):
        if name.endswith(".zst"):
            raise InputError("this is no zstd data", where=name, hint="rename it, or compress it again")
        yield head
        yield from chunks
        return
    import zstandard

    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    try:
        for chunk in chain([head], chunks):
            while chunk:
                if frame.eof:  # several frames in a row are one stream
                    frame = decompressor.decompressobj()
                yield frame.decompress(chunk)
                chunk = frame.unused_data
    except zstandard.ZstdError as error:
        raise InputError(f"damaged zstd data: {error}", where=shown(name)) from error
    if not frame.eof:
        raise InputError("the zstd data stops before its end", where=shown(name), hint="make or get it again")


def shown(name: str) -> str:
    return "stdin" if name == "-" else name


def lines(name: str) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of every line that is not blank."""
    rest = b""
    number = 0
    for chunk in decompressed(_chunks(name), name):
        first, *others = chunk.split(b"\n")
        if not others:
            rest += chunk
            continue
        for line in (rest + first, *others[:-1]):
            number += 1
            if line and not line.isspace():
                yield number, line
        rest = others[-1]
    if rest:
        raise InputError(
            "the last line has no newline: the stream was cut",
            where=f"{shown(name)}:{number + 1}",
            hint="run the command that wrote it again; it continues where it stopped",
        )


class Reader:
    """The records of several inputs, in order, each with the place it came from.

    With `keep_going` a line that cannot be read is reported to `on_bad` and skipped; otherwise it raises.
    """

    def __init__(
        self,
        names: Iterable[str],
        check: Callable[[Record], None],
        *,
        keep_going: bool = False,
        on_bad: Callable[[InputError], None] = lambda error: None,
    ) -> None:
        self.names = list(names) or ["-"]
        self.check = check
        self.keep_going = keep_going
        self.on_bad = on_bad
        self.where = "stdin"

    def __iter__(self) -> Iterator[Record]:
        for name in self.names:
            for number, line in lines(name):
                self.where = f"{shown(name)}:{number}"
                try:
                    yield self._parse(line)
                except InputError as error:
                    error.where = error.where or self.where
                    if not self.keep_going:
                        raise
                    self.on_bad(error)

    def _parse(self, line: bytes) -> Record:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            column = f"column {error.colno}"
            raise InputError(
                f"not JSON: {error.msg} at {column}", hint="--keep-going skips such lines"
            ) from error
        if not isinstance(record, dict):
            raise InputError(f"a record is an object, this line holds {_named(record)}")
        self.check(record)
        return record


def _named(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null", dict: "an object"}
    return names.get(type(value), "a number")


class Writer:
    """Whole lines to stdout (`-`) or to a file that appears only when it is complete."""

    def __init__(self, name: str = "-") -> None:
        self.name = name
        self._target: Any
        if name == "-":
            self._target = sys.stdout.buffer
        else:
            self._path = Path(name)
            self._partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
            try:
                self._target = self._partial.open("wb")
            except OSError as error:
                raise InputError(f"cannot be written: {error.strerror}", where=name) from error
            if name.endswith(".zst"):
                import zstandard

                self._file = self._target
                self._target = zstandard.ZstdCompressor(level=3).stream_writer(self._file, closefd=False)
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def write(self, record: Record) -> None:
        self.write_line(dump(record))

    def write_line(self, line: bytes) -> None:
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        try:
            self._target.write(data)
            self._target.flush()
        except BrokenPipeError as error:
            if self.name != "-":
                raise
            # What is left in Python's own buffer must not raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise ReaderLeft from error
        except OSError as error:
            where = "stdout" if self.name == "-" else self.name
            raise InputError(f"cannot be written: {error.strerror}", where=where) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete lines go out even when an error ends the run; a file takes its name only at the end."""
        if kind is not ReaderLeft:
            self.flush()
        if self.name == "-":
            return
        self._target.close()
        if self.name.endswith(".zst"):
            self._file.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)


def dump(record: Record) -> bytes:
    """One line. Arrays of float32 are printed short; NaN stands for "left out" and is printed as null."""
    try:
        return orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    except TypeError as error:
        if "surrogate" not in str(error) and "UTF-8" not in str(error):
            raise
        return orjson.dumps(
            _well_formed(record), option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        )


def _well_formed(value: Any) -> Any:
    """The same value with lone surrogates replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_well_formed(inner) for inner in value]
    return value
