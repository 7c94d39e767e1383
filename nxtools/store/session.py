"""A database that opens itself when it is needed, warns once when it cannot, and is safe to fork with.

SQLite must not be carried over a fork: the child would believe in locks that it does not hold, and its
commits could vanish with the write-ahead log that the parent removes. So every connection is closed before a
fork, and opens again on both sides when it is next used.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from nxtools.store.database import Database, Unusable, is_damage, reason

# A run must not wait for one failing write after another, but a disk that was full may get room again.
_PAUSE_SECONDS = 60.0

_ADVICE = "; `nx-cache verify --mend` rebuilds it"


class Session:
    """One folder's database as one process uses it; any of its threads may."""

    def __init__(self, folder: Path, *, patience: float, warn: Callable[[str], None]) -> None:
        """Opens nothing yet. `patience`: seconds to wait for other processes."""
        self.folder = folder
        self.lock = threading.RLock()
        self.trouble: str | None = None  # why the database cannot be used, once that is known
        self._patience = patience
        self._warn = warn
        self._warned: set[str] = set()
        self._open: Database | None = None
        self._no_writes_before = 0.0
        _sessions.add(self)

    def database(self) -> Database | None:
        """The open database, or None where there is none to use. For use with the lock held."""
        if self._open is None and self.trouble is None:
            try:
                self._open = Database(self.folder, patience=self._patience, warn=self._warn)
            except Unusable as error:
                self.trouble = str(error)
        return self._open

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection to read with, or None. What fails in the block is warned of, and the block is left."""
        with self.lock:
            database = self.database()
            if database is None:
                self._warn_unusable()
            try:
                yield None if database is None else database.connection
            except sqlite3.Error as error:
                self.warn_unread(error)
            finally:
                if database is not None and database.connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        database.connection.execute("ROLLBACK")

    def writable(self, *, urgent: bool = False) -> sqlite3.Connection:
        """A connection to write with, for use with the lock held.

        Raises Unusable; also for a while after a failed write, unless it is urgent.
        """
        database = self.database()
        if database is None:
            raise Unusable(self.trouble)
        if not database.writable:
            raise Unusable("it is read-only")
        if time.monotonic() < self._no_writes_before and not urgent:
            raise Unusable("an earlier write failed")
        return database.connection

    def transaction(self, work: Callable[[sqlite3.Connection], object], *, urgent: bool = False) -> None:
        """Do some work in one write transaction, committed on return.

        Raises Unusable when there is nothing to write to, sqlite3.Error, and whatever the work raises.
        """
        with self.lock:
            connection = self.writable(urgent=urgent)
            try:
                connection.execute("BEGIN IMMEDIATE")
                work(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                if isinstance(error, sqlite3.Error) and not is_damage(error):
                    self._no_writes_before = time.monotonic() + _PAUSE_SECONDS
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def warn_unread(self, error: Exception) -> None:
        """Say once that answers may be there and not be found."""
        advice = _ADVICE if is_damage(error) else ""
        self.warn_once("read", f"the store {self.folder} cannot be read: {reason(error)}{advice}")

    def warn_unwritten(self, error: Exception) -> None:
        """Say once that new answers are not kept."""
        if self.trouble is not None:
            self._warn_unusable()
            return
        advice = _ADVICE if is_damage(error) else ""
        what = f"the store {self.folder} cannot be written, so new answers are not kept"
        self.warn_once("write", f"{what}: {reason(error)}{advice}")

    def _warn_unusable(self) -> None:
        self.warn_once("open", f"going on without the store: {self.trouble}")

    def warn_once(self, topic: str, message: str) -> None:
        """Say something about a topic, the first time only."""
        with self.lock:
            if topic in self._warned:
                return
            self._warned.add(topic)
        self._warn(message)

    def disconnect(self) -> None:
        """Close the database; it opens again at the next use."""
        with self.lock:
            if self._open is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._open.close()
                self._open = None


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_forking: list[Session] = []


def _before_fork() -> None:
    for session in list(_sessions):
        session.lock.acquire()
        session.disconnect()
        _forking.append(session)


def _after_fork() -> None:
    while _forking:
        _forking.pop().lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
