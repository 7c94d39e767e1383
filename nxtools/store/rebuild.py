"""Saving what can still be read from a damaged database.

A memo is small and may have cost money. The pages that are not damaged are copied into a new database; the
old one is moved aside, never deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path

from nxtools.store.database import INDEX, Unusable, make_schema, move_aside

_BLOB_COLUMNS = "id, digest, kind, used, size, stored, zst, data"


def rebuild(folder: Path) -> Path:
    """Replace the database by one made of its readable rows, and return where the old one went.

    Raises Unusable when another process has the store open, OSError or sqlite3.Error when the new one cannot
    be made.
    """
    path = folder / INDEX
    fresh = folder / f"{INDEX}.new"
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unusable("other commands are using the store") from None
        fresh.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as new:
            make_schema(new)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
                old.text_factory = bytes
                new.execute("BEGIN")
                _copy_blobs(old, new)
                _copy_memo(old, new)
                new.execute("COMMIT")
        aside = move_aside(path)
        fresh.rename(path)
        return aside
    finally:
        os.close(lock)


def _copy_blobs(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Row after row; behind a page that cannot be read, on with the next id that can."""
    copy = f"INSERT OR IGNORE INTO blobs ({_BLOB_COLUMNS}) VALUES (?, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?)"
    last, top = 0, _last_id(old)
    while last <= top:
        try:
            for row in old.execute(f"SELECT {_BLOB_COLUMNS} FROM blobs WHERE id > ? ORDER BY id", (last,)):
                new.execute(copy, row)
                last = row[0]
            return
        except sqlite3.DatabaseError:
            last += 1


def _last_id(old: sqlite3.Connection) -> int:
    try:
        return int(old.execute("SELECT coalesce(max(id), 0) FROM blobs").fetchone()[0])
    except sqlite3.DatabaseError:
        return 1 << 20


def _copy_memo(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """In 65,536 ranges of the question, so that an unreadable page costs the rest of its range alone."""
    find = "SELECT question, answer FROM memo WHERE question >= ? AND question < ?"
    for prefix in range(1 << 16):
        start = prefix.to_bytes(2, "big")
        end = (prefix + 1).to_bytes(2, "big") if prefix < 0xFFFF else b"\xff" * 33
        with contextlib.suppress(sqlite3.DatabaseError):
            for row in old.execute(find, (start, end)):
                new.execute("INSERT OR IGNORE INTO memo VALUES (?, ?)", row)
