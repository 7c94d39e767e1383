"""Text from files, folders, stdin and Python's own documentation, as passages.

A passage is a document, or a paragraph that continues the passage before it, so that whoever tokenises can
join paragraphs of one file into documents of a useful length. Only what a passage needs is held in memory.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import orjson

from nxtools.errors import InputError, UsageError
from nxtools.stream import chunks, decompressed, opened

PYTHON_DOCS = "python-docs"
UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")

Format = Literal["text", "jsonl"]
FORMAT_OF_SUFFIX: dict[str, Format] = {".txt": "text", ".jsonl": "jsonl"}

# JSON may escape half of a surrogate pair, which no UTF-8 can hold.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text. `continues`: it may be joined, after a blank line, to the passage before it.

    `source` says where it came from without naming the machine: the file's name, or its path below the folder
    that was asked for. Two files may have the same name, but a passage never continues another file's.
    """

    source: str
    text: str
    continues: bool = False


@dataclass(frozen=True)
class Cutting:
    """How text becomes passages.

    documents: "paragraphs" cuts a text file at its blank lines, "file" keeps it whole.
    separator: cuts a text file at the lines equal to it instead (`<|endoftext|>`, say).
    field: the field of a JSON line that holds the text of one document.
    format: "text" or "jsonl"; "auto" goes by the file's name (`.txt`, `.jsonl`, either followed by `.zst`),
        and where that does not say, as for stdin, JSON lines are what begins with `{`.
    encoding_errors: "strict" raises on bytes that are not UTF-8, "replace" puts U+FFFD in their place.
    """

    documents: Literal["paragraphs", "file"] = "paragraphs"
    separator: str | None = None
    field: str = "text"
    format: Literal["auto", "text", "jsonl"] = "auto"
    encoding_errors: Literal["strict", "replace"] = "strict"

    def __post_init__(self) -> None:
        if self.separator is not None and self.documents == "file":
            raise UsageError("a separator cuts files that are to stay whole", hint="give one of the two")


@dataclass(frozen=True)
class _File:
    source: str
    where: str
    path: Path | None  # None: stdin


def read_passages(
    sources: Iterable[str],
    cutting: Cutting | None = None,
    *,
    on_bad_line: Callable[[InputError], None] | None = None,
) -> Iterator[Passage]:
    """The passages of all sources, in order, a folder's files by their paths.

    A source is a file, a folder (its `.txt`, `.jsonl` and `.zst` of both, at any depth), `-` for stdin, or
    `python-docs`, `python-docs:train`, `python-docs:held-out`. zstd is recognised by its first bytes.

    A JSON line that holds no text is handed to `on_bad_line` and skipped, if that is given. Otherwise, and
    for whatever else cannot be read, InputError names file and line. Sources that are not there raise it at
    once, before anything is read. UsageError when stdin is named twice.
    """
    sources = list(sources)
    if sources.count("-") > 1:
        raise UsageError("stdin is named twice")
    parts = [_python_docs(source) if _is_python_docs(source) else _files(source) for source in sources]
    return _passages(parts, cutting or Cutting(), on_bad_line)


def _passages(
    parts: list[list[_File] | Iterator[Passage]],
    cutting: Cutting,
    on_bad_line: Callable[[InputError], None] | None,
) -> Iterator[Passage]:
    for part in parts:
        if not isinstance(part, list):
            yield from part
            continue
        for file in part:
            format, lines = _open(file, cutting)
            if format == "jsonl":
                yield from _json_documents(lines, file, cutting, on_bad_line)
            else:
                yield from _text_passages(lines, file, cutting)


def _is_python_docs(source: str) -> bool:
    return source.partition(":")[0] == PYTHON_DOCS


def _python_docs(source: str) -> Iterator[Passage]:
    from nxtools.subject.pydoc import documents

    part = source.partition(":")[2] or "all"
    return (Passage(f"{PYTHON_DOCS}/{name}", text) for name, text in documents(part))


# Finding files


def _files(source: str) -> list[_File]:
    if source == "-":
        return [_File("stdin", "stdin", None)]
    if not source:
        raise UsageError("a source without a name", hint="name a file, a folder, - or python-docs")
    path = Path(source)
    if path.is_dir():
        below = sorted(_texts_below(path), key=lambda found: found.relative_to(path).parts)
        if not below:
            raise InputError("this folder holds no .txt or .jsonl (or .zst of these)", where=source)
        name = path.resolve().name
        return [_File(f"{name}/{found.relative_to(path).as_posix()}", str(found), found) for found in below]
    if not path.exists():
        raise InputError("no such file or folder", where=source, hint="check the path")
    return [_File(path.name, source, path)]


def _texts_below(folder: Path) -> Iterator[Path]:
    """Hidden files and folders are left out: editors and file managers keep their own things there."""
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith(".") and _named_format(name))


def _named_format(name: str) -> Format | None:
    return FORMAT_OF_SUFFIX.get(Path(name.removesuffix(".zst")).suffix.lower())


# Bytes to lines


def _open(file: _File, cutting: Cutting) -> tuple[Format, Iterator[str]]:
    lines = _decoded(_split(_bytes(file)), file, cutting)
    if cutting.format != "auto":
        return cutting.format, lines
    if named := _named_format(file.source):
        return named, lines
    first = next(lines, "")
    return "jsonl" if first.lstrip().startswith("{") else "text", chain([first], lines)


def _bytes(file: _File) -> Iterator[bytes]:
    name = "-" if file.path is None else file.where
    with opened(name) as stream:
        yield from decompressed(chunks(stream), name)


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their newlines."""
    pending: list[bytes] = []
    for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        if complete:
            complete[0] = b"".join([*pending, complete[0]])
            pending = []
            yield from complete
        pending.append(rest)
    if last := b"".join(pending):
        yield last


def _decoded(lines: Iterable[bytes], file: _File, cutting: Cutting) -> Iterator[str]:
    offset = 0
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith(UTF8_BOM):
            line = line.removeprefix(UTF8_BOM)
            offset = len(UTF8_BOM)
        try:
            text = line.decode("utf-8", cutting.encoding_errors)
        except UnicodeDecodeError as error:
            hint = "convert it (iconv -f LATIN1 -t UTF-8), or --encoding-errors replace"
            if number == 1 and line.startswith(UTF16_BOMS):
                hint = "it looks like UTF-16: iconv -f UTF-16 -t UTF-8"
            raise InputError(
                f"not UTF-8: byte 0x{line[error.start]:02x} at offset {offset + error.start}",
                where=f"{file.where}:{number}",
                hint=hint,
            ) from error
        yield text.removesuffix("\r")
        offset += len(line) + 1


# Lines to passages


def _text_passages(lines: Iterator[str], file: _File, cutting: Cutting) -> Iterator[Passage]:
    paragraphs = cutting.separator is None and cutting.documents == "paragraphs"

    def is_cut(line: str) -> bool:
        return not line.strip() if paragraphs else line == cutting.separator

    continues = False
    for text in _between(lines, is_cut):
        yield Passage(file.source, text, continues)
        continues = paragraphs


def _between(lines: Iterable[str], is_cut: Callable[[str], bool]) -> Iterator[str]:
    """The text between cuts, without the blank lines around it, where there is any."""
    gathered: list[str] = []
    for line in lines:
        if not is_cut(line):
            gathered.append(line)
            continue
        if text := _trimmed(gathered):
            yield text
        gathered.clear()
    if text := _trimmed(gathered):
        yield text


def _trimmed(lines: list[str]) -> str:
    text = "\n".join(lines).strip("\n")
    return text if text.strip() else ""


def _json_documents(
    lines: Iterator[str],
    file: _File,
    cutting: Cutting,
    on_bad_line: Callable[[InputError], None] | None,
) -> Iterator[Passage]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = _json_text(line, cutting.field)
        except InputError as error:
            error.where = f"{file.where}:{number}"
            if on_bad_line is None:
                raise
            on_bad_line(error)
            continue
        yield Passage(file.source, text)


def _json_text(line: str, field: str) -> str:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        record = _lenient(line)  # orjson refuses lone surrogates
    if not isinstance(record, dict):
        raise InputError("this line holds no JSON object", hint="--keep-going skips such lines")
    if field not in record:
        fields = ", ".join(sorted(record)) or "none"
        raise InputError(f"no field {field!r}, but: {fields}", hint="--field names the one with the text")
    text = record[field]
    if not isinstance(text, str):
        found = type(text).__name__ if text is not None else "null"
        raise InputError(f"the field {field!r} holds {found}, not text", hint="--keep-going skips such lines")
    return LONE_SURROGATE.sub("\ufffd", text)


def _lenient(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", hint="--keep-going skips such lines") from error
