"""Writing: bulk as files first, then all rows in one transaction, so that a row's file is always there."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from nxtools.store import rows
from nxtools.store.database import Unusable, is_damage, is_full, reason
from nxtools.store.errors import StoreError, StoreFull
from nxtools.store.files import BlobFiles
from nxtools.store.inline import INLINE_BYTES, pack
from nxtools.store.session import Session

# Something to keep: its question or None, its digest, its bytes.
Item: TypeAlias = tuple[str | None, bytes, memoryview]


class Keeping:
    """Keeps answers and blobs in one folder; without a database blobs only, as files.

    `answered`: with `noting`, the questions whose answers were kept.
    Counters: `writes` and `bytes_written` of blobs (an answer is one), `unsaved` ones.
    """

    def __init__(
        self, folder: Path, session: Session, files: BlobFiles, *, database: bool, noting: bool
    ) -> None:
        self.writes = self.bytes_written = self.unsaved = 0
        self.answered: set[str] = set()
        self._folder = folder
        self._session = session
        self._files = files
        self._database = database
        self._noting = noting

    def keep(
        self, items: Sequence[Item], kind: str, *, compress: bool = True, required: bool = False
    ) -> None:
        """Keep the items: bulk as files first, then all rows in one transaction."""
        made: list[tuple[Any, ...]] = []
        answers: list[tuple[bytes, bytes]] = []
        bulk: list[tuple[str, memoryview]] = []
        try:
            self._make_ready(urgent=required)
        except (Unusable, OSError) as error:
            return self._fail(error, len(items), required=required)
        for question, digest, data in items:
            try:
                if len(data) > INLINE_BYTES or not self._database:
                    path = self._put_file(digest.hex(), data, compress=compress)
                    bulk.append((digest.hex(), data))
                    stored, zst, inline = path.stat().st_size, path.suffix == ".zst", None
                else:
                    inline, zst = pack(data)
                    stored = len(inline)
            except OSError as error:
                self._fail(error, 1, required=required)
                continue
            made.append((digest, kind, rows.now(), len(data), stored, zst, inline))
            if question is not None:
                answers.append((rows.key(question), digest))

        def commit(connection: sqlite3.Connection) -> None:
            connection.executemany(rows.PUT_BLOB, made)
            connection.executemany(rows.PUT_ANSWER, answers)
            # Garbage collection removes files under the lock that is held now: what is here will stay.
            for digest, data in bulk:
                if self._files.find(digest) is None:
                    self._files.write(digest, data, compress=compress)

        if self._database:
            try:
                self._session.transaction(commit, urgent=required)
            except (Unusable, OSError, sqlite3.Error) as error:
                if is_damage(error) and len(items) > 1:
                    for item in items:  # those that do not touch the broken page can be kept
                        self.keep([item], kind, compress=compress, required=required)
                    return None
                return self._fail(error, len(made), required=required)
            if self._noting:
                self.answered.update(question for question, _, _ in items if question is not None)
        with self._session.lock:
            self.writes += len(made)
            self.bytes_written += sum(row[4] for row in made)
        return None

    def _make_ready(self, *, urgent: bool) -> None:
        """Raise Unusable or OSError when nothing could be kept anyway, before a large file is written."""
        if not self._database:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        else:
            with self._session.lock:
                self._session.writable(urgent=urgent)

    def _put_file(self, digest: str, data: memoryview, *, compress: bool) -> Path:
        """Where the blob lies now. Reading one that is there is cheaper than writing it again."""
        path = self._files.find(digest)
        if path is not None and self._files.is_whole(path, digest):
            return path
        return self._files.write(digest, data, compress=compress)

    def _fail(self, error: Exception, count: int, *, required: bool) -> None:
        """Count what is not kept, and warn of it or raise."""
        self.unsaved += count
        if required:
            kind = StoreFull if is_full(error) else StoreError
            what = f"the store {self._folder} cannot keep what this run needs"
            raise kind(f"{what}: {reason(error)}") from error
        self._session.warn_unwritten(error)
