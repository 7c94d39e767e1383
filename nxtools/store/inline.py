"""Small blobs as they lie in the database: compressed with zstd where that pays."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zstandard

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
        packed = _zstd.compressor.compress(data)
        if pays(len(data), len(packed)):
            return packed, True
    return bytes(data), False


def unpack(data: object, compressed: object) -> bytes | None:
    """What was packed, or None for what pack never returned. Only the digest says if it is the right one."""
    if not isinstance(data, bytes):
        return None
    if not compressed:
        return data
    import zstandard

    try:
        # A damaged header may ask for any amount of memory.
        if 0 <= zstandard.frame_content_size(data) <= INLINE_BYTES:
            return _zstd.decompressor.decompress(data)
    except zstandard.ZstdError:
        pass
    return None


class _Zstd(threading.local):
    """Neither object may be used by two threads at a time."""

    @cached_property
    def compressor(self) -> zstandard.ZstdCompressor:
        import zstandard

        return zstandard.ZstdCompressor(level=3)

    @cached_property
    def decompressor(self) -> zstandard.ZstdDecompressor:
        import zstandard

        return zstandard.ZstdDecompressor()


_zstd = _Zstd()
