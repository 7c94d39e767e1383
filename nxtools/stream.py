"""JSON lines in and out: one object a line, zstd where the bytes or the name say so.

A reader names file, line and what to do when a line is no record. A last line without newline means that
the writer died in the middle, so it is an error. A writer puts whole lines out, and a reader downstream
that left early (`| head`) is no error.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

from nxtools.errors import InputError, OutputError

Record = dict[str, Any]
Line = tuple[int, bytes]  # its number, from 1, and its bytes without newline

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_WINDOW = 1 << 31  # whatever `zstd --long` made
CHUNK_BYTES = 1 << 18
PENDING_BYTES = 1 << 20

JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


class ReaderLeft(Exception):
    """Whoever read our output has enough (a broken pipe on stdout, nowhere else)."""


def named(value: object) -> str:
    """What a value is in JSON's own words, for messages."""
    return JSON_NAMES.get(type(value), type(value).__name__)


def shown(name: str) -> str:
    return "stdin" if name == "-" else name


# Bytes to lines


@contextlib.contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file, or stdin (`-`). InputError when it cannot be opened or, inside the block, read."""
    try:
        if name != "-":
            with Path(name).open("rb") as file:
                yield file
        elif sys.stdin is None:
            raise InputError("is closed", where="stdin", hint="name a file, or pipe something in")
        else:
            yield sys.stdin.buffer
    except OSError as error:
        where, hint = shown(name), "check the path"
        raise InputError(f"cannot be read: {error.strerror or error}", where=where, hint=hint) from error


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """Bytes as they come, without waiting for more."""
    while chunk := file.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
        yield chunk


def decompressed(data: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The same bytes, decompressed when they begin like zstd. InputError when they are damaged or cut short.

    zstandard's own stream reader takes the end of the file for the end of the data, wherever that is.
    """
    head = b""
    while len(head) < len(ZSTD_MAGIC) and (chunk := next(data, b"")):
        head += chunk  # a pipe may hand out single bytes
    if not head.startswith(ZSTD_MAGIC):
        if name.endswith(".zst"):
            raise InputError("this is no zstd data", where=name, hint="rename it, or compress it again")
        yield head
        yield from data
        return
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    frame = decompressor.decompressobj()
    try:
        for chunk in chain([head], data):
            while chunk:
                if frame.eof:  # several frames in a row are one stream
                    frame = decompressor.decompressobj()
                yield frame.decompress(chunk)
                chunk = frame.unused_data
    except zstandard.ZstdError as error:
        raise InputError(f"damaged zstd data: {error}", where=shown(name)) from error
    if not frame.eof:
        raise InputError("the zstd data stops before its end", where=shown(name), hint="make or get it again")


def lines(data: Iterable[bytes], name: str) -> Iterator[list[Line]]:
    """The lines that are not blank, all that have come at a time.

    InputError when the last one has no newline.
    """
    pending: list[bytes] = []  # the pieces of a line that has not ended; joined once, as it may be huge
    number = 0
    for chunk in data:
        *ended, rest = chunk.split(b"\n")
        if ended:
            ended[0] = b"".join([*pending, ended[0]])
            pending.clear()
            yield [(at, line) for at, line in enumerate(ended, number + 1) if line and not line.isspace()]
            number += len(ended)
        if rest:
            pending.append(rest)
    if pending:
        raise cut_short(name, number + 1)


def cut_short(name: str, number: int) -> InputError:
    """What is wrong with a last line that does not end."""
    return InputError(
        "the last line has no newline: the stream was cut",
        where=f"{shown(name)}:{number}",
        hint="run the command that wrote it again; it continues where it stopped",
    )


# Lines to records


class Reader:
    """The records of several inputs, in order. `where` says where the latest came from, as `file:line`.
    They can be read on as plain lines.

    With `keep_going` a line that is no record is reported to `on_bad` and skipped; otherwise it raises. An
    input that was cut or cannot be read raises in any case.
    """

    def __init__(
        self,
        names: Iterable[str],
        check: Callable[[Record], None],
        *,
        keep_going: bool = False,
        on_bad: Callable[[InputError], None] = lambda error: None,
        parse: Callable[[bytes], Record] | None = None,
    ) -> None:
        self.names = list(names) or ["-"]
        self.check = check
        self.parse = parse or parsed
        self.keep_going = keep_going
        self.on_bad = on_bad
        self.skipped = 0
        self.where = shown(self.names[0])
        self.line = b""  # the latest that was a record
        self._lines: deque[Line] = deque()
        self._file: BinaryIO | None = None
        self._unread = self._all()
        self._error: InputError | None = None  # what ended `take` behind lines that it gave

    def _all(self) -> Iterator[bytes]:
        """The lines that are not blank, `where` saying where each came from."""
        for name in self.names:
            with opened(name) as self._file:
                for come in lines(decompressed(chunks(self._file), name), name):
                    self._lines = deque(come)
                    while self._lines:
                        number, line = self._lines.popleft()
                        self.where = f"{shown(name)}:{number}"
                        yield line
            self._file = None

    def __iter__(self) -> Iterator[Record]:
        for line in self._unread:
            try:
                record = self.parse(line)
                self.check(record)
            except InputError as error:
                error.where = error.where or self.where
                if not self.keep_going:
                    raise
                self.skipped += 1
                self.on_bad(error)
            else:
                self.line = line
                yield record

    def take(self, most: int) -> list[tuple[str, bytes]]:
        """The next lines as they are, with where each came from: one in any case, and those that can be had
        without waiting. Empty at the end."""
        if self._error is not None:
            raise self._error
        taken: list[tuple[str, bytes]] = []
        try:
            while len(taken) < most and (not taken or self.ready()):
                line = next(self._unread)
                taken.append((self.where, line))
        except StopIteration:
            pass
        except InputError as error:
            if not taken:
                raise
            self._error = error
        return taken

    def ready(self) -> bool:
        """Whether there is more (if only the end) that can be had without waiting for whoever writes it."""
        if self._lines or self._file is None:
            return bool(self._lines)
        try:
            return bool(select.select([self._file], [], [], 0)[0])
        except (OSError, ValueError):  # nothing that can be waited for
            return True


def parsed(line: bytes) -> Record:
    """A line as an object. Half a character (`\\ud83d` alone) becomes U+FFFD, as it is everywhere else."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        value = _parsed_with_care(line, error)
    if not isinstance(value, dict):
        raise InputError(f"a record is an object, this line holds {named(value)}")
    return value


def _parsed_with_care(line: bytes, error: orjson.JSONDecodeError) -> Any:
    """What orjson refuses: lone surrogates are read all the same, everything else is an InputError."""
    hint = "--keep-going skips such lines"
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as decoding:
        message = f"not UTF-8: byte 0x{line[decoding.start]:02x} at byte {decoding.start + 1}"
        raise InputError(message, hint=hint) from decoding
    if "surrogate" in error.msg:
        import json

        with contextlib.suppress(json.JSONDecodeError, RecursionError):
            return well_formed(json.loads(text))
    raise InputError(f"not JSON: {error.msg} at column {error.colno}", hint=hint) from error


# Records to lines


def dump(record: Any) -> bytes:
    """A record, or any other value, as one line.

    Arrays of float32 are printed short; NaN stands for "left out" and is printed as null.
    """
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    try:
        return orjson.dumps(record, option=option)
    except TypeError as error:
        if "surrogate" not in str(error):
            raise
        return orjson.dumps(well_formed(record), option=option)


def well_formed(value: Any) -> Any:
    """The same value with lone surrogates replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {well_formed(key): well_formed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [well_formed(inner) for inner in value]
    return value


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """For a block that writes to stdout and does nothing else. Raises ReaderLeft or OutputError."""
    try:
        yield
    except OSError as error:
        # What is left in Python's own buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise ReaderLeft from error
        raise OutputError(f"cannot be written: {error.strerror or error}", where="stdout") from error


class Writer:
    """Whole lines to stdout (`-`), or to a file that appears only when it is complete.

    OutputError when they cannot be written, ReaderLeft when nobody reads them.
    """

    def __init__(self, name: str = "-") -> None:
        self.name = name
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._partial: Path | None = None
        self._target: Any
        if name != "-":
            with self._reported():
                self._open(Path(name))
        elif sys.stdout is None:
            raise OutputError("is closed", where="stdout", hint="-o FILE writes to a file")
        else:
            self._target = sys.stdout.buffer

    def _open(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))  # a link stays, and what it names is replaced
        if self._path.is_file() or not self._path.exists():
            self._partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        self._file = (self._partial or path).open("wb")  # a device or pipe has no beginning to wait for
        self._target = self._file
        if self.name.endswith(".zst"):
            import zstandard

            self._target = zstandard.ZstdCompressor(level=3).stream_writer(self._file, closefd=False)

    def write(self, record: Record) -> None:
        self.write_line(dump(record))

    def write_line(self, *pieces: bytes) -> None:
        """A line with its newline, whole or in pieces."""
        self._pieces += pieces
        self._bytes += sum(map(len, pieces))
        if self._bytes >= PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Everything so far goes out: whoever reads it can go on."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._bytes = 0
        with self._reported():
            self._target.write(data)
            self._target.flush()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        if self.name == "-":
            with to_stdout():
                yield
            return
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror or error}", where=self.name) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete lines go to stdout even when an error ends the run; a file takes its name at the end."""
        if self.name == "-":
            if kind is None or not issubclass(kind, ReaderLeft | OutputError):
                self.flush()
            return
        try:
            if kind is None:
                self.flush()
                with self._reported():
                    self._target.close()
                    self._file.close()
                    if self._partial:
                        self._partial.replace(self._path)
        finally:
            with contextlib.suppress(OSError):  # what could not be written cannot be written now either
                self._file.close()
            if self._partial:
                self._partial.unlink(missing_ok=True)
