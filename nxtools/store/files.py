"""Blobs above 32 KiB: immutable files named by the digest of what they hold.

`blobs/ab/abcd…` holds the bytes themselves and can be mapped into memory, `blobs/ab/abcd….zst` holds them
compressed. A file is written in `tmp/`, flushed to the disk and renamed, so what has its name is whole,
whatever was killed. Everything read is hashed first: damage raises `Damaged`, and the damaged file goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nxtools.store.inline import pays

if TYPE_CHECKING:
    import zstandard

_CHUNK = 4 << 20
_PROBE = 256 << 10
_NAME = re.compile(r"([0-9a-f]{64})(\.zst)?")

# A temporary file that has not grown for an hour belongs to a process that was killed.
_ABANDONED_SECONDS = 3600.0


class Damaged(Exception):
    """What is stored under a digest is not what was put there."""


class BlobFiles:
    """The files of one store; nothing is created before the first write. OSError passes through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "blobs"
        self.temporary = folder / "tmp"
        self._swept = False

    def find(self, digest: str) -> Path | None:
        """Where the blob is, plain or compressed, or None. Does not read it."""
        plain = self._path(digest)
        for path in (plain, _compressed(plain)):
            if path.exists():
                return path
        return None

    def read(self, digest: str) -> bytes | None:
        """The blob's bytes, or None when there is no file. Raises Damaged."""
        path = self.find(digest)
        if path is None:
            return None
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                return b"".join(_verified(file, digest, zst=path.suffix == ".zst"))
            except Damaged:
                discard(path, os.fstat(file.fileno()))
                raise
        return None

    def map(self, digest: str) -> memoryview | None:
        """The blob as read-only memory, mapped where it is stored plain, or None. Raises Damaged."""
        path = self._path(digest)
        try:
            with path.open("rb") as file:
                seen = os.fstat(file.fileno())
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if seen.st_size else b""
        except FileNotFoundError:
            read = self.read(digest)
            return None if read is None else memoryview(read)
        if hashlib.sha256(data).hexdigest() != digest:
            discard(path, seen)
            raise Damaged(digest)
        return memoryview(data)

    def is_whole(self, path: Path, digest: str) -> bool:
        """Whether a file holds what its name says, in little memory. The file stays either way."""
        try:
            with path.open("rb") as file:
                for _ in _verified(file, digest, zst=path.suffix == ".zst"):
                    pass
        except (Damaged, FileNotFoundError):
            return False
        return True

    def write(self, digest: str, data: memoryview, *, compress: bool) -> Path:
        """Store a blob, replacing a damaged one; returns where."""
        self._sweep_once()
        path = self._path(digest)
        twin = _compressed(path)
        compressor = _compressor_that_pays(data) if compress else None
        if compressor is not None:
            path, twin = twin, path
        _make_folder(path.parent)
        _make_folder(self.temporary)
        temporary = self.temporary / f"{digest[:16]}-{os.urandom(8).hex()}"
        try:
            with temporary.open("xb") as file:
                for start in range(0, len(data), _CHUNK):
                    chunk = data[start : start + _CHUNK]
                    file.write(chunk if compressor is None else compressor.compress(chunk))
                if compressor is not None:
                    file.write(compressor.flush())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
        twin.unlink(missing_ok=True)
        return path

    def remove(self, digest: str) -> None:
        """Remove a blob's file, which may be gone already."""
        plain = self._path(digest)
        plain.unlink(missing_ok=True)
        _compressed(plain).unlink(missing_ok=True)

    def walk(self) -> Iterator[tuple[str, Path]]:
        """Every blob's digest and file, in order of digest."""
        for path in sorted(self.folder.glob("??/*")):
            name = _NAME.fullmatch(path.name)
            if name and path.name.startswith(path.parent.name):
                yield name[1], path

    def abandoned(self) -> list[Path]:
        """Temporary files that killed processes left behind."""
        before = time.time() - _ABANDONED_SECONDS
        found = []
        for path in self.temporary.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    found.append(path)
        return found

    def _sweep_once(self) -> None:
        """A recording that is killed again and again must not fill the disk."""
        if not self._swept:
            self._swept = True
            for path in self.abandoned():
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest


def _verified(file: BinaryIO, digest: str, *, zst: bool) -> Iterator[bytes]:
    """The blob in chunks; raises Damaged after the last one when together they are not what was put."""
    hasher = hashlib.sha256()
    for chunk in _decompressed(file, digest) if zst else iter(lambda: file.read(_CHUNK), b""):
        hasher.update(chunk)
        yield chunk
    if hasher.hexdigest() != digest:
        raise Damaged(digest)


def _decompressed(file: BinaryIO, digest: str) -> Iterator[bytes]:
    import zstandard

    reader = zstandard.ZstdDecompressor().stream_reader(file)
    try:
        while chunk := reader.read(_CHUNK):
            yield chunk
    except zstandard.ZstdError as error:
        raise Damaged(digest) from error


def _compressor_that_pays(data: memoryview) -> zstandard.ZstdCompressionObj | None:
    """A compressor for the whole blob when it helps on the beginning and the middle, else None."""
    import zstandard

    level = zstandard.ZstdCompressor(level=3)
    middle = len(data) // 2
    for probe in (data[:_PROBE], data[middle : middle + _PROBE]):
        if pays(len(probe), len(level.compress(probe))):
            return level.compressobj(size=len(data))
    return None


def _compressed(plain: Path) -> Path:
    return plain.with_name(plain.name + ".zst")


def discard(path: Path, seen: os.stat_result) -> None:
    """Remove a damaged file if that is possible, but not a good one that was just put in its place."""
    with contextlib.suppress(OSError):
        now = path.stat()
        if (now.st_ino, now.st_mtime_ns) == (seen.st_ino, seen.st_mtime_ns):
            path.unlink()


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
