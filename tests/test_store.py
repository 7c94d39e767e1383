"""The store when nothing goes wrong: questions, answers, blobs, modes, upkeep."""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nxtools.commands.cache import main as nx_cache_command
from nxtools.errors import InputError
from nxtools.store import MissingBlob, Store, default_path, file_digest, question_digest, rows, upkeep
from nxtools.store.upkeep import clear, collect, sizes, verify

Warnings = list[str]
MakeStore = Callable[..., Store]

SMALL = b"the answer" * 50
LARGE = bytes(range(256)) * 400  # 100 kB: a file
NOISE = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()  # does not compress


@pytest.fixture
def warnings() -> Warnings:
    return []


@pytest.fixture
def make(tmp_path: Path, warnings: Warnings) -> MakeStore:
    """Makes stores over one folder, as the commands of a pipe do."""

    def make(**options: Any) -> Store:
        return Store(tmp_path / "store", warn=warnings.append, **options)

    return make


def ask(number: int) -> str:
    return question_digest("test", 1, {"number": number})


# Questions

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))  # lone surrogates too
    | st.binary()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def canonical(value: Any) -> Any:
    """What the question means, as a value that Python compares: an independent statement of the rules."""
    match value:
        case bool() | bytes() | str() | None:
            return (type(value).__name__, value)
        case int() | float():
            return ("number", int(value) if float_is_whole(value) else value)
        case list():
            return ("list", tuple(canonical(item) for item in value))
        case dict():
            return ("dict", frozenset((key, canonical(item)) for key, item in value.items()))
    raise AssertionError(value)


def float_is_whole(value: float) -> bool:
    return isinstance(value, int) or value.is_integer()


@given(VALUES, VALUES)
def test_questions_are_equal_exactly_when_they_mean_the_same(one: Any, other: Any) -> None:
    same = question_digest("op", 1, {"x": one}) == question_digest("op", 1, {"x": other})
    assert same == (canonical(one) == canonical(other))


@given(st.dictionaries(st.text(), SCALARS, max_size=5))
def test_the_order_of_fields_does_not_matter(fields: dict[str, Any]) -> None:
    backwards = dict(reversed(fields.items()))
    assert question_digest("op", 1, fields) == question_digest("op", 1, backwards)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8")),
        st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6, width=32) | st.booleans() | st.none(),
        max_size=5,
    )
)
def test_a_stream_through_jq_asks_the_same(fields: dict[str, Any]) -> None:
    """jq writes whole numbers without a point."""
    through_jq = json.loads(
        json.dumps({k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in fields.items()})
    )
    assert question_digest("op", 1, through_jq) == question_digest("op", 1, fields)


NEARLY_EQUAL: list[tuple[Any, Any]] = [
    (["ab"], ["a", "b"]),
    (["a", "b"], ["a", ["b"]]),
    ("ab", b"ab"),
    ("1", 1),
    (True, 1),
    (None, ""),
    (None, "null"),
    ([], {}),
    ([[]], []),
    ({"a": None}, {}),
    ({"a": {"b": 1}}, {"a": {}, "b": 1}),
    (0.1, 0.2),
    (math.inf, -math.inf),
    (2**64, 2**64 + 1),
    ("e\u0301", "\u00e9"),
    (np.arange(4), np.arange(4).reshape(2, 2)),
    (np.arange(4), np.arange(4.0)),
    (np.arange(3), [0, 1, 2]),
    (np.zeros((0, 64)), np.zeros((64, 0))),
    (np.array([True, False]), np.array([1, 0])),
]


@pytest.mark.parametrize(("one", "other"), NEARLY_EQUAL)
def test_what_looks_alike_is_told_apart(one: Any, other: Any) -> None:
    assert question_digest("op", 1, {"x": one}) != question_digest("op", 1, {"x": other})


def test_operation_and_version_are_part_of_the_question() -> None:
    digests = {
        question_digest(*q) for q in [("op", 1, {}), ("op", 2, {}), ("op1", 1, {}), ("o", 1, {"p": 1})]
    }
    assert len(digests) == 4


SAME_ARRAYS: list[tuple[Any, Any]] = [
    (np.arange(5, dtype=np.int64), np.arange(5, dtype=np.int32)),
    (np.arange(5, dtype=np.uint8), np.arange(5, dtype=">i4")),
    (np.array([0.1, 2.5]), np.array([0.1, 2.5], np.float32)),
    (np.array([0.5, 2.5], np.float16), np.array([0.5, 2.5])),
    (np.array([0.0, -0.0]), np.array([0.0, 0.0])),
    (np.array([np.nan]), -np.array([np.nan])),
    (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.copy()),
    (np.int64(3), 3),
    (np.float32(0.5), 0.5),
    (np.bool_(True), True),
    (np.array(7), 7),
    ((1, 2), [1, 2]),
    (bytearray(b"ab"), b"ab"),
]


@pytest.mark.parametrize(("one", "other"), SAME_ARRAYS)
def test_widths_layouts_and_containers_do_not_matter(one: Any, other: Any) -> None:
    assert question_digest("op", 1, {"x": one}) == question_digest("op", 1, {"x": other})


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_activations_survive_being_printed_short(values: list[float]) -> None:
    """A record holds the shortest digits of an f32; read back as doubles they are the same question."""
    recorded = np.array(values, np.float32)
    read_back = np.array([float(str(value)) for value in recorded])
    assert question_digest("op", 1, {"x": recorded}) == question_digest("op", 1, {"x": read_back})


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({1, 2}, TypeError),
        ({1: 2}, TypeError),
        (object(), TypeError),
        (1j, TypeError),
        (np.array(["a"]), TypeError),
        (np.array([2**31]), ValueError),
        (np.array([1e39]), ValueError),
    ],
)
def test_what_has_no_canonical_form_is_refused_by_name(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"fields\.prompt\.parts\[1\]"):
        question_digest("op", 1, {"prompt": {"parts": [0, value]}})


def test_a_question_keeps_its_digest() -> None:
    """Changing the encoding would lose every stored answer: it must be meant."""
    fields = {
        "a": [1, 2.5, None, True, "é"],
        "b": {"c": b"x"},
        "ids": np.arange(3),
        "values": np.ones(2, np.float32),
    }
    expected = "91892f1cf16f86f8d88c2b780eb0568ef8c84fe1fd25d12eabf292878a4e9d85"
    assert question_digest("simulate", 3, fields) == expected


# Answers


def test_an_answer_is_found_again_by_another_process(make: MakeStore) -> None:
    first, second = make(), make()
    assert first.get(ask(1)) is None
    first.put(ask(1), SMALL, kind="score")
    assert second.get(ask(1)) == SMALL
    assert (first.hits, first.misses, first.writes) == (0, 1, 1)
    assert (second.hits, second.misses, second.writes) == (1, 0, 0)


@settings(deadline=None, max_examples=12)  # every example waits for the disk
@given(st.lists(st.binary(max_size=200), max_size=8), st.sampled_from([0, 33_000, 70_000]))
def test_any_bytes_come_back(answers: list[bytes], padding: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        questions = [ask(number) for number in range(len(answers))]
        padded = [answer + b"\0" * padding for answer in answers]
        store.put_many(zip(questions, padded, strict=True), kind="test")
        assert store.get_many([*questions, ask(-1)]) == dict(zip(questions, padded, strict=True))


def test_a_later_answer_replaces_an_earlier_one(make: MakeStore) -> None:
    store = make()
    for answer in (SMALL, LARGE, b""):
        store.put(ask(1), answer, kind="test")
        assert store.get(ask(1)) == answer


def test_many_answers_take_few_transactions(make: MakeStore) -> None:
    """A commit waits for the disk; a batch of 2,500 answers may wait three times."""
    store = make()
    commits = count_commits(store)
    store.put_many(((ask(number), b"%d" % number) for number in range(2500)), kind="test")
    assert len(commits) == 3
    assert len(store.get_many(ask(number) for number in range(2500))) == 2500


def count_commits(store: Store) -> list[str]:
    database = store.session.database()
    assert database is not None
    commits: list[str] = []
    database.connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    return commits


def test_equal_answers_share_a_blob(make: MakeStore) -> None:
    store = make()
    store.put_many([(ask(number), SMALL) for number in range(10)], kind="test")
    assert sizes(store)["test"].blobs == 1


def test_threads_share_a_store(make: MakeStore) -> None:
    store = make()

    def work(thread: int) -> None:
        for number in range(thread * 20, thread * 20 + 20):
            store.put(ask(number), b"%d" % number * 50, kind="test")
            assert store.get(ask(number)) == b"%d" % number * 50

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.hits == store.writes == 80


def test_a_fork_may_use_the_store_of_its_parent(make: MakeStore) -> None:
    """The child writes on after the parent has closed and removed the log of a shared connection."""
    store = make()
    store.put(ask(0), b"parent", kind="test")
    closed_read, closed_write = os.pipe()
    child = os.fork()
    if child == 0:
        store.put(ask(1), b"child", kind="test")
        os.read(closed_read, 1)
        store.put(ask(2), b"child again", kind="test")
        os._exit(0 if store.get(ask(0)) == b"parent" else 1)
    store.put(ask(3), b"parent again", kind="test")
    store.close()
    os.write(closed_write, b".")
    assert os.waitpid(child, 0)[1] == 0
    found = make().get_many(ask(number) for number in range(4))
    assert set(found.values()) == {b"parent", b"child", b"child again", b"parent again"}


# Blobs


@pytest.mark.parametrize(
    "data", [b"", b"x", SMALL, LARGE, NOISE], ids=["empty", "tiny", "small", "large", "noise"]
)
@pytest.mark.parametrize("compress", [True, False])
def test_a_blob_comes_back(make: MakeStore, data: bytes, compress: bool) -> None:
    store = make()
    digest = store.put_blob(data, kind="recording", compress=compress)
    assert store.has(digest)
    assert store.blob(digest) == data
    assert bytes(make().open_blob(digest)) == data


def test_an_array_is_a_blob_and_can_be_mapped(make: MakeStore) -> None:
    activations = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float16)  # 64 kB
    store = make()
    digest = store.put_blob(activations, kind="recording", compress=False)
    again = np.frombuffer(store.open_blob(digest), np.float16).reshape(500, 64)
    assert np.array_equal(again, activations)
    assert not again.flags.writeable and not again.flags.owndata


def test_compression_is_used_where_it_pays(make: MakeStore) -> None:
    store = make()
    paths = {
        name: store.files.find(store.put_blob(data, kind="test"))
        for name, data in [("a", LARGE), ("b", NOISE)]
    }
    assert (
        paths["a"] is not None and paths["a"].suffix == ".zst" and paths["a"].stat().st_size < len(LARGE) / 10
    )
    assert paths["b"] is not None and paths["b"].suffix == "" and paths["b"].stat().st_size == len(NOISE)


def test_a_blob_that_is_there_is_not_written_again(make: MakeStore) -> None:
    store = make()
    digest = store.put_blob(NOISE, kind="test")
    path = store.files.find(digest)
    assert path is not None
    before = path.stat().st_ino
    assert make().put_blob(NOISE, kind="test") == digest
    assert path.stat().st_ino == before


def test_a_missing_blob_is_an_input_error(make: MakeStore) -> None:
    with pytest.raises(MissingBlob, match="is not in the store"):
        make().open_blob("0" * 64)
    assert not make().has("0" * 64)


@pytest.mark.parametrize("digest", ["", "abc", "../" * 20 + "abcd", "A" * 64, "sha256:" + "0" * 57])
def test_only_a_digest_names_a_blob(make: MakeStore, digest: str) -> None:
    with pytest.raises(InputError, match="is not a digest"):
        make().open_blob(digest)


# Modes


def test_refresh_finds_only_what_it_has_put_itself(make: MakeStore) -> None:
    make().put_many([(ask(1), b"old"), (ask(2), b"old")], kind="test")
    blob = make().put_blob(LARGE, kind="recording")
    store = make(mode="refresh")
    assert store.get(ask(1)) is None
    store.put(ask(1), b"new", kind="test")
    assert store.get_many([ask(1), ask(2)]) == {ask(1): b"new"}
    assert make().get_many([ask(1), ask(2)]) == {ask(1): b"new", ask(2): b"old"}
    assert store.blob(blob) == LARGE  # what a recording names is input, not an answer


def test_offline_finds_and_keeps(make: MakeStore) -> None:
    store = make(mode="offline")
    assert store.get(ask(1)) is None
    store.put(ask(1), SMALL, kind="test")
    assert store.get(ask(1)) == SMALL


def test_without_a_store_nothing_is_left_behind(make: MakeStore, tmp_path: Path) -> None:
    make().put(ask(1), SMALL, kind="test")
    blob = make().put_blob(LARGE, kind="recording")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    store = make(mode="none")
    assert store.get(ask(1)) is None
    assert not store.has(blob)
    store.put(ask(1), SMALL, kind="test")
    store.remember("name", "value")
    assert store.get(ask(1)) is None and store.recall("name") is None
    own = [store.put_blob(data, kind="recording", compress=False, required=True) for data in (SMALL, NOISE)]
    assert [store.blob(digest) for digest in own] == [SMALL, NOISE]
    assert store.free_bytes() > 0
    private = store.path
    assert private.is_dir() and private.stat().st_mode & 0o077 == 0
    store.close()
    assert not private.exists()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_unused_store_touches_nothing(tmp_path: Path) -> None:
    Store(tmp_path / "store").close()
    Store(mode="none").close()
    assert list(tmp_path.iterdir()) == []


def test_the_place_of_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NXTOOLS_CACHE", str(tmp_path / "named"))
    assert default_path() == Store().path == tmp_path / "named"
    assert Store(tmp_path / "asked").path == tmp_path / "asked"
    monkeypatch.setenv("NXTOOLS_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_path() == tmp_path / "xdg" / "nxtools"


# What is remembered


def test_a_file_is_hashed_once(make: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(NOISE)
    monkeypatch.setattr("nxtools.store.identity._SETTLED_SECONDS", -1.0)
    store = make()
    digest = file_digest(weights, store)
    assert digest == store.put_blob(NOISE, kind="test")
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)  # not called again
        assert file_digest(weights, make()) == digest
    weights.write_bytes(NOISE[::-1])
    assert file_digest(weights, make()) != digest


def test_a_file_that_was_just_written_is_not_trusted_to_stay(
    make: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes within one tick of the file system's clock look the same, so its digest is not kept."""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    file_digest(weights, make())
    with pytest.raises(TypeError), monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)  # called again
        file_digest(weights, make())


# Upkeep


class Clock:
    """Days that pass when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.days = 20_000.0
        for module in (rows, upkeep):
            monkeypatch.setattr(module, "now", lambda: int(self.days * 86_400_000))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_sizes_by_kind(make: MakeStore) -> None:
    store = make()
    assert sizes(store) == {}
    store.put(ask(1), SMALL, kind="score")
    store.put_blob(NOISE, kind="recording")
    found = sizes(store)
    assert {kind: (size.blobs, size.bytes) for kind, size in found.items()} == {
        "recording": (1, len(NOISE)),
        "score": (1, len(SMALL)),
    }
    assert found["recording"].stored == len(NOISE) and found["score"].stored < len(SMALL)


def test_a_whole_store_verifies(make: MakeStore) -> None:
    store = make()
    store.put_many([(ask(1), SMALL), (ask(2), LARGE)], kind="test")
    store.put_blob(NOISE, kind="recording")
    found = verify(store)
    assert found.is_whole
    assert (found.blobs, found.answers, found.bytes) == (3, 2, len(SMALL) + len(LARGE) + len(NOISE))


def test_what_was_not_used_for_long_goes(make: MakeStore, clock: Clock) -> None:
    store = make()
    store.put_many([(ask(1), b"unused"), (ask(2), b"used"), (ask(3), LARGE)], kind="test")
    recording = store.put_blob(NOISE, kind="recording")
    clock.days += 20
    assert store.get(ask(2)) and store.has(recording)
    store.close()
    clock.days += 20
    assert collect(store, older_than=30, dry_run=True).blobs == 2
    assert store.get(ask(1)) == b"unused"  # and now it is used
    store.close()
    assert collect(store, older_than=30).kinds == {"test": 1}
    assert set(store.get_many(map(ask, [1, 2, 3]))) == {ask(1), ask(2)}
    assert store.blob(recording) == NOISE
    assert verify(store).is_whole


def test_reading_notes_use_once_a_day(make: MakeStore, clock: Clock) -> None:
    store = make()
    digest = store.put_blob(NOISE, kind="test")
    commits = count_commits(store)
    for _ in range(5):
        clock.days += 0.1
        store.open_blob(digest)
    assert commits == []
    clock.days += 1.5
    for _ in range(5):
        clock.days += 0.1
        store.open_blob(digest)
    assert len(commits) == 1


def test_the_longest_unused_go_until_the_rest_fits(make: MakeStore, clock: Clock) -> None:
    store = make()
    for number in range(5):
        clock.days += 1
        store.put(ask(number), NOISE[number:], kind="test")
    assert collect(store, max_bytes=2 * len(NOISE)).blobs == 3
    assert set(store.get_many(map(ask, range(5)))) == {ask(3), ask(4)}
    assert collect(store, max_bytes=2 * len(NOISE)).blobs == 0


def test_only_the_kinds_that_were_named_go(make: MakeStore) -> None:
    store = make()
    store.put(ask(1), SMALL, kind="score")
    recording = store.put_blob(NOISE, kind="recording")
    assert collect(store, older_than=0, kinds=["recording"]).kinds == {"recording": 1}
    assert store.get(ask(1)) == SMALL
    assert not store.has(recording)


def test_a_blob_that_is_put_during_collection_stays(make: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process answers with the very bytes that are about to go."""
    from nxtools.store import upkeep

    make().put_many([(ask(1), SMALL), (ask(2), LARGE)], kind="test")
    questions = upkeep._questions

    def put_meanwhile(*arguments: Any) -> dict[bytes, list[bytes]]:
        found = questions(*arguments)
        make().put_many([(ask(3), SMALL), (ask(4), LARGE)], kind="test")
        return found

    monkeypatch.setattr(upkeep, "_questions", put_meanwhile)
    store = make()
    assert collect(store, older_than=0).blobs == 0
    assert store.get_many(map(ask, [3, 4])) == {ask(3): SMALL, ask(4): LARGE}


def test_a_file_that_is_put_again_after_its_row_went_stays(
    make: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nxtools.store import upkeep

    digest = make().put_blob(NOISE, kind="test")
    remove = upkeep._remove_unlisted

    def put_before(store: Store, digests: list[bytes]) -> None:
        make().put_blob(NOISE, kind="test")
        remove(store, digests)

    monkeypatch.setattr(upkeep, "_remove_unlisted", put_before)
    assert collect(make(), older_than=0).blobs == 1
    assert make().blob(digest) == NOISE


def test_a_file_that_is_put_while_it_is_removed_comes_back(
    make: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between writing a file and listing it, collection may take it: the put notices, under the lock."""
    store = make()
    transaction = store.session.transaction

    def transaction_after_collection(work: Callable[[Any], object], *, urgent: bool) -> None:
        monkeypatch.setattr(store.session, "transaction", transaction)
        (path,) = (path for _, path in store.files.walk())
        path.unlink()
        transaction(work)

    monkeypatch.setattr(store.session, "transaction", transaction_after_collection)
    digest = store.put_blob(NOISE, kind="test")
    assert store.blob(digest) == NOISE


def test_collection_shortens_the_database(make: MakeStore) -> None:
    store = make()
    store.put_many(((ask(number), os.urandom(2000)) for number in range(3000)), kind="test")
    store.close()
    before = (store.path / "index.sqlite").stat().st_size
    collect(store, older_than=0)
    store.close()
    assert (store.path / "index.sqlite").stat().st_size < before / 10


def test_clearing_leaves_nothing(make: MakeStore) -> None:
    store = make()
    store.put_many([(ask(1), SMALL), (ask(2), LARGE)], kind="test")
    store.remember("name", "value")
    assert clear(store).blobs == 2
    assert sizes(store) == {} and store.recall("name") is None and list(store.files.walk()) == []


# nx-cache


def nx_cache(*arguments: str) -> tuple[int, str]:
    """Exit status and output."""
    result = CliRunner().invoke(nx_cache_command, list(arguments))
    return result.exit_code, result.output


def test_nx_cache_says_where_the_store_is_and_what_it_holds(make: MakeStore, tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    status, said = nx_cache("--cache", place)
    assert status == 0 and "nothing there yet" in said and not Path(place).exists()
    with make() as store:
        store.put(ask(1), SMALL, kind="score")
        store.put_blob(NOISE, kind="recording")
    status, said = nx_cache("--cache", place)
    assert status == 0 and "recording" in said and "100 kB" in said
    status, said = nx_cache("--cache", place, "--json")
    record = json.loads(said)
    assert record["path"] == place and record["answers"] == 1
    assert record["kinds"]["recording"] == {"blobs": 1, "bytes": len(NOISE), "stored": len(NOISE)}


def test_nx_cache_takes_its_place_from_the_environment(
    make: MakeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NXTOOLS_CACHE", str(tmp_path / "store"))
    assert nx_cache()[1].startswith(str(tmp_path / "store"))


def test_nx_cache_verifies_and_mends(make: MakeStore, tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    with make() as store:
        path = store.files.find(store.put_blob(NOISE, kind="recording"))
    assert nx_cache("--cache", place, "verify")[0] == 0
    assert path is not None
    path.write_bytes(NOISE[:-1])
    status, said = nx_cache("--cache", place, "verify")
    assert status == 1 and "1 blob damaged" in said and "--mend" in said
    assert nx_cache("--cache", place, "verify", "--mend")[0] == 0
    status, said = nx_cache("--cache", place, "verify", "--json")
    assert status == 0 and json.loads(said)["damaged"] == []


def test_nx_cache_collects_what_it_is_told_to(make: MakeStore, tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    with make() as store:
        store.put_blob(NOISE, kind="recording")
        store.put(ask(1), SMALL, kind="score")
    assert nx_cache("--cache", place, "gc")[0] == 2
    assert nx_cache("--cache", place, "gc", "--older-than", "soon")[0] == 2
    assert "0 blobs removed" in nx_cache("--cache", place, "gc", "--older-than", "30d")[1]
    assert "1 blob would go" in nx_cache("--cache", place, "gc", "--max-size", "50k", "--dry-run")[1]
    arguments = ("--cache", place, "gc", "--older-than", "0d", "--kind", "recording", "--json")
    assert json.loads(nx_cache(*arguments)[1]) == {
        "blobs": 1,
        "stored": len(NOISE),
        "kinds": {"recording": 1},
    }
    assert make().get(ask(1)) == SMALL


def test_nx_cache_clears_only_when_it_is_sure(make: MakeStore, tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    make().put(ask(1), SMALL, kind="score")
    assert nx_cache("--cache", place, "clear")[0] == 2  # nobody to ask
    assert make().get(ask(1)) == SMALL
    assert nx_cache("--cache", place, "clear", "--yes")[0] == 0
    assert make().get(ask(1)) is None
