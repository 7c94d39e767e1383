"""Looking after a store: what it holds, whether it is whole, and what may go.

All of it can run while other commands use the store. Transactions are short, a blob that was put or used
meanwhile is spared, and its row and the answers that name it always go before its file.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from nxtools.store.core import Store
from nxtools.store.database import Unusable, reason
from nxtools.store.errors import MissingBlob, StoreError
from nxtools.store.inline import unpack
from nxtools.store.rebuild import rebuild
from nxtools.store.rows import now

_PAGE = 500  # blobs in one transaction
_DAY = 86_400_000  # milliseconds

_LISTED = "SELECT 1 FROM blobs WHERE digest = ?"
_ENLIST = """INSERT OR IGNORE INTO blobs (digest, kind, used, size, stored, zst)
VALUES (?, 'unknown', ?, ?, ?, ?)"""

# A blob that may go: id, digest, kind, used, stored, whether it is a file.
_Doomed: TypeAlias = tuple[int, bytes, str, int, int, bool]


@dataclass(frozen=True)
class Size:
    """Blobs of one kind: how many, their own bytes, and the bytes that they take on the disk."""

    blobs: int = 0
    bytes: int = 0
    stored: int = 0


@dataclass
class Verified:
    """What a walk over everything found. Digests in hex."""

    blobs: int = 0
    bytes: int = 0
    answers: int = 0
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # the database knows them, but their file is gone
    unlisted: list[str] = field(default_factory=list)  # files, whole, that the database does not know
    dangling: int = 0  # answers whose blob is gone
    abandoned: int = 0  # files that killed processes left half written
    database: str = "ok"  # or what SQLite finds wrong with its file

    @property
    def is_whole(self) -> bool:
        """Whether everything that the store knows can be used."""
        return self.database == "ok" and not (self.damaged or self.missing or self.dangling)


@dataclass
class Collected:
    """What garbage collection removed, or would remove."""

    blobs: int = 0
    stored: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # blobs by kind


def sizes(store: Store) -> dict[str, Size]:
    """What the store holds, by kind. Raises StoreError."""
    query = "SELECT kind, count(*), sum(size), sum(stored) FROM blobs GROUP BY kind ORDER BY kind"
    return {kind: Size(*rest) for kind, *rest in _query(store, query)}


def count_answers(store: Store) -> int:
    """How many questions the store can answer. Raises StoreError."""
    ((count,),) = _query(store, "SELECT count(*) FROM memo")
    return int(count)


# Verifying


def verify(store: Store, *, mend: bool = False) -> Verified:
    """Read everything and say what is wrong.

    With `mend`, what cannot be used is forgotten, whole files that are not listed get listed (as of kind
    "unknown"), and a damaged database is rebuilt from what can be read of it. Raises StoreError.
    """
    found = Verified(database=_check_database(store))
    if found.database != "ok":
        if not mend:
            return found
        _rebuild(store)
    for row in _blob_rows(store):
        _verify_row(store, row, found)
    _verify_files(store, found, mend=mend)
    if mend:
        for digest in found.damaged + found.missing:
            with contextlib.suppress(MissingBlob):
                store.open_blob(digest)  # runs into the damage and forgets it, with all precautions
    _verify_answers(store, found, mend=mend)
    abandoned = store.files.abandoned()
    found.abandoned = len(abandoned)
    if mend:
        for path in abandoned:
            path.unlink(missing_ok=True)
    return found


def _check_database(store: Store) -> str:
    try:
        return "; ".join(str(fault) for (fault,) in _query(store, "PRAGMA integrity_check(3)"))
    except StoreError as error:
        if store.session.database() is None:
            raise
        return error.message


def _rebuild(store: Store) -> None:
    with store.session.lock:
        store.session.disconnect()
        with _explained(store, "rebuilt"):
            rebuild(store.path)


def _blob_rows(store: Store) -> Iterator[tuple[Any, ...]]:
    last = 0
    query = "SELECT id, digest, size, zst, data FROM blobs WHERE id > ? ORDER BY id LIMIT ?"
    while rows := _query(store, query, (last, _PAGE)):
        yield from rows
        last = rows[-1][0]


def _verify_row(store: Store, row: tuple[Any, ...], found: Verified) -> None:
    _, digest, size, zst, packed = row
    found.blobs += 1
    found.bytes += size
    if packed is not None:
        data = unpack(packed, zst)
        if data is None or hashlib.sha256(data).digest() != digest:
            found.damaged.append(digest.hex())
        return
    path = store.files.find(digest.hex())
    if path is None:
        found.missing.append(digest.hex())
    elif not store.files.is_whole(path, digest.hex()):
        found.damaged.append(digest.hex())


def _verify_files(store: Store, found: Verified, *, mend: bool) -> None:
    """Files unknown to the database: it is a new one, or a process was killed before it listed them."""
    for digest, path in store.files.walk():
        key = bytes.fromhex(digest)
        if _query(store, _LISTED, (key,)):
            continue
        if not store.files.is_whole(path, digest):
            found.damaged.append(digest)
            continue
        found.unlisted.append(digest)
        if mend:
            row = (key, now(), len(store.open_blob(digest)), path.stat().st_size, path.suffix == ".zst")
            _transact(store, partial(_run, statement=_ENLIST, rows=[row]))


def _verify_answers(store: Store, found: Verified, *, mend: bool) -> None:
    found.answers = count_answers(store)
    lost = "NOT EXISTS (SELECT 1 FROM blobs WHERE digest = answer)"
    rows = _query(store, f"SELECT question, answer FROM memo WHERE {lost}")
    dangling = [row for row in rows if store.files.find(row[1].hex()) is None]
    found.dangling = len(dangling)
    if mend:
        delete = f"DELETE FROM memo WHERE question = ? AND answer = ? AND {lost}"
        for start in range(0, len(dangling), _PAGE):
            _transact(store, partial(_run, statement=delete, rows=dangling[start : start + _PAGE]))


# Collecting garbage


def collect(
    store: Store,
    *,
    older_than: float | None = None,
    kinds: Collection[str] = (),
    max_bytes: int | None = None,
    dry_run: bool = False,
) -> Collected:
    """Remove blobs, and the answers that they are, longest unused first.

    `older_than`: those not used for so many days; use is noted to the day. `max_bytes`: more of them, until
    the rest takes no more than this on the disk. `kinds`: only of these; none means all. Raises StoreError.
    """
    collected = Collected()
    doomed = list(_doomed(store, older_than, kinds, max_bytes))
    questions = {} if dry_run else _questions(store, {row[1] for row in doomed})
    for start in range(0, len(doomed), _PAGE):
        page = doomed[start : start + _PAGE]
        for _, _, kind, _, stored, _ in page if dry_run else _remove(store, page, questions):
            collected.blobs += 1
            collected.stored += stored
            collected.kinds[kind] = collected.kinds.get(kind, 0) + 1
    if not dry_run:
        _give_pages_back(store)
        for path in store.files.abandoned():
            path.unlink(missing_ok=True)
    return collected


def clear(store: Store) -> Collected:
    """Remove everything. Raises StoreError."""
    collected = collect(store, older_than=0)
    _transact(store, partial(_run, statement="DELETE FROM remembered", rows=[()]))
    _remove_unlisted(store, [bytes.fromhex(digest) for digest, _ in store.files.walk()])
    return collected


def _doomed(
    store: Store, older_than: float | None, kinds: Collection[str], max_bytes: int | None
) -> Iterator[_Doomed]:
    some = f"WHERE kind IN ({','.join('?' * len(kinds))})" if kinds else ""
    rest = sum(size.stored for kind, size in sizes(store).items() if kind in kinds or not kinds)
    before = -1 if older_than is None else now() - int(older_than * _DAY)
    columns = "id, digest, kind, used, stored, data IS NULL"
    for row in _query(store, f"SELECT {columns} FROM blobs {some} ORDER BY used, id", kinds):
        if row[3] > before and (max_bytes is None or rest <= max_bytes):
            return
        rest -= row[4]
        yield row


def _questions(store: Store, digests: Collection[bytes]) -> dict[bytes, list[bytes]]:
    """The questions that these blobs answer."""
    questions: dict[bytes, list[bytes]] = {}
    for question, answer in _query(store, "SELECT question, answer FROM memo"):
        if answer in digests:
            questions.setdefault(answer, []).append(question)
    return questions


def _remove(store: Store, page: list[_Doomed], questions: dict[bytes, list[bytes]]) -> list[_Doomed]:
    """Remove some blobs and return them, all but those that were put or used meanwhile."""
    removed: list[_Doomed] = []

    def remove_rows(connection: sqlite3.Connection) -> None:
        for row in page:
            blob, digest, _, used, *_ = row
            if connection.execute("DELETE FROM blobs WHERE id = ? AND used = ?", (blob, used)).rowcount:
                removed.append(row)
                for question in questions.get(digest, ()):
                    connection.execute(
                        "DELETE FROM memo WHERE question = ? AND answer = ?", (question, digest)
                    )

    _transact(store, remove_rows)
    _remove_unlisted(store, [digest for _, digest, _, _, _, is_file in removed if is_file])
    return removed


def _remove_unlisted(store: Store, digests: list[bytes]) -> None:
    """Remove the files of blobs, under the lock, all but those that another process has put again."""

    def remove_files(connection: sqlite3.Connection) -> None:
        for digest in digests:
            if connection.execute(_LISTED, (digest,)).fetchone() is None:
                store.files.remove(digest.hex())

    if digests:
        _transact(store, remove_files)


def _give_pages_back(store: Store) -> None:
    """Shorten the database file by a thousand pages at a time, so that others can write in between."""
    left = None
    while (free := _query(store, "PRAGMA freelist_count")) not in ([(0,)], left):
        left = free
        # Only executescript steps through a pragma that returns no rows.
        with store.session.lock, _explained(store, "written"):
            store.session.writable().executescript("PRAGMA incremental_vacuum(1000)")


def _query(store: Store, query: str, values: Collection[Any] = ()) -> list[Any]:
    """All the rows that a query finds. Raises StoreError."""
    with store.session.lock, _explained(store, "read"):
        database = store.session.database()
        if database is None:
            raise Unusable(store.session.trouble)
        return database.connection.execute(query, tuple(values)).fetchall()


def _run(connection: sqlite3.Connection, *, statement: str, rows: list[tuple[Any, ...]]) -> None:
    connection.executemany(statement, rows)


def _transact(store: Store, work: Callable[[sqlite3.Connection], object]) -> None:
    """Do some work in one write transaction. Raises StoreError."""
    with _explained(store, "written"):
        store.session.transaction(work)


@contextlib.contextmanager
def _explained(store: Store, done: str) -> Iterator[None]:
    try:
        yield
    except (Unusable, OSError, sqlite3.Error) as error:
        raise StoreError(f"the store {store.path} cannot be {done}: {reason(error)}") from error
