"""Reading: the rows that answer, checked against their digests, and what becomes of damage."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from nxtools.store import rows
from nxtools.store.database import Unusable, is_damage
from nxtools.store.files import BlobFiles, Damaged
from nxtools.store.inline import unpack
from nxtools.store.rows import Found
from nxtools.store.session import Session

_Bytes = TypeVar("_Bytes", bytes, memoryview)

# Being read costs a blob at most one write a day.
_USE_GRAIN = 86_400_000

# So many are noted together.
_USES = 1000


class Finding:
    """Finds answers and blobs in one folder. `damaged` counts blobs that were not what their digest says."""

    def __init__(self, folder: Path, session: Session, files: BlobFiles) -> None:
        self.damaged = 0
        self._folder = folder
        self._session = session
        self._files = files
        self._used: set[bytes] = set()

    def answers(self, questions: Iterable[str]) -> dict[str, bytes]:
        """Those that are there, by question."""
        found: dict[str, bytes] = {}
        lost: list[str] = []
        for question, row in self._look_up(questions, found):
            answer = self.in_file(row[0], self._files.read)
            if answer is None:
                lost.append(question)
            else:
                found[question] = answer
        self.forget(rows.FIND_ANSWER, lost)
        if len(self._used) >= _USES:
            self.note_uses()
        return found

    def _look_up(self, questions: Iterable[str], found: dict[str, bytes]) -> list[tuple[str, Found]]:
        """Put the answers that the database holds into `found`; return the rows of the others."""
        others: list[tuple[str, Found]] = []
        with self._session.reading() as connection:
            if connection is None:
                return others
            find = connection.cursor().execute
            find("BEGIN")  # one snapshot, and one lock, for all of them
            for question in questions:
                try:
                    row: Found | None = find(rows.FIND_ANSWER, (rows.key(question),)).fetchone()
                except sqlite3.DatabaseError as error:
                    if not is_damage(error):
                        raise
                    self._session.warn_unread(error)  # a broken page hides the answers on it, no others
                    continue
                if row is None:
                    continue
                answer = self.inline(row)
                if answer is None:
                    others.append((question, row))
                else:
                    found[question] = answer
        return others

    def row(self, digest: str) -> Found | None:
        """What the database says of a blob."""
        key = rows.key(digest)
        with self._session.reading() as connection:
            if connection is not None:
                row: Found | None = connection.execute(rows.FIND_BLOB, (key,)).fetchone()
                return row
        return None

    def inline(self, row: Found) -> bytes | None:
        """The blob that a row holds, or None for one in a file and a damaged one."""
        digest, packed, zst, _ = row
        self.use(row)
        if packed is None:
            return None
        data = unpack(packed, zst)
        if data is None or hashlib.sha256(data).digest() != digest:
            self._note_damage(digest)
            return None
        return data

    def in_file(self, digest: object, read: Callable[[str], _Bytes | None]) -> _Bytes | None:
        """The blob in a file, or None for one that is missing, damaged or cannot be read."""
        try:
            return read(digest.hex()) if rows.is_digest(digest) else None
        except Damaged:
            self._note_damage(digest)
        except OSError as error:
            self._session.warn_unread(error)
        return None

    def forget(self, find: str, digests: Sequence[str]) -> None:
        """Forget answers or blobs that are missing or damaged, but not what another process has mended."""

        def forget(connection: sqlite3.Connection) -> None:
            for key in map(rows.key, digests):
                row: Found | None = connection.execute(find, (key,)).fetchone()
                if row is None:
                    continue
                blob, packed, zst, _ = row
                data = unpack(packed, zst)
                if data is not None and hashlib.sha256(data).digest() == blob:
                    continue
                if rows.is_digest(blob) and self._files.find(blob.hex()) is not None:
                    continue
                connection.execute("DELETE FROM memo WHERE question = ?", (key,))
                connection.execute("DELETE FROM blobs WHERE digest = ?", (blob,))

        # A store that cannot be written keeps its damage, and misses again.
        if digests:
            with contextlib.suppress(Unusable, sqlite3.Error):
                self._session.transaction(forget)

    def _note_damage(self, digest: object) -> None:
        self.damaged += 1
        name = digest.hex() if isinstance(digest, bytes) else digest
        message = (
            f"the store {self._folder} had damaged the blob {name} (`nx-cache verify` checks the others)"
        )
        self._session.warn_once("damage", message)

    def use(self, row: Found) -> None:
        """Garbage collection spares what was used of late."""
        if isinstance(row[3], int) and row[3] < rows.now() - _USE_GRAIN:
            with self._session.lock:
                self._used.add(row[0])

    def note_uses(self) -> None:
        """Write down what had not been used for a day."""
        with self._session.lock:
            used, self._used = self._used, set()
        if used:
            dated = [(rows.now(), digest) for digest in used]
            update = "UPDATE blobs SET used = ? WHERE digest = ?"
            with contextlib.suppress(Unusable, sqlite3.Error):
                self._session.transaction(lambda connection: connection.executemany(update, dated))
