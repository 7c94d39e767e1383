"""Files and folders of other tools, read with a limit on their size, decompressed where they are packed."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from nxtools.errors import InputError
from nxtools.stream import chunks, decompressed, opened, shown

MAX_BYTES = 1 << 28  # of one line or file, unpacked: ten times what the largest known ones have
GZIP = b"\x1f\x8b"
Line = tuple[str, bytes]  # where it stands, as file:line, and its bytes


def files(names: Iterable[str], suffixes: tuple[str, ...]) -> list[str]:
    """Files by these names, and in folders all with such suffixes, by the numbers in their names.

    InputError for what is not there and for folders without any.
    """
    found: list[str] = []
    for name in names:
        path = Path(name)
        if name == "-" or not path.is_dir():
            found.append(name)
            continue
        inside = [str(one) for one in path.rglob("*") if one.name.endswith(suffixes) and one.is_file()]
        if not inside:
            raise InputError(f"there is no {' or '.join(suffixes)} file in this folder", where=name)
        found += sorted(inside, key=natural)
    return found


def natural(name: str) -> list[tuple[int, str]]:
    """`batch-10` comes after `batch-9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def lines(name: str) -> Iterator[Line]:
    """The lines of a file that are not blank; the last one may lack its newline, as in a .json file."""
    pending: list[bytes] = []
    size, number = 0, 1
    with opened(name) as file:
        for chunk in _unpacked(chunks(file), name):
            *ended, rest = chunk.split(b"\n")
            for piece in ended:
                line = b"".join([*pending, piece])
                pending, size = [], 0
                if line.strip():
                    yield f"{shown(name)}:{number}", line
                number += 1
            pending.append(rest)
            size += len(rest)
            if size > MAX_BYTES:
                raise InputError(
                    f"the line is longer than {MAX_BYTES:,} bytes", where=f"{shown(name)}:{number}"
                )
    line = b"".join(pending)
    if line.strip():
        yield f"{shown(name)}:{number}", line


def _unpacked(data: Iterator[bytes], name: str) -> Iterator[bytes]:
    """gzip by its first bytes, zstd by its own."""
    head = b""
    while len(head) < len(GZIP) and (chunk := next(data, b"")):
        head += chunk

    def again() -> Iterator[bytes]:
        yield head
        yield from data

    if head.startswith(GZIP):
        return _gunzipped(again(), name)
    return decompressed(_small(again()), name)


def _small(data: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces of which zstd, which unpacks each at once, cannot make more than some ten megabytes."""
    for chunk in data:
        yield from (chunk[at : at + 1024] for at in range(0, len(chunk), 1024))


def _gunzipped(data: Iterator[bytes], name: str) -> Iterator[bytes]:
    """In pieces, so that a small file that unpacks to a huge one does not fill the memory."""
    stream = zlib.decompressobj(wbits=31)
    try:
        for chunk in data:
            while chunk:
                if stream.eof:  # several members in a row are one stream
                    stream = zlib.decompressobj(wbits=31)
                yield stream.decompress(chunk, 1 << 20)
                chunk = stream.unconsumed_tail or stream.unused_data
    except zlib.error as error:
        raise InputError(f"damaged gzip data: {error}", where=shown(name)) from error
    if not stream.eof:
        raise InputError("the gzip data stops before its end", where=shown(name), hint="get it again")


def gzipped(data: bytes) -> bytes:
    """The same bytes whenever it is called: no date."""
    return gzip.compress(data, mtime=0)
