"""Opening the store's SQLite file so that several processes, a killed one among them, can share it.

SQLite in WAL mode does the sharing. What it does not do is done here, under the lock file `lock`, which every
process holds shared while the database is open: making the database, and moving a damaged one aside, need it
exclusively, so no process ever writes to a database that has been replaced under it.

The folder must be on a local disk: WAL needs memory that all processes share, and a network has none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import time
import weakref
from collections.abc import Callable
from pathlib import Path

INDEX = "index.sqlite"
SCHEMA_VERSION = 1

# `answer` and `digest` are sha256 digests, 32 bytes. `used` is in milliseconds since 1970. `stored` is the
# size on the disk. A blob without data is a file. `data` stands last: scans of the others need not read it.
# No index on `answer`: it would cost every put a tenth, and only garbage collection would read it.
_SCHEMA = """
CREATE TABLE memo (question BLOB PRIMARY KEY, answer BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, used INTEGER NOT NULL,
    size INTEGER NOT NULL, stored INTEGER NOT NULL, zst INTEGER NOT NULL, data BLOB
);
CREATE TABLE remembered (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class Unusable(Exception):
    """The store cannot be used; the text says why."""


class Database:
    """A connection and the lock that goes with it. Raises Unusable."""

    def __init__(self, folder: Path, *, patience: float, warn: Callable[[str], None]) -> None:
        """`patience`: seconds to wait for other processes."""
        self.path = folder / INDEX
        self.writable = True
        self._patience = patience
        self._warn = warn
        self._release: Callable[[], object] = lambda: None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self.connection = self._open_read_only(error)
            return
        # Also when the store is forgotten without being closed.
        self._release = weakref.finalize(self, os.close, lock)
        try:
            self.connection = self._settle(lock)
        except (OSError, sqlite3.OperationalError) as error:
            fcntl.flock(lock, fcntl.LOCK_SH)
            self.connection = self._open_read_only(error)

    def close(self) -> None:
        """Close the connection and let others replace the database."""
        self.connection.close()
        self._release()

    def _settle(self, lock: int) -> sqlite3.Connection:
        """A connection to a good database, made or mended first where need be."""
        deadline = time.monotonic() + self._patience
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            connection = self._connect()
            if connection is not None:
                return connection
            fcntl.flock(lock, fcntl.LOCK_UN)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._replace()
                continue
            if time.monotonic() > deadline:
                raise Unusable(f"{self.path} is damaged or gone while other commands have it open")
            time.sleep(0.005 + 0.02 * os.urandom(1)[0] / 255)

    def _connect(self) -> sqlite3.Connection | None:
        """A connection, or None when there is no database or it is damaged."""
        if not self.path.exists():
            return None
        connection = self._raw("rw")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.close()
                return None
            if version > SCHEMA_VERSION:
                raise Unusable(f"{self.path} was written by a newer nxtools (schema {version})")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -32000")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            # Reads the schema and no more: a broken page elsewhere costs the answers on it, not all of them.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException as error:
            connection.close()
            if is_damage(error):
                return None
            raise
        return connection

    def _replace(self) -> None:
        """Make the database; nobody else has it open. A damaged one is moved aside, never deleted."""
        connection = self._connect()
        if connection is not None:  # another process was faster
            connection.close()
            return
        if self.path.exists() and not self._is_unfinished():
            aside = move_aside(self.path)
            self._warn(f"{self.path} was damaged: moved aside to {aside.name}, starting a new one")
        connection = self._raw("rwc")
        try:
            make_schema(connection)
        finally:
            connection.close()

    def _is_unfinished(self) -> bool:
        """Whether the process that was making the database was killed before it had committed anything."""
        connection = self._raw("rw")
        try:
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return bool(tables == 0)
        except sqlite3.DatabaseError:
            return False
        finally:
            connection.close()

    def _open_read_only(self, cause: Exception) -> sqlite3.Connection:
        """A connection to a store that cannot be written. Raises Unusable when it cannot be read either."""
        self.writable = False
        wal = self.path.with_name(self.path.name + "-wal")
        # Without room for its shared memory SQLite reads only a file that it is told nobody writes to.
        for mode in ("ro",) if wal.exists() and wal.stat().st_size else ("ro", "ro&immutable=1"):
            try:
                connection = self._raw(mode)
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.Error:
                continue
            if version == SCHEMA_VERSION:
                return connection
        raise Unusable(f"{self.path.parent} cannot be used: {reason(cause)}")

    def _raw(self, mode: str) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(
            address, uri=True, timeout=self._patience, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = _text
        return connection


def _text(stored: bytes) -> str:
    """A damaged row may hold any bytes as text; finding it must not end the search for others."""
    return stored.decode("utf-8", "replace")


def make_schema(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty database, in one transaction."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # so that `nx-cache gc` can give pages back
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def move_aside(path: Path) -> Path:
    """Rename a database and its companions to the first free `NAME.damaged-N`."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is broken."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def is_full(error: BaseException) -> bool:
    """Whether there was no room: a full disk, a quota, a limit on the size of a file."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
