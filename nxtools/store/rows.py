"""Rows of the database as the store asks for them and writes them: answers, and the blobs that they are."""

from __future__ import annotations

import re
import time
from typing import Any, TypeAlias, TypeGuard

from nxtools.errors import InputError

FIND_ANSWER = "SELECT answer, data, zst, used FROM memo LEFT JOIN blobs ON digest = answer WHERE question = ?"
FIND_BLOB = "SELECT ?1, data, zst, used FROM blobs WHERE digest = ?1"
PUT_ANSWER = "INSERT OR REPLACE INTO memo (question, answer) VALUES (?, ?)"
PUT_BLOB = """INSERT INTO blobs (digest, kind, used, size, stored, zst, data) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET
    kind = excluded.kind, used = excluded.used, size = excluded.size,
    stored = excluded.stored, zst = excluded.zst, data = excluded.data"""

# A found row may be damaged anywhere, so nothing is said about its types: digest, data, zst, used.
Found: TypeAlias = tuple[Any, Any, Any, Any]

_DIGEST = re.compile(r"[0-9a-f]{64}")


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def key(digest: str) -> bytes:
    """The 32 bytes of a digest. Raises InputError: digests come from streams, and name files."""
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"{digest[:80]!r} is not a digest", hint="64 hex digits are")
    return bytes.fromhex(digest)


def is_digest(value: object) -> TypeGuard[bytes]:
    """Whether what a row calls a digest can be one."""
    return isinstance(value, bytes) and len(value) == 32
