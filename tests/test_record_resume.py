"""nx-record killed, resumed, offline and out of room: what was finished is never computed again."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from conftest import Ran, Run
from tiny_models import build, save, stories

from nxtools.errors import InputError, UsageError
from nxtools.recordings.deal import Counts
from nxtools.recordings.run import Run as Merge
from nxtools.recordings.table import Table
from nxtools.records import SETS
from nxtools.store import Store
from nxtools.stream import dump
from nxtools.subject.excerpts import Cut
from nxtools.subject.identity import resolve
from nxtools.subject.planning import Planned, Texts, plan_recording
from nxtools.subject.recording import Job, Made, NoRoom
from nxtools.subject.text import Passage
from nxtools.subject.wanted import Model, Want

Record = dict[str, Any]

torch.set_num_threads(1)  # tiny products are slower with two

SETTINGS = "--context 16 --excerpt 16 --pool 20,10,10 --document-tokens 100 --batch 4"
CUT = Cut(context=16, excerpt=16, pool=(20, 10, 10), document_tokens=100)
PIPE_BYTES = 1 << 16


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(build("llama"), tmp_path_factory.mktemp("subjects") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stories(tmp_path_factory.mktemp("texts"), 30)


@pytest.fixture
def command(subject: Path, text: Path) -> str:
    return f"nx-record --subject {subject} {SETTINGS} {text}"


class Loads:
    """Counts how often the subject is loaded."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def load(self) -> Any:
        self.count += 1
        return self._model.load()


@pytest.fixture
def model(subject: Path) -> Loads:
    return loads(subject)


def loads(subject: Path, dtype: str = "float32") -> Loads:
    return Loads(Model(resolve(str(subject)), dtype, "cpu", None, False, False))


@pytest.fixture
def store(environment: dict[str, str]) -> Store:
    """The one that commands find."""
    return Store(environment["NXTOOLS_CACHE"])


def planned(store: Store, subject: Path, text: Path) -> Planned:
    return plan_recording(store, store, resolve(str(subject)), Texts([str(text)]), CUT, "auto")


def job_of(store: Store, model: Loads, plan: Planned, **want: Any) -> Job:
    return Job(store, store, model, plan, Want(**{"batch": 4, **want}))  # type: ignore[arg-type]


def lines_of(job: Job, command: str = "nx-record …") -> tuple[list[Record], Made]:
    made = Made()
    return list(job.lines(command=command, made=made, progress=lambda excerpts: None)), made


def units_of(store: Store, lines: list[Record]) -> list[Record]:
    wanted = dict.fromkeys(SETS, Counts(top=5, spread=5, random=5))
    merge = Merge(lines, store.open_blob, lambda data: store.put_blob(data, kind="pool"))
    return [orjson.loads(line) for line in merge.units(wanted, paper=False)]


def read(data: bytes) -> list[Record]:
    return [orjson.loads(line) for line in data.splitlines()]


def counts(done: Ran) -> tuple[int, int, int]:
    """Layers of shards that were recorded, passes, layers of shards from the store."""
    said = done.stderr.decode()
    found = re.search(r"(\d+) layers of shards recorded in (\d+) passes, (\d+) taken from the store", said)
    assert found, said
    return int(found[1]), int(found[2]), int(found[3])


# Killed


def test_killed_and_run_again_it_goes_on_and_ends_with_the_same_bytes(
    run: Run,
    environment: dict[str, str],
    tmp_path: Path,
    model: Loads,
    subject: Path,
    text: Path,
    command: str,
) -> None:
    command += " --shard 4"
    elsewhere = Store(tmp_path / "elsewhere")
    job = job_of(elsewhere, model, planned(elsewhere, subject, text), shard=4)
    lines, _ = lines_of(job, command)
    undisturbed = b"".join(map(dump, lines))
    # Lines that nobody reads fill the pipe: the process cannot be through before it is killed.
    assert len(undisturbed) > 1.2 * PIPE_BYTES

    cut = subprocess.Popen(
        command.split(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert cut.stdout is not None
    seen = [cut.stdout.readline() for _ in range(4)]  # a shard of three layers, and one more
    os.kill(cut.pid, signal.SIGKILL)
    cut.communicate()

    resumed = run(command)
    recorded, passes, stored = counts(resumed)
    assert resumed.returncode == 0
    assert recorded + stored == len(lines)
    assert len(seen) <= stored < len(lines)
    assert passes == -(-recorded // 3)
    assert resumed.stdout == undisturbed
    assert undisturbed.startswith(b"".join(seen))

    again = run(command)
    assert counts(again) == (0, 0, len(lines)) and again.stdout == undisturbed
    units = run("nx-top --evidence top=5,spread=5,random=5", stdin=again.stdout)
    assert units.returncode == 0 and len(units.stdout.splitlines()) == 120
    for found, unit in zip(read(units.stdout), units_of(elsewhere, lines), strict=True):
        assert found["stats"] == unit["stats"]
        assert of_evidence(found) == of_evidence(unit)


def of_evidence(unit: Record) -> list[Record]:
    return [excerpt for excerpt in unit["excerpts"] if excerpt["set"] == "evidence"]


# Lost and damaged


@pytest.mark.parametrize("which", ["blob", "pool", "plan", "vocabulary", "embedding"])
@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_lost_blob_is_made_again_and_no_other(
    store: Store, model: Loads, subject: Path, text: Path, which: str, harm: str
) -> None:
    plan = planned(store, subject, text)
    lines, _ = lines_of(job_of(store, model, plan))
    units = units_of(store, lines)
    lose(store, lines[1][which][0] if which == "pool" else lines[1][which], harm)

    with pytest.raises(InputError, match=r"is not in the store"):
        if which == "embedding":  # nx-top passes that on unseen, nx-explain reads it
            store.open_blob(lines[1]["embedding"])
        units_of(store, lines)
    again, made = lines_of(job_of(store, model, planned(store, subject, text)))
    assert again == lines
    expected = Made(recorded=1, passes=1, from_store=2) if which in ("blob", "pool") else Made(from_store=3)
    assert made == expected
    assert units_of(store, again) == units
    store.open_blob(lines[1]["embedding"])


def lose(store: Store, digest: str, harm: str) -> None:
    """Takes a blob away, or spoils a byte of it, wherever the store has it."""
    file = store.path / "blobs" / digest[:2] / digest
    packed = file.with_name(file.name + ".zst")
    file = packed if packed.exists() else file
    if harm == "gone":
        file.unlink(missing_ok=True)
    elif file.exists():
        file.write_bytes(spoiled(file.read_bytes()))
    with closing(sqlite3.connect(store.path / "index.sqlite")) as index, index:
        key = bytes.fromhex(digest)
        ((data,),) = index.execute("SELECT data FROM blobs WHERE digest = ?", (key,))
        assert (data is None) == file.exists() or harm == "gone"
        if harm == "gone":
            index.execute("DELETE FROM blobs WHERE digest = ?", (key,))
        elif data is not None:
            index.execute("UPDATE blobs SET data = ? WHERE digest = ?", (spoiled(data), key))


def spoiled(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_nx_top_says_how_a_lost_blob_comes_back(
    run: Run, store: Store, model: Loads, subject: Path, text: Path, command: str
) -> None:
    lines, _ = lines_of(job_of(store, model, planned(store, subject, text)), command)
    store.files.remove(lines[1]["blob"])
    lost = run("nx-top", stdin=b"".join(map(dump, lines)))
    assert lost.returncode == 3 and lost.stderr.count(b"\n") == 1
    said = lost.stderr.decode()
    assert lines[1]["blob"] in said and f"(bring it back with: {command})" in said


# Offline, without a store, and when all is there


def test_offline_is_an_error_where_something_is_missing(
    run: Run, store: Store, model: Loads, subject: Path, text: Path, command: str
) -> None:
    missing = run(f"{command} --offline")
    assert (missing.returncode, missing.stdout) == (3, b"")
    assert b"was not planned before, and --offline was given" in missing.stderr
    lines, _ = lines_of(job_of(store, model, planned(store, subject, text)), f"{command} --offline")
    there = run(f"{command} --offline")
    assert (there.returncode, read(there.stdout)) == (0, lines)
    other = run(f"{command} --offline --top 7")
    assert (other.returncode, other.stdout) == (3, b"")
    assert b"not wholly in the store" in other.stderr


def test_without_a_store_recordings_need_a_place(
    run: Run, command: str, environment: dict[str, str], tmp_path: Path
) -> None:
    nowhere = run(f"{command} --no-cache")
    assert nowhere.returncode == 2 and b"--bulk DIR keeps them" in nowhere.stderr
    done = run(f"{command} --no-cache --bulk here --layers 1 | nx-top --no-cache --bulk here")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 40
    assert not Path(environment["NXTOOLS_CACHE"]).exists()
    pool = read(done.stdout)[0]["pool"]["blob"]
    assert Store(tmp_path / "here" / "here").has(pool)
    elsewhere = run(f"{command} --no-cache --bulk here --layers 1 | nx-top --no-cache --bulk there")
    assert elsewhere.returncode == 2 and b"--bulk there is no folder" in elsewhere.stderr
    assert not (tmp_path / "here" / "there").exists(), "whoever reads recordings makes no folder for them"


def test_in_a_bulk_folder_lies_all_that_lines_name(
    store: Store, model: Loads, subject: Path, text: Path, tmp_path: Path
) -> None:
    bulk, other = Store(tmp_path / "bulk"), Store(tmp_path / "other")

    def record(bulk: Store) -> tuple[list[Record], Made]:
        plan = plan_recording(store, bulk, resolve(str(subject)), Texts([str(text)]), CUT, "auto")
        return lines_of(Job(store, bulk, model, plan, Want(batch=4)))  # type: ignore[arg-type]

    lines, made = record(bulk)
    assert made == Made(recorded=3, passes=1)
    assert record(bulk) == (lines, Made(from_store=3))
    assert len(units_of(bulk, lines)) == 120  # without the store
    # In another place nothing is there, so it is recorded once more.
    assert record(other) == (lines, Made(recorded=3, passes=1))


def test_what_is_wholly_in_the_store_loads_no_model(
    run: Run, store: Store, model: Loads, subject: Path, text: Path, command: str
) -> None:
    lines, _ = lines_of(job_of(store, model, planned(store, subject, text)), command)
    program = (
        "import sys\n"
        "from nxtools.commands.record import main\n"
        f"sys.argv = {command.split()!r}\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "loaded = {'torch', 'transformers', 'tokenizers', 'safetensors'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    again = run(sys.executable, "-c", program)
    assert again.returncode == 0, again.stderr.decode()
    assert read(again.stdout) == lines


def test_a_dry_run_says_what_would_be_recorded(
    run: Run, store: Store, model: Loads, subject: Path, text: Path, command: str
) -> None:
    lines_of(job_of(store, model, planned(store, subject, text), layers=(1,)))
    dry = run(f"{command} --dry-run")
    assert dry.returncode == 0 and dry.stdout == b""
    said = dry.stderr.decode()
    assert re.search(r"would record 2 layers of shards \(3 layers, 1 shards\), at most about \d+ MB", said)
    assert "would record 0 layers of shards" in run(f"{command} --layers 1 --dry-run").stderr.decode()


# The job, in this process


def test_names_on_the_hub_are_looked_for_in_a_fresh_process(run: Run, text: Path) -> None:
    """huggingface_hub loads its parts when they are named: another library may have named them before."""
    done = run(f"nx-record --subject some/model --dry-run {text}")
    assert done.returncode == 4 and b"HF_HUB_OFFLINE is set" in done.stderr
    unit = b'{"kind":"unit","v":1,"unit":{"layer":0,"index":0},"excerpts":[]}\n'
    asked = run("nx-explain --explainer llama:some/model/file.gguf", stdin=unit)
    assert asked.returncode == 4 and b"some/model did not give file.gguf" in asked.stderr


def test_ranges_go_up(run: Run, subject: Path, text: Path) -> None:
    done = run(f"nx-record --subject {subject} --layers 3-1 {text}")
    assert done.returncode == 2 and b"not '3-1'" in done.stderr


def test_too_little_room_is_said_before_anything_is_recorded(
    store: Store, model: Loads, subject: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(store, model, planned(store, subject, text))
    needed = job.bytes_needed()
    written = store.bytes_written
    monkeypatch.setattr(store, "free_bytes", lambda: needed - 1)
    with pytest.raises(NoRoom, match=r"may take .* MB, and .* MB are free .*--pool") as error:
        lines_of(job)
    assert error.value.exit_status == 3 and store.bytes_written == written
    monkeypatch.setattr(store, "free_bytes", lambda: needed)
    _, made = lines_of(job)
    assert made.recorded == 3
    monkeypatch.setattr(store, "free_bytes", lambda: 0)
    assert lines_of(job)[1] == Made(from_store=3)


def test_the_bytes_needed_are_an_upper_bound_and_not_a_wild_one(
    store: Store, model: Loads, subject: Path, text: Path
) -> None:
    job = job_of(store, model, planned(store, subject, text), shard=24)
    needed = job.bytes_needed()
    lines, _ = lines_of(job)
    taken = sum(len(store.blob(blob)) for line in lines for blob in (line["blob"], *line["pool"]))
    assert taken <= needed <= 10 * taken
    assert job.bytes_needed() == 0


def test_layers_and_units_that_are_not_there(store: Store, model: Loads, subject: Path, text: Path) -> None:
    plan = planned(store, subject, text)
    for want, message in (
        ({"layers": (1, 3)}, "no layer 3 .it has 0 to 2"),
        ({"units": {4: [0]}}, "no layer 4"),
        ({"units": {1: [3, 40]}}, "layer 1 has no unit 40 .it has 0 to 39"),
        ({"layers": (0,), "units": {1: [3]}}, "none of the --units is in the --layers"),
    ):
        with pytest.raises(UsageError, match=message):
            job_of(store, model, plan, **want)


def test_units_select_layers_and_take_whole_ones_from_the_store(
    store: Store, model: Loads, subject: Path, text: Path
) -> None:
    plan = planned(store, subject, text)
    whole, _ = lines_of(job_of(store, model, plan))
    some, made = lines_of(job_of(store, model, plan, units={2: [5, 7], 0: [1]}))
    assert made == Made(from_store=2)
    assert [(line["layer"], line["units"]) for line in some] == [(0, [1]), (2, [5, 7])]
    assert [line["blob"] for line in some] == [whole[0]["blob"], whole[2]["blob"]]
    assert some[-1]["last"] is True


def test_a_sign_decides_what_is_recorded(store: Store, model: Loads, subject: Path, text: Path) -> None:
    plan = planned(store, subject, text)
    both, _ = lines_of(job_of(store, model, plan))
    assert {line["sign"] for line in both} == {"+-"}
    negative, made = lines_of(job_of(store, model, plan, sign="-"))
    assert made.from_store == 3 and {line["sign"] for line in negative} == {"-"}
    positive, made = lines_of(job_of(store, model, plan, sign="+"))
    assert made.recorded == 3 and {line["sign"] for line in positive} == {"+"}


def test_everything_that_changes_the_answer_is_in_the_question(
    store: Store, model: Loads, subject: Path, text: Path, tmp_path: Path
) -> None:
    plan = planned(store, subject, text)
    lines_of(job_of(store, model, plan))
    for want in ({"top": 3}, {"spread": 1}, {"batch": 8}, {"shard": 8}):
        assert lines_of(job_of(store, model, plan, **want))[1].recorded >= 3
    twin = loads(save(build("llama", seed=1), tmp_path / "tiny"))
    assert lines_of(job_of(store, twin, plan))[1].recorded == 3
    assert lines_of(job_of(store, loads(subject, "bfloat16"), plan))[1].recorded == 3
    same = loads(save(build("llama"), tmp_path / "under-another-name"))
    lines, made = lines_of(job_of(store, same, plan))
    assert made.from_store == 3 and same.count == 0
    assert lines[0]["subject"]["name"] == "under-another-name"


def test_layers_are_memoised_one_by_one(
    store: Store, model: Loads, subject: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(store, subject, text)
    one, _ = lines_of(job_of(store, model, plan, layers=(1,)))
    every, made = lines_of(job_of(store, model, plan))
    assert (made.from_store, made.recorded, made.passes) == (1, 2, 1)
    assert every[1]["blob"] == one[0]["blob"]


def test_shards_are_whole_batches_and_cover_all(
    store: Store, model: Loads, subject: Path, text: Path
) -> None:
    plan = planned(store, subject, text)
    for shard, batch in ((1, 4), (10, 4), (12, 4), (10_000, 4), (5, 1)):
        shards = job_of(store, model, plan, shard=shard, batch=batch).shards
        assert [first for first, _ in shards] == [0, *(last for _, last in shards[:-1])]
        assert shards[-1][1] == len(plan.plan.contexts)
        assert all((last - first) % batch == 0 and last - first >= shard for first, last in shards[:-1])


def test_units_are_the_same_from_any_shards(store: Store, model: Loads, subject: Path, text: Path) -> None:
    plan = planned(store, subject, text)
    found = [
        units_of(store, lines_of(job_of(store, model, plan, shard=shard))[0]) for shard in (20, 60, None)
    ]
    assert len(found[0]) == 120
    for units in found[1:]:
        for one, other in zip(found[0], units, strict=True):
            assert one["excerpts"] == other["excerpts"]
            for name in ("mean", "variance", "skewness", "kurtosis"):
                assert other["stats"].pop(name) == pytest.approx(one["stats"][name], rel=1e-9)
            assert other["stats"].items() <= one["stats"].items()


# Plans


def test_a_plan_is_made_once(
    store: Store, subject: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(store, subject, text)
    monkeypatch.setattr("nxtools.subject.planning._plan_anew", refuse)
    again = planned(store, subject, text)
    assert again.blob == plan.blob and again.plan.to_bytes() == plan.plan.to_bytes()


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("this was to come from the store")


def test_a_context_that_the_subject_cannot_see_is_refused_before_the_text_is_read(
    store: Store, subject: Path
) -> None:
    texts, subject_of = Texts(["nowhere.txt"]), resolve(str(subject))
    with pytest.raises(UsageError, match=r"context of 128 tokens is longer than the 64 .*--context 64"):
        plan_recording(store, store, subject_of, texts, Cut(context=128), "auto")
    with pytest.raises(InputError, match="nowhere"):
        plan_recording(store, store, subject_of, texts, Cut(context=64), "auto")


def test_a_bos_token_needs_a_position_of_its_own(store: Store, subject: Path, text: Path) -> None:
    with pytest.raises(UsageError, match=r"64 tokens and a BOS token .*--context 63"):
        plan_recording(
            store,
            store,
            resolve(str(subject)),
            Texts([str(text)]),
            Cut(context=64, excerpt=16, document_tokens=100),
            "always",
        )


def test_offline_a_plan_is_not_made(tmp_path: Path, subject: Path, text: Path) -> None:
    with pytest.raises(InputError, match="not planned before"):
        planned(Store(tmp_path / "offline", mode="offline"), subject, text)


def test_pythons_documentation_is_not_read_again_while_its_library_is_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_passages = "nxtools.subject.planning.read_passages"
    state = "nxtools.subject.pydoc.library_state"
    monkeypatch.setattr(state, lambda: "as it was")
    monkeypatch.setattr(read_passages, lambda *_, **__: iter([Passage("a", "one")]))
    first = Texts(["python-docs"]).digests(store)
    monkeypatch.setattr(read_passages, lambda *_, **__: iter([Passage("a", "two")]))
    assert Texts(["python-docs"]).digests(store) == first
    assert Texts(["python-docs:train"]).digests(store) != first
    monkeypatch.setattr(state, lambda: "updated")
    assert Texts(["python-docs"]).digests(store) != first


def test_files_are_read_every_time(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\n\ntwo\n")
    first = Texts([str(file)]).digests(store)
    status = file.stat()
    file.write_text("two\n\none\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Texts([str(file)]).digests(store) != first


def test_a_line_without_text_is_said_once(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n{"no": 1}\n')
    bad: list[Any] = []
    texts = Texts([str(file)], on_bad_line=bad.append)
    texts.digests(store)
    assert [passage.text for passage in texts.passages()] == ["one"]
    assert len(bad) == 1


# Tables


def test_tables_are_added_in_one_pass_to_what_was_recorded_and_made_once(
    store: Store, model: Loads, subject: Path, text: Path
) -> None:
    plan = planned(store, subject, text)
    without, _ = lines_of(job_of(store, model, plan, shard=24))
    shards = len(without) // 3
    having, made = lines_of(job_of(store, model, plan, shard=24, tables=("corpus",)))
    assert made == Made(from_store=3 * shards, passes=shards, tables=3 * shards)
    assert without == [{k: v for k, v in line.items() if k != "tables"} for line in having]
    again, made = lines_of(job_of(store, model, plan, shard=24, tables=("corpus",)))
    assert again == having and made == Made(from_store=3 * shards)


def test_layers_whose_sums_do_not_fit_take_passes_of_their_own(
    store: Store, model: Loads, subject: Path, text: Path, tmp_path: Path
) -> None:
    plan = planned(store, subject, text)
    together, made = lines_of(job_of(store, model, plan, tables=("corpus",)))
    assert made == Made(recorded=3, passes=1, tables=3)
    one_layer = job_of(store, model, plan).tabling.sums(0, 40)
    for memory, passes in ((1, 3), (2 * one_layer, 2), (3 * one_layer, 1)):
        with Store(tmp_path / str(memory)) as other:
            plan = planned(other, subject, text)
            lines, made = lines_of(job_of(other, model, plan, tables=("corpus",), memory=memory))
            assert made == Made(recorded=3, passes=passes, tables=3)
            assert lines == together


def test_a_lost_part_of_a_table_is_made_again_and_no_other(
    store: Store, model: Loads, subject: Path, text: Path
) -> None:
    plan = planned(store, subject, text)
    lines, _ = lines_of(job_of(store, model, plan, shard=24, tables=("corpus",)))
    lose(store, lines[4]["tables"]["corpus"], "gone")
    again, made = lines_of(job_of(store, model, plan, shard=24, tables=("corpus",)))
    assert again == lines and made == Made(from_store=len(lines), passes=1, tables=1)


def test_the_bytes_of_tables_are_in_the_dry_run(
    store: Store, model: Loads, subject: Path, text: Path
) -> None:
    plan = planned(store, subject, text)
    lines_of(job_of(store, model, plan))
    job = job_of(store, model, plan, tables=("corpus",))
    needed = job.bytes_needed()
    lines, _ = lines_of(job)
    taken = sum(len(store.blob(line["tables"]["corpus"])) for line in lines)
    assert taken <= needed <= 2 * taken and job.bytes_needed() == 0


def test_tables_of_weights_are_made_once_and_for_all_shards(
    store: Store, model: Loads, subject: Path, text: Path
) -> None:
    plan = planned(store, subject, text)
    lines_of(job_of(store, model, plan, shard=24))
    job = job_of(store, model, plan, shard=24, tables=("weights",))
    needed = job.bytes_needed()
    lines, made = lines_of(job)
    assert made.passes == 0
    by_layer = {line["layer"]: line["tables"]["weights"] for line in lines}
    assert [line["tables"]["weights"] for line in lines] == [by_layer[line["layer"]] for line in lines]
    taken = sum(len(store.blob(blob)) for blob in by_layer.values())
    assert len(by_layer) == 3 and taken <= needed <= 2 * taken
    unit = units_of(store, lines)[41]
    table = Table(unit["tables"]["weights"]["blob"], store.open_blob)
    assert len(table.values(unit["tables"]["weights"]["column"])) == 300
    again = loads(subject)
    assert lines_of(job_of(store, again, plan, shard=24, tables=("weights",)))[0] == lines
    assert again.count == 0


def test_tables_of_weights_are_for_neurons(store: Store, subject: Path, text: Path) -> None:
    plan = planned(store, subject, text)
    elsewhere = Model(
        resolve(str(subject)), "float32", "cpu", "model.layers.{layer}.self_attn.o_proj", False, False
    )
    with pytest.raises(UsageError, match="MLP neurons"):
        job_of(store, Loads(elsewhere), plan, tables=("weights",))
