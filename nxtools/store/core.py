"""The store itself: get and put answers, get and put blobs.

What callers may rely on:

* An answer is on the disk when `put` returns (synchronous=FULL), and no transaction outlives a call.
* Every read is checked against its digest. Damage is a miss: it is forgotten, and the next put mends it.
* A store that cannot be read finds nothing, one that cannot be written keeps nothing. Either warns once and
  never fails a run, except where a caller says that it cannot go on without its blob (`required=True`).
* Any number of processes and threads use one folder at once. A store may be carried over a fork.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, TypeVar

from nxtools.errors import InputError
from nxtools.store.database import Unusable, is_damage, is_full, reason
from nxtools.store.errors import MissingBlob, StoreError, StoreFull
from nxtools.store.files import BlobFiles, Damaged
from nxtools.store.inline import INLINE_BYTES, pack, unpack
from nxtools.store.session import Session

if TYPE_CHECKING:
    from typing_extensions import Buffer

Mode = Literal["normal", "refresh", "offline", "none"]

# A batch holds the write lock for about 30 ms: other processes hardly notice.
_BATCH_ANSWERS = 1000
_BATCH_BYTES = 8 << 20

_FIND_ANSWER = (
    "SELECT answer, data, zst, used FROM memo LEFT JOIN blobs ON digest = answer WHERE question = ?"
)
_FIND_BLOB = "SELECT ?1, data, zst, used FROM blobs WHERE digest = ?1"
_PUT_ANSWER = "INSERT OR REPLACE INTO memo (question, answer) VALUES (?, ?)"
_PUT_BLOB = """INSERT INTO blobs (digest, kind, used, size, stored, zst, data) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET
    kind = excluded.kind, used = excluded.used, size = excluded.size,
    stored = excluded.stored, zst = excluded.zst, data = excluded.data"""

# A found row may be damaged anywhere, so nothing is said about its types: digest, data, zst, used.
_Found: TypeAlias = tuple[Any, Any, Any, Any]
# Something to keep: its question or None, its digest, its bytes.
_Item: TypeAlias = tuple[str | None, bytes, memoryview]

_Bytes = TypeVar("_Bytes", bytes, memoryview)

# Being read costs a blob at most one write a day.
_USE_GRAIN = 86_400_000

_DIGEST = re.compile(r"[0-9a-f]{64}")


def default_path() -> Path:
    """Where the store is when no option says otherwise: `NXTOOLS_CACHE`, or the user's cache folder."""
    if named := os.environ.get("NXTOOLS_CACHE"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("nxtools", appauthor=False)


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _key(digest: str) -> bytes:
    """The 32 bytes of a digest. Raises InputError: digests come from streams, and name files."""
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"{digest[:80]!r} is not a digest", hint="64 hex digits are")
    return bytes.fromhex(digest)


def _is_digest(value: object) -> TypeGuard[bytes]:
    """Whether what a row calls a digest can be one."""
    return isinstance(value, bytes) and len(value) == 32


def _say(message: str) -> None:
    print(f"nxtools: {message}", file=sys.stderr, flush=True)


class Store:
    """A folder of answers and blobs.

    `mode`: "refresh" finds only the answers that this object has put itself, and replaces the others;
    "offline" is "normal", but the caller treats a miss as an error (`NotInStore`); "none" leaves the folder
    alone: answers are not kept, and blobs live in a private temporary folder until `close`.

    Counters: `hits` and `misses` of questions, `writes` and `bytes_written` of blobs (an answer is one),
    `damaged` blobs that were found, `unsaved` ones that could not be kept.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        mode: Mode = "normal",
        warn: Callable[[str], None] = _say,
        patience: float = 20.0,
    ) -> None:
        """Touches nothing yet. `path`: None for `default_path()`. `patience`: seconds to wait for others."""
        self.mode: Mode = mode
        if mode == "none":
            self.path = Path(tempfile.gettempdir()) / f"nxtools-{os.urandom(16).hex()}"
            self._remove_at_exit = weakref.finalize(self, _remove_folder, self.path, os.getpid())
        else:
            self.path = default_path() if path is None else Path(path).expanduser()
        self.hits = self.misses = self.writes = self.bytes_written = self.damaged = self.unsaved = 0
        self.session = Session(self.path, patience=patience, warn=warn)
        self.files = BlobFiles(self.path)
        self._used: set[bytes] = set()
        self._fresh: set[str] = set()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Note what was used, close the database, remove a private folder. Using the store opens it again."""
        self._note_uses()
        self.session.disconnect()
        if self.mode == "none":
            self._remove_at_exit()

    # Answers

    def get(self, question: str) -> bytes | None:
        """The answer to a question (its digest), or None."""
        return self.get_many([question]).get(question)

    def get_many(self, questions: Iterable[str]) -> dict[str, bytes]:
        """The answers that are there, by question."""
        wanted = dict.fromkeys(questions)
        found: dict[str, bytes] = {}
        if self.mode != "none":
            asked = wanted if self.mode != "refresh" else [each for each in wanted if each in self._fresh]
            lost: list[str] = []
            for question, row in self._look_up(asked, found):
                answer = self._in_file(row[0], self.files.read)
                if answer is None:
                    lost.append(question)
                else:
                    found[question] = answer
            self._forget(_FIND_ANSWER, lost)
            if len(self._used) >= _BATCH_ANSWERS:
                self._note_uses()
        with self.session.lock:
            self.hits += len(found)
            self.misses += len(wanted) - len(found)
        return found

    def _look_up(self, questions: Iterable[str], found: dict[str, bytes]) -> list[tuple[str, _Found]]:
        """Put the answers that the database holds into `found`; return the rows of the others."""
        others: list[tuple[str, _Found]] = []
        with self.session.reading() as connection:
            if connection is None:
                return others
            find = connection.cursor().execute
            find("BEGIN")  # one snapshot, and one lock, for all of them
            for question in questions:
                try:
                    row: _Found | None = find(_FIND_ANSWER, (_key(question),)).fetchone()
                except sqlite3.DatabaseError as error:
                    if not is_damage(error):
                        raise
                    self.session.warn_unread(error)  # a broken page hides the answers on it, no others
                    continue
                if row is None:
                    continue
                answer = self._inline(row)
                if answer is None:
                    others.append((question, row))
                else:
                    found[question] = answer
        return others

    def put(self, question: str, answer: bytes, *, kind: str) -> None:
        """Keep an answer, in place of an earlier one; it is on the disk on return."""
        self.put_many([(question, answer)], kind=kind)

    def put_many(self, answers: Iterable[tuple[str, bytes]], *, kind: str) -> None:
        """Keep (question, answer) pairs, a thousand in one short transaction."""
        if self.mode == "none":
            return
        batch: list[tuple[str | None, bytes, memoryview]] = []
        size = 0
        for question, answer in answers:
            batch.append((question, hashlib.sha256(answer).digest(), memoryview(answer)))
            size += len(answer)
            if len(batch) >= _BATCH_ANSWERS or size >= _BATCH_BYTES:
                self._keep(batch, kind)
                batch, size = [], 0
        if batch:
            self._keep(batch, kind)

    # Blobs

    def put_blob(self, data: Buffer, *, kind: str, compress: bool = True, required: bool = False) -> str:
        """Keep bytes, or any contiguous buffer, and return their digest.

        `compress=False` keeps a large blob so that it can be mapped. A blob that cannot be kept is warned of;
        with `required` it raises StoreFull or StoreError.
        """
        view = memoryview(data).cast("B")
        digest = hashlib.sha256(view).digest()
        self._keep([(None, digest, view)], kind, compress=compress, required=required)
        return digest.hex()

    def blob(self, digest: str) -> bytes:
        """A blob's bytes. Raises MissingBlob."""
        view = self.open_blob(digest)
        return view.obj if isinstance(view.obj, bytes) else bytes(view)

    def open_blob(self, digest: str) -> memoryview:
        """A blob as read-only memory, for `np.frombuffer`; mapped where it is large and not compressed.

        Raises MissingBlob.
        """
        row = self._blob_row(digest)
        data = None if row is None else self._inline(row)
        view = self._in_file(_key(digest), self.files.map) if data is None else memoryview(data)
        if view is None:
            if row is not None:
                self._forget(_FIND_BLOB, [digest])
            raise MissingBlob(f"the blob {digest} is not in the store {self.path}")
        if data is None:
            self._note_uses()
        return view

    def has(self, digest: str) -> bool:
        """Whether a blob is there, without reading it. Counts as use, so garbage collection spares it."""
        row = self._blob_row(digest)
        there = (row is not None and row[1] is not None) or self.files.find(digest) is not None
        if there and row is not None:
            self._use(row)
            self._note_uses()
        return there

    def free_bytes(self) -> int:
        """Room on the disk where blobs go."""
        folder = self.path.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    # Small facts that are slow to find again

    def recall(self, name: str) -> str | None:
        """What was remembered under a name, or None."""
        if self.mode == "none" or (self.mode == "refresh" and name not in self._fresh):
            return None
        with self.session.reading() as connection:
            if connection is not None:
                row = connection.execute("SELECT value FROM remembered WHERE key = ?", (name,)).fetchone()
                return None if row is None else str(row[0])
        return None

    def remember(self, name: str, value: str) -> None:
        """Keep a small fact under a name."""
        if self.mode != "none":
            insert = "INSERT OR REPLACE INTO remembered (key, value) VALUES (?, ?)"
            self._fresh.add(name)
            with contextlib.suppress(Unusable, sqlite3.Error):
                self.session.transaction(lambda connection: connection.execute(insert, (name, value)))

    # How

    def _keep(
        self, items: Sequence[_Item], kind: str, *, compress: bool = True, required: bool = False
    ) -> None:
        """Keep the items: bulk as files first, then all rows in one transaction."""
        rows: list[tuple[Any, ...]] = []
        answers: list[tuple[bytes, bytes]] = []
        bulk: list[tuple[str, memoryview]] = []
        try:
            self._make_ready(urgent=required)
        except (Unusable, OSError) as error:
            return self._fail(error, len(items), required=required)
        for question, digest, data in items:
            try:
                if len(data) > INLINE_BYTES or self.mode == "none":
                    path = self._put_file(digest.hex(), data, compress=compress)
                    bulk.append((digest.hex(), data))
                    stored, zst, inline = path.stat().st_size, path.suffix == ".zst", None
                else:
                    inline, zst = pack(data)
                    stored = len(inline)
            except OSError as error:
                self._fail(error, 1, required=required)
                continue
            rows.append((digest, kind, now(), len(data), stored, zst, inline))
            if question is not None:
                answers.append((_key(question), digest))

        def commit(connection: sqlite3.Connection) -> None:
            connection.executemany(_PUT_BLOB, rows)
            connection.executemany(_PUT_ANSWER, answers)
            # Garbage collection removes files under the lock that is held now: what is here will stay.
            for digest, data in bulk:
                if self.files.find(digest) is None:
                    self.files.write(digest, data, compress=compress)

        if self.mode != "none":
            try:
                self.session.transaction(commit, urgent=required)
            except (Unusable, OSError, sqlite3.Error) as error:
                if is_damage(error) and len(items) > 1:
                    for item in items:  # those that do not touch the broken page can be kept
                        self._keep([item], kind, compress=compress, required=required)
                    return None
                return self._fail(error, len(rows), required=required)
            if self.mode == "refresh":
                self._fresh.update(question for question, _, _ in items if question is not None)
        with self.session.lock:
            self.writes += len(rows)
            self.bytes_written += sum(row[4] for row in rows)
        return None

    def _make_ready(self, *, urgent: bool) -> None:
        """Raise Unusable or OSError when nothing could be kept anyway, before a large file is written."""
        if self.mode == "none":
            self.path.mkdir(mode=0o700, exist_ok=True)
        else:
            with self.session.lock:
                self.session.writable(urgent=urgent)

    def _put_file(self, digest: str, data: memoryview, *, compress: bool) -> Path:
        """Where the blob lies now. Reading one that is there is cheaper than writing it again."""
        path = self.files.find(digest)
        if path is not None and self.files.is_whole(path, digest):
            return path
        return self.files.write(digest, data, compress=compress)

    def _fail(self, error: Exception, count: int, *, required: bool) -> None:
        """Count what is not kept, and warn of it or raise."""
        self.unsaved += count
        if required:
            kind = StoreFull if is_full(error) else StoreError
            raise kind(f"the store {self.path} cannot keep what this run needs: {reason(error)}") from error
        self.session.warn_unwritten(error)

    def _blob_row(self, digest: str) -> _Found | None:
        key = _key(digest)
        if self.mode != "none":
            with self.session.reading() as connection:
                if connection is not None:
                    row: _Found | None = connection.execute(_FIND_BLOB, (key,)).fetchone()
                    return row
        return None

    def _inline(self, row: _Found) -> bytes | None:
        """The blob that a row holds, or None for one in a file and a damaged one."""
        digest, packed, zst, _ = row
        self._use(row)
        if packed is None:
            return None
        data = unpack(packed, zst)
        if data is None or hashlib.sha256(data).digest() != digest:
            self._note_damage(digest)
            return None
        return data

    def _in_file(self, digest: object, read: Callable[[str], _Bytes | None]) -> _Bytes | None:
        """The blob in a file, or None for one that is missing, damaged or cannot be read."""
        try:
            return read(digest.hex()) if _is_digest(digest) else None
        except Damaged:
            self._note_damage(digest)
        except OSError as error:
            self.session.warn_unread(error)
        return None

    def _forget(self, find: str, digests: Sequence[str]) -> None:
        """Forget answers or blobs that are missing or damaged, but not what another process has mended."""

        def forget(connection: sqlite3.Connection) -> None:
            for key in map(_key, digests):
                row: _Found | None = connection.execute(find, (key,)).fetchone()
                if row is None:
                    continue
                blob, packed, zst, _ = row
                data = unpack(packed, zst)
                if data is not None and hashlib.sha256(data).digest() == blob:
                    continue
                if _is_digest(blob) and self.files.find(blob.hex()) is not None:
                    continue
                connection.execute("DELETE FROM memo WHERE question = ?", (key,))
                connection.execute("DELETE FROM blobs WHERE digest = ?", (blob,))

        # A store that cannot be written keeps its damage, and misses again.
        if digests:
            with contextlib.suppress(Unusable, sqlite3.Error):
                self.session.transaction(forget)

    def _note_damage(self, digest: object) -> None:
        self.damaged += 1
        name = digest.hex() if isinstance(digest, bytes) else digest
        message = f"the store {self.path} had damaged the blob {name} (`nx-cache verify` checks the others)"
        self.session.warn_once("damage", message)

    def _use(self, row: _Found) -> None:
        if isinstance(row[3], int) and row[3] < now() - _USE_GRAIN:
            with self.session.lock:
                self._used.add(row[0])

    def _note_uses(self) -> None:
        """Write down what had not been used for a day."""
        with self.session.lock:
            used, self._used = self._used, set()
        if used:
            rows = [(now(), digest) for digest in used]
            update = "UPDATE blobs SET used = ? WHERE digest = ?"
            with contextlib.suppress(Unusable, sqlite3.Error):
                self.session.transaction(lambda connection: connection.executemany(update, rows))


def _remove_folder(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a child
        shutil.rmtree(folder, ignore_errors=True)
