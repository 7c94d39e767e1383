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
import shutil
import sqlite3
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nxtools.store import rows
from nxtools.store.database import Unusable
from nxtools.store.errors import MissingBlob
from nxtools.store.files import BlobFiles
from nxtools.store.finding import Finding
from nxtools.store.keeping import Item, Keeping
from nxtools.store.rows import Found
from nxtools.store.session import Session

if TYPE_CHECKING:
    from typing_extensions import Buffer

Mode = Literal["normal", "refresh", "offline", "none"]

# A batch holds the write lock for about 30 ms: other processes hardly notice.
_BATCH_ANSWERS = 1000
_BATCH_BYTES = 8 << 20


def default_path() -> Path:
    """Where the store is when no option says otherwise: `NXTOOLS_CACHE`, or the user's cache folder."""
    if named := os.environ.get("NXTOOLS_CACHE"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("nxtools", appauthor=False)


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
        self.hits = self.misses = 0
        self.session = Session(self.path, patience=patience, warn=warn)
        self.files = BlobFiles(self.path)
        self._finding = Finding(self.path, self.session, self.files)
        self._keeping = Keeping(
            self.path, self.session, self.files, database=mode != "none", noting=mode == "refresh"
        )
        self._remembered: set[str] = set()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Note what was used, close the database, remove a private folder. Using the store opens it again."""
        self._finding.note_uses()
        self.session.disconnect()
        if self.mode == "none":
            self._remove_at_exit()

    @property
    def writes(self) -> int:
        return self._keeping.writes

    @property
    def bytes_written(self) -> int:
        return self._keeping.bytes_written

    @property
    def unsaved(self) -> int:
        return self._keeping.unsaved

    @property
    def damaged(self) -> int:
        return self._finding.damaged

    # Answers

    def get(self, question: str) -> bytes | None:
        """The answer to a question (its digest), or None."""
        return self.get_many([question]).get(question)

    def get_many(self, questions: Iterable[str]) -> dict[str, bytes]:
        """The answers that are there, by question."""
        wanted = dict.fromkeys(questions)
        found: dict[str, bytes] = {}
        if self.mode != "none":
            fresh = self._keeping.answered
            asked = wanted if self.mode != "refresh" else [each for each in wanted if each in fresh]
            found = self._finding.answers(asked)
        with self.session.lock:
            self.hits += len(found)
            self.misses += len(wanted) - len(found)
        return found

    def put(self, question: str, answer: bytes, *, kind: str) -> None:
        """Keep an answer, in place of an earlier one; it is on the disk on return."""
        self.put_many([(question, answer)], kind=kind)

    def put_many(self, answers: Iterable[tuple[str, bytes]], *, kind: str) -> None:
        """Keep (question, answer) pairs, a thousand in one short transaction."""
        if self.mode == "none":
            return
        batch: list[Item] = []
        size = 0
        for question, answer in answers:
            batch.append((question, hashlib.sha256(answer).digest(), memoryview(answer)))
            size += len(answer)
            if len(batch) >= _BATCH_ANSWERS or size >= _BATCH_BYTES:
                self._keeping.keep(batch, kind)
                batch, size = [], 0
        if batch:
            self._keeping.keep(batch, kind)

    # Blobs

    def put_blob(self, data: Buffer, *, kind: str, compress: bool = True, required: bool = False) -> str:
        """Keep bytes, or any contiguous buffer, and return their digest.

        `compress=False` keeps a large blob so that it can be mapped. A blob that cannot be kept is warned of;
        with `required` it raises StoreFull or StoreError.
        """
        view = memoryview(data).cast("B")
        digest = hashlib.sha256(view).digest()
        self._keeping.keep([(None, digest, view)], kind, compress=compress, required=required)
        return digest.hex()

    def blob(self, digest: str) -> bytes:
        """A blob's bytes. Raises MissingBlob."""
        view = self.open_blob(digest)
        return view.obj if isinstance(view.obj, bytes) else bytes(view)

    def open_blob(self, digest: str) -> memoryview:
        """A blob as read-only memory, for `np.frombuffer`; mapped where it is large and not compressed.

        Raises MissingBlob.
        """
        find = self._finding
        row = self._row(digest)
        data = None if row is None else find.inline(row)
        view = find.in_file(rows.key(digest), self.files.map) if data is None else memoryview(data)
        if view is None:
            if row is not None:
                find.forget(rows.FIND_BLOB, [digest])
            raise MissingBlob(f"the blob {digest} is not in the store {self.path}")
        if data is None:
            find.note_uses()
        return view

    def has(self, digest: str) -> bool:
        """Whether a blob is there, without reading it. Counts as use, so garbage collection spares it."""
        row = self._row(digest)
        there = (row is not None and row[1] is not None) or self.files.find(digest) is not None
        if there and row is not None:
            self._finding.use(row)
            self._finding.note_uses()
        return there

    def _row(self, digest: str) -> Found | None:
        rows.key(digest)
        return None if self.mode == "none" else self._finding.row(digest)

    def free_bytes(self) -> int:
        """Room on the disk where blobs go."""
        folder = self.path.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    # Small facts that are slow to find again

    def recall(self, name: str) -> str | None:
        """What was remembered under a name, or None."""
        if self.mode == "none" or (self.mode == "refresh" and name not in self._remembered):
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
            self._remembered.add(name)
            with contextlib.suppress(Unusable, sqlite3.Error):
                self.session.transaction(lambda connection: connection.execute(insert, (name, value)))


def _remove_folder(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a child
        shutil.rmtree(folder, ignore_errors=True)
