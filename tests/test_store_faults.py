"""The store when things go wrong, and really do: kills, damage, full and read-only disks, crowds."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nxtools.store import MissingBlob, Store, StoreError, question_digest
from nxtools.store.database import Database
from nxtools.store.files import discard as discard_damaged
from nxtools.store.upkeep import verify

SMALL = b"the answer" * 50
LARGE = bytes(range(256)) * 400  # compresses
NOISE = random.Random(0).randbytes(100_000)  # does not

# What the processes of these tests have in common with their parent.
PRELUDE = """
import sys
from nxtools.store import *
folder = sys.argv[1]
def ask(number): return question_digest("test", 1, {"number": number})
def answer(number): return b"%d " % number * (20 if number % 10 else 20_000)
"""


def ask(number: int) -> str:
    return question_digest("test", 1, {"number": number})


def answer(number: int) -> bytes:
    """Every tenth is large enough for a file."""
    return b"%d " % number * (20 if number % 10 else 20_000)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def make(folder: Path, warnings: list[str]) -> Callable[..., Store]:
    return lambda **options: Store(folder, warn=warnings.append, **options)


MakeStore = Callable[..., Store]


def start(script: str, *arguments: object, before: list[str] | None = None) -> subprocess.Popen[str]:
    """Starts Python on PRELUDE and the script, with `before` in front of its command line."""
    command = [*(before or []), sys.executable, "-c", PRELUDE + script, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def run(script: str, *arguments: object, before: list[str] | None = None) -> tuple[str, str]:
    """What the script says on stdout and stderr; it must end well."""
    process = start(script, *arguments, before=before)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out, err


# Kills


def test_nothing_that_was_answered_is_lost_by_kills(folder: Path, make: MakeStore) -> None:
    """A process says which answers `put` has returned for; it is killed in the middle, again and again."""
    script = """
store = Store(folder)
for number in range(int(sys.argv[2]), 10**6):
    store.put(ask(number), answer(number), kind="test")
    print(number, flush=True)
"""
    moments = random.Random(1)
    next_number = 0
    for _ in range(8):
        process = start(script, folder, next_number)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0].split()
        next_number = max(next_number + 1, *(int(number) + 1 for number in said if number.isdigit()), 0)
    assert next_number > 20
    store = make()
    found = store.get_many(map(ask, range(next_number)))
    assert found == {ask(number): answer(number) for number in range(next_number)}
    report = verify(store)
    assert report.is_whole and report.database == "ok"


def test_what_a_killed_writer_left_goes_when_it_is_old(make: MakeStore, folder: Path) -> None:
    """A recording that is killed again and again must not fill the disk."""
    script = """
import os, pathlib
def die(*_): os.kill(os.getpid(), 9)
pathlib.Path.replace = die  # between writing the file and giving it its name
Store(folder).put_blob(os.urandom(100_000), kind="test")
"""
    assert start(script, folder).wait(timeout=60) == -signal.SIGKILL
    (left,) = (folder / "tmp").iterdir()
    make().put_blob(NOISE, kind="test")
    assert left.exists()  # it might still be growing
    hours_ago = time.time() - 7200
    os.utime(left, (hours_ago, hours_ago))
    assert verify(make()).abandoned == 1
    make().put_blob(LARGE, kind="test")
    assert not left.exists()
    assert verify(make()).is_whole


# Damage

DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda path: flip_bit(path, path.stat().st_size // 2),
    "a flipped bit at the start": lambda path: flip_bit(path, 0),
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 7),
    "emptied": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
    "other bytes": lambda path: path.write_bytes(b"something else"),
}


def flip_bit(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("data", [LARGE, NOISE], ids=["compressed", "plain"])
def test_a_damaged_file_is_a_miss_and_mended_by_the_next_put(
    make: MakeStore, damage: Callable[[Path], object], data: bytes
) -> None:
    make().put(ask(1), data, kind="test")
    store = make()
    digest = store.put_blob(data, kind="test")
    path = store.files.find(digest)
    assert path is not None
    damage(path)
    assert not verify(make()).is_whole
    assert store.get(ask(1)) is None
    assert not store.has(digest)
    with pytest.raises(MissingBlob):
        store.open_blob(digest)
    store.put(ask(1), data, kind="test")
    assert make().get(ask(1)) == data
    assert verify(make()).is_whole


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_put_mends_what_nobody_has_read(make: MakeStore, damage: Callable[[Path], object]) -> None:
    store = make()
    path = store.files.find(store.put_blob(NOISE, kind="test"))
    assert path is not None
    damage(path)
    assert make().blob(make().put_blob(NOISE, kind="test")) == NOISE


ROW_DAMAGES = {
    "a flipped bit": "UPDATE blobs SET data = CAST(substr(data, 1, 9) || X'99' || substr(data, 11) AS BLOB)",
    "cut short": "UPDATE blobs SET data = CAST(substr(data, 1, 20) AS BLOB)",
    "a header that asks for 2^60 bytes": "UPDATE blobs SET zst = 1, data = X'28B52FFDE000000000000000100100'",
    "text": "UPDATE blobs SET data = 'text'",
    "not UTF-8": "UPDATE blobs SET data = CAST(X'FF' AS TEXT)",
    "a number": "UPDATE blobs SET data = 5",
    "nothing": "UPDATE blobs SET data = NULL",
    "another answer": "UPDATE blobs SET data = CAST('sound' AS BLOB), zst = 0",
    "a compressed one called plain": "UPDATE blobs SET zst = 0",
    "an odd date": "UPDATE blobs SET used = 'yesterday', data = X'00'",
    "a blob that is gone": "DELETE FROM blobs",
    "an answer that is no digest": "UPDATE memo SET answer = 'text'",
    "an answer that is nothing": "UPDATE memo SET answer = X''",
    "an answer that is half a digest": "UPDATE memo SET answer = CAST(substr(answer, 1, 16) AS BLOB)",
}


@pytest.mark.parametrize("damage", ROW_DAMAGES.values(), ids=ROW_DAMAGES)
def test_a_damaged_row_is_a_miss_and_mended_by_the_next_put(
    make: MakeStore, folder: Path, warnings: list[str], damage: str
) -> None:
    make().put_many([(ask(1), SMALL), (ask(2), LARGE)], kind="test")
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database, database:
        database.execute(damage)
    store = make()
    assert store.get(ask(1)) is None
    assert (store.hits, store.misses) == (0, 1)
    assert not any("cannot be read" in warning for warning in warnings)
    store.put(ask(1), SMALL, kind="test")
    assert make().get(ask(1)) == SMALL


@pytest.mark.parametrize("data", [SMALL, NOISE], ids=["in the database", "in a file"])
def test_what_another_process_has_mended_is_not_forgotten(
    make: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """Both find the damage, the other computes and puts, and only then do we forget."""
    make().put(ask(1), data, kind="test")
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database, database:
        database.execute("UPDATE blobs SET data = X'00' WHERE data IS NOT NULL")
    for _, path in make().files.walk():
        path.unlink()
    store = make()
    forget = store._finding.forget

    def forget_late(find: str, digests: list[str]) -> None:
        make().put(ask(1), data, kind="test")
        forget(find, digests)

    monkeypatch.setattr(store._finding, "forget", forget_late)
    assert store.get(ask(1)) is None
    assert make().get(ask(1)) == data


def test_a_file_that_another_process_has_mended_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"damaged")
    seen = path.stat()
    (tmp_path / "new").write_bytes(b"mended")
    (tmp_path / "new").rename(path)
    discard_damaged(path, seen)
    assert path.read_bytes() == b"mended"


def test_a_damaged_plain_file_does_not_hide_a_compressed_one(make: MakeStore) -> None:
    path = make().files.find(make().put_blob(LARGE, kind="test", compress=False))
    assert path is not None and path.suffix == ""
    flip_bit(path, 7)
    assert make().blob(make().put_blob(LARGE, kind="test", compress=True)) == LARGE


def test_damage_is_counted_and_told_once(make: MakeStore, folder: Path, warnings: list[str]) -> None:
    make().put_many([(ask(number), answer(number)) for number in range(1, 6)], kind="test")
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database, database:
        database.execute("UPDATE blobs SET data = X'00'")
    store = make()
    assert store.get_many(map(ask, range(1, 6))) == {}
    assert store.damaged == 5
    assert len(warnings) == 1 and "nx-cache verify" in warnings[0]


def test_mending_forgets_what_cannot_be_used_and_lists_what_can(make: MakeStore, folder: Path) -> None:
    store = make()
    for number in range(10, 15):
        store.put(ask(number), answer(number) + NOISE, kind="test")
    store.put(ask(1), SMALL, kind="test")
    paths = [path for _, path in store.files.walk()]
    flip_bit(paths[0], 50)
    paths[1].unlink()
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database, database:
        database.execute("DELETE FROM blobs WHERE digest = ?", (bytes.fromhex(paths[2].name[:64]),))
    found = verify(make())
    assert (len(found.damaged), len(found.missing), len(found.unlisted), found.dangling) == (1, 1, 1, 0)
    assert not found.is_whole and paths[0].exists()
    verify(make(), mend=True)
    after = verify(make())
    assert after.is_whole and not after.unlisted
    assert (after.blobs, after.answers) == (4, 4)
    assert len(make().get_many(map(ask, [1, *range(10, 15)]))) == 4


def test_flipped_bits_in_the_database_never_give_a_wrong_answer(tmp_path: Path) -> None:
    """Whatever bit goes: an answer is right or missing, nothing is raised, and mending makes all whole."""
    original = tmp_path / "original"
    with Store(original) as store:
        store.put_many(((ask(number), b"%d " % number * 40) for number in range(300)), kind="test")
    database = (original / "index.sqlite").read_bytes()
    places = random.Random(2)
    lost = 0
    for trial in range(10):
        folder = tmp_path / str(trial)
        folder.mkdir()
        damaged = bytearray(database)
        for _ in range(3):
            damaged[places.randrange(len(damaged))] ^= 1 << places.randrange(8)
        (folder / "index.sqlite").write_bytes(damaged)
        with Store(folder, warn=lambda _: None) as store:
            for number, found in ((n, store.get(ask(n))) for n in range(300)):
                assert found in (None, b"%d " % number * 40)
            lost += store.misses
        with Store(folder, warn=lambda _: None) as store:
            verify(store, mend=True)
        with Store(folder, warn=lambda _: None) as store:
            assert verify(store).is_whole
            store.put_many(((ask(number), b"%d " % number * 40) for number in range(300)), kind="test")
            assert len(store.get_many(map(ask, range(300)))) == 300
    assert 0 < lost < 10 * 300 / 4


def test_a_database_with_a_broken_page_keeps_its_other_answers(
    make: MakeStore, folder: Path, warnings: list[str]
) -> None:
    with make() as store:
        store.put_many(((ask(number), b"%d " % number + NOISE[:500]) for number in range(300)), kind="test")
    index = folder / "index.sqlite"
    page = index.read_bytes().index(b"150 " + NOISE[:500]) // 4096
    with index.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xee" * 4096)
    with make() as store:
        found = store.get_many(map(ask, range(300)))
        assert ask(150) not in found and len(found) > 280
        again = (ask(150), b"150 " + NOISE[:500])  # belongs on the broken page
        store.put_many([again, *((ask(number), b"%d" % number) for number in range(300, 305))], kind="test")
        assert len(store.get_many(map(ask, range(300, 305)))) == 5
        assert store.unsaved == 1
    assert len(warnings) == 2 and all("nx-cache verify --mend" in warning for warning in warnings)
    assert verify(make()).database != "ok"
    verify(make(), mend=True)
    after = verify(make())
    assert after.is_whole and 280 < after.answers < 305
    assert (folder / "index.sqlite.damaged-1").exists()


def test_no_database_is_replaced_while_another_process_has_it_open(make: MakeStore, folder: Path) -> None:
    with make() as store:
        store.put_many(((ask(number), os.urandom(500)) for number in range(1000)), kind="test")
    with (folder / "index.sqlite").open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xee" * 4096)
    other = start(
        "store = Store(folder); store.get(ask(1)); print('open', flush=True); sys.stdin.read()", folder
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match="other commands are using the store"):
            verify(make(), mend=True)
    finally:
        other.kill()
        other.communicate()
    verify(make(), mend=True)
    assert verify(make()).is_whole


def test_what_is_no_database_is_moved_aside(make: MakeStore, folder: Path, warnings: list[str]) -> None:
    folder.mkdir()
    (folder / "index.sqlite").write_bytes(b"this is not a database" * 1000)
    store = make()
    store.put(ask(1), SMALL, kind="test")
    assert make().get(ask(1)) == SMALL
    assert (folder / "index.sqlite.damaged-1").read_bytes().startswith(b"this is not a database")
    assert len(warnings) == 1 and "moved aside" in warnings[0]


def test_a_database_that_was_just_begun_is_no_damage(
    make: MakeStore, folder: Path, warnings: list[str]
) -> None:
    """The process that was making it was killed before it had committed its tables."""
    folder.mkdir()
    (folder / "index.sqlite").touch()
    make().put(ask(1), SMALL, kind="test")
    assert make().get(ask(1)) == SMALL
    assert warnings == [] and not list(folder.glob("*.damaged-*"))


def test_a_database_that_another_process_has_just_replaced_is_kept(
    make: MakeStore, folder: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """We saw it damaged, and before we had the lock the other had put a good one in its place."""
    make().put(ask(1), SMALL, kind="test")
    connect = Database._connect

    def connect_late(database: Database) -> None:
        monkeypatch.setattr(Database, "_connect", connect)

    monkeypatch.setattr(Database, "_connect", connect_late)
    assert make().get(ask(1)) == SMALL
    assert warnings == [] and not list(folder.glob("*.damaged-*"))


def test_blobs_outlive_the_database(make: MakeStore, folder: Path) -> None:
    """A recording that a stream names is found by its digest alone."""
    with make() as store:
        digest = store.put_blob(NOISE, kind="recording")
    (folder / "index.sqlite").write_bytes(b"this is not a database" * 1000)
    store = make()
    assert store.has(digest) and store.blob(digest) == NOISE
    verify(store, mend=True)
    assert verify(make()).blobs == 1


def test_a_database_of_a_newer_version_is_left_alone(
    make: MakeStore, folder: Path, warnings: list[str]
) -> None:
    with make() as store:
        store.put(ask(1), SMALL, kind="test")
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")
    before = (folder / "index.sqlite").read_bytes()
    store = make()
    assert store.get(ask(1)) is None
    store.put(ask(2), SMALL, kind="test")
    assert len(warnings) == 1 and "newer nxtools" in warnings[0]
    with pytest.raises(StoreError, match="newer nxtools"):
        store.put_blob(NOISE, kind="test", required=True)
    store.close()
    assert (folder / "index.sqlite").read_bytes() == before


# Crowds


def test_many_processes_put_at_once_into_a_new_store(folder: Path, make: MakeStore) -> None:
    """They race to make the database, put answers of their own and the same blobs, and read each other's."""
    script = """
store = Store(folder)
me = int(sys.argv[2])
for number in range(100 * me, 100 * me + 50):
    store.put(ask(number), answer(number), kind="test")
    store.put_blob(answer(number % 100) * 100, kind="recording")
    assert store.get(ask(number)) == answer(number)
store.put_many([(ask(n), answer(n)) for n in range(100 * me + 50, 100 * me + 100)], kind="test")
assert store.unsaved == store.damaged == 0
"""
    processes = [start(script, folder, me) for me in range(6)]
    for process in processes:
        assert process.communicate(timeout=120)[1] == ""
        assert process.returncode == 0
    store = make()
    assert store.get_many(map(ask, range(600))) == {ask(n): answer(n) for n in range(600)}
    assert verify(store).is_whole


def test_many_processes_find_a_broken_database_at_once(folder: Path, make: MakeStore) -> None:
    """One moves it aside; the others use the new one, and no answer goes into a file that was moved."""
    folder.mkdir()
    (folder / "index.sqlite").write_bytes(b"this is not a database" * 1000)
    script = """
store = Store(folder)
store.put(ask(int(sys.argv[2])), b"answer", kind="test")
assert not store.unsaved
"""
    processes = [start(script, folder, me) for me in range(6)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert len(make().get_many(map(ask, range(6)))) == 6
    assert len(list(folder.glob("*.damaged-*"))) == 1


def test_a_process_that_holds_the_lock_costs_answers_but_not_the_run(
    make: MakeStore, folder: Path, warnings: list[str]
) -> None:
    make().put(ask(1), SMALL, kind="test")
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store = make(patience=0.1)
        began = time.monotonic()
        for number in range(2, 30):
            store.put(ask(number), SMALL, kind="test")
        assert time.monotonic() - began < 5  # one wait, not one for each
        assert store.get(ask(1)) == SMALL
        assert store.unsaved == 28
        with pytest.raises(StoreError):
            store.put_blob(SMALL, kind="test", required=True)
    assert len(warnings) == 1 and "locked" in warnings[0]


def test_writing_is_tried_again_after_a_while(
    make: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nxtools.store.session._PAUSE_SECONDS", 0.2)
    store = make(patience=0.05)
    store.put(ask(1), SMALL, kind="test")
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.put(ask(2), SMALL, kind="test")
    store.put(ask(3), SMALL, kind="test")
    time.sleep(0.3)
    store.put(ask(4), SMALL, kind="test")
    assert set(make().get_many(map(ask, range(5)))) == {ask(1), ask(4)}


# Disks

# A namespace of our own: what is mounted there is gone with the last process in it, and needs no privileges.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]


def can_mount() -> bool:
    try:
        mount = [*NAMESPACE, "mount -t tmpfs none /tmp"]
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mount = pytest.mark.skipif(not can_mount(), reason="this system lets us mount nothing")

FILL = """
store = Store(folder)
digests = [store.put_blob(os.urandom(200_000), kind="test") for _ in range(20)]
kept = [digest for digest in digests if store.has(digest)]
for number in range(1, 3000):
    store.put(ask(number), os.urandom(1000), kind="test")
found = len(store.get_many(map(ask, range(1, 3000))))
try:
    store.put_blob(os.urandom(2_000_000), kind="test", required=True)
    outcome = "kept"
except StoreFull as error:
    outcome = "full"
print(len(kept), found, store.unsaved, outcome)
assert all(len(store.blob(digest)) == 200_000 for digest in kept)
assert not list((store.path / "tmp").iterdir())
"""


def check_filled(out: str, err: str) -> None:
    """What was there when the disk was full is there, the rest was counted, one line was said."""
    kept, found, unsaved, outcome = out.split()
    assert 0 < int(kept) < 20
    assert int(unsaved) == 20 - int(kept) + 2999 - int(found) + 1
    assert outcome == "full"
    assert err.count("\n") == 1 and "cannot be written" in err


@needs_mount
def test_a_full_disk_ends_no_run(folder: Path) -> None:
    folder.mkdir()
    mount = f'mount -t tmpfs -o size=2m none "{folder}"; exec "$0" "$@"'
    check_filled(*run("import os" + FILL, folder, before=[*NAMESPACE, mount]))


def test_a_limit_on_the_size_of_files_ends_no_run(folder: Path) -> None:
    limit = """
import os, resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
store = Store(folder)
for number in range(1, 1000):
    store.put(ask(number), os.urandom(1000), kind="test")
found = store.get_many(map(ask, range(1, 1000)))
assert 20 < len(found) < 999 and store.unsaved == 999 - len(found)
try:
    store.put_blob(os.urandom(2_000_000), kind="test", required=True)
except StoreFull:
    print("refused")
"""
    out, err = run(limit, folder)
    assert out == "refused\n"
    assert err.count("\n") == 1 and "cannot be written" in err
    with Store(folder) as store:
        assert verify(store).is_whole


@needs_mount
@pytest.mark.parametrize("filled", [True, False], ids=["with answers", "empty"])
def test_a_read_only_store_is_read(folder: Path, make: MakeStore, filled: bool) -> None:
    folder.mkdir()
    if filled:
        with make() as store:
            store.put_many([(ask(1), SMALL), (ask(2), LARGE)], kind="test")
            digest = store.put_blob(NOISE, kind="recording")
    script = """
store = Store(folder)
found = store.get_many([ask(1), ask(2), ask(3)])
print(len(found), store.hits, sep="\\n")
if len(sys.argv) > 2: print(len(store.blob(sys.argv[2])))
for number in range(3, 9): store.put(ask(number), b"answer", kind="test")
try:
    store.put_blob(b"x" * 10, kind="recording", required=True)
except StoreError as error:
    print(store.unsaved)
"""
    mount = f'mount --bind "{folder}" "{folder}"; mount -o remount,ro,bind "{folder}"; exec "$0" "$@"'
    out, err = run(script, folder, *([digest] if filled else []), before=[*NAMESPACE, mount])
    assert out.split() == (["2", "2", "100000", "7"] if filled else ["0", "0", "7"])
    assert err.count("\n") == 1 and str(folder) in err


def test_a_folder_that_cannot_be_made_ends_no_run(tmp_path: Path, warnings: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "store", warn=warnings.append)
    assert store.get(ask(1)) is None
    store.put(ask(1), SMALL, kind="test")
    assert not store.has("0" * 64)
    assert len(warnings) == 1 and "going on without the store" in warnings[0]
    with pytest.raises(StoreError):
        store.put_blob(SMALL, kind="test", required=True)
