"""Small blobs as they lie in the database: compressed with zstd where that pays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property

# SQLite and files tie near 20 kB a value; at 100 kB files win 2.3 times.
INLINE_BYTES = 32 << 10

# Nothing shorter pays: a frame has a dozen bytes of its own.
_WORTH_TRYING = 64


def pays(size: int, compressed_size: int) -> bool:
    """Whether compressing saves enough (a tenth) to decompress at every read."""
    return compressed_size < size - size // 10


def pack(data: memoryview) -> tuple[bytes, bool]:
    """The bytes to store, and whether they are compressed."""
    if len(data) >= _WORTH_TRYING:
        packed = _zstd.compress(data)
        if pays(len(data), len(packed)):
            return packed, True
    return bytes(data), False


def unpack(data: object, compressed: object) -> bytes | None:
    """What was packed, or None for what pack never returned. Only the digest says if it is the right one."""
    if not isinstance(data, bytes):
        return None
    if not compressed:
        return data
    frame_content_size, decompress, error = _zstd.reading
    try:
        # A damaged header may ask for any amount of memory.
        if 0 <= frame_content_size(data) <= INLINE_BYTES:
            return decompress(data)
    except error:
        pass
    return None


class _Zstd(threading.local):
    """What zstandard offers, imported when it is needed, for one thread: none may share its objects."""

    @cached_property
    def compress(self) -> Callable[[memoryview], bytes]:
        import zstandard

        return zstandard.ZstdCompressor(level=3).compress

    @cached_property
    def reading(self) -> tuple[Callable[[bytes], int], Callable[[bytes], bytes], type[Exception]]:
        """How large the content of a frame says it is, the content, and what is raised for no frame."""
        import zstandard

        return zstandard.frame_content_size, zstandard.ZstdDecompressor().decompress, zstandard.ZstdError


_zstd = _Zstd()
