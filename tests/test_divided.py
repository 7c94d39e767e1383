"""Whole loops in several processes: what goes out is what one process would have written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import IO, Any

import orjson
import pytest
from conftest import ROOT, UNITS, Run
from hypothesis import given, settings
from hypothesis import strategies as st

from nxtools import progress
from nxtools.divided import Divided
from nxtools.errors import InputError, WorkerError
from nxtools.folded import folded
from nxtools.records import check_unit
from nxtools.stage import LocalEngine, Question, Step
from nxtools.store import Store
from nxtools.stream import Reader, Record, dump

LINES = 64  # that nx-score gives to a process at a time
MANY = 5 * LINES + 7


@pytest.fixture
def many(units: list[Record]) -> list[Record]:
    """Units with a pattern each, over three layers; one without, one dead."""
    patterns = ['" not" (8); " the" (2)', '" the" (10)', 'word-start (3); " not" (1)']
    found: list[Record] = []
    for number in range(MANY):
        unit = units[number % len(units)]
        place = unit["unit"] | {"layer": number // 120, "index": number}
        typed = {"id": "typed", "text": patterns[number % 3], "by": {"explainer": "person"}}
        found.append(unit | {"unit": place, "explanations": [typed] if number % 97 else []})
    return found


def lines(records: Iterable[Record]) -> bytes:
    return b"".join(map(dump, records))


# nx-score


def scores(err: bytes) -> tuple[int, int]:
    """How many were computed, and how many taken from the store."""
    (found,) = re.findall(rb"; (\d+) scores computed, (\d+) from the store, 0 failed\n", err)
    return int(found[0]), int(found[1])


def test_any_number_of_processes_writes_the_same_bytes_and_says_the_same(
    run: Run, many: list[Record]
) -> None:
    one, three = (
        run("nx-score", "--jobs", jobs, "--cache", f"c{jobs}", stdin=lines(many)) for jobs in (1, 3)
    )
    assert (one.returncode, three.returncode) == (0, 0)
    assert three.stdout == one.stdout and one.stdout.count(b"\n") == MANY
    computed, _ = scores(one.stderr)
    assert computed > 2 * LINES and b"null" in one.stderr
    assert three.stderr.splitlines()[:-1] == one.stderr.splitlines()[:-1]
    again = run("nx-score", "--jobs", 3, "--cache", "c3", stdin=lines(many))
    assert (again.stdout, scores(again.stderr)[0]) == (one.stdout, 0)


@pytest.mark.parametrize("name", ["nx-explain", "nx-simulate"])
def test_other_commands_do_too(run: Run, many: list[Record], name: str) -> None:
    one, three = (run(name, "--jobs", jobs, "--cache", f"c{jobs}", stdin=lines(many)) for jobs in (1, 3))
    assert (one.returncode, three.returncode) == (0, 0)
    assert three.stdout == one.stdout and one.stdout.count(b"\n") == MANY
    again = run(name, "--jobs", 3, "--cache", "c3", stdin=lines(many))
    assert (again.stdout == one.stdout and b" 0 failed" in again.stderr) or b" computed" not in again.stderr


def test_lines_that_are_skipped_are_said_and_counted_in_order(run: Run, many: list[Record]) -> None:
    """At the borders of blocks, too: the null of a unit is that of the last line that was a unit."""
    given = lines(many).splitlines(keepends=True)
    for number in (3, LINES - 1, LINES, 2 * LINES - 2, 2 * LINES - 1, 3 * LINES, 4 * LINES - 1, MANY - 1):
        given[number] = b'{"kind":"unit"}\n' if number % 2 else b"[\n"
    given[3 * LINES + 5 : 4 * LINES + 20] = [b"{\n"] * (LINES + 15)
    words = ["nx-score", "--no-cache", "--keep-going", "--jobs"]
    one, three = (run(*words, jobs, stdin=b"".join(given)) for jobs in (1, 3))
    assert one.returncode == three.returncode == 1
    assert three.stdout == one.stdout and three.stderr == one.stderr
    assert one.stderr.count(b"; skipped\n") == 7 + LINES + 15


@pytest.mark.parametrize("line", [LINES + 30, MANY])
@pytest.mark.parametrize("wrong", [b"{}\n", b'{"kind":"unit",\n'])
def test_what_is_wrong_with_a_line_is_said_behind_the_lines_before_it(
    run: Run, many: list[Record], wrong: bytes, line: int
) -> None:
    given = lines(many[: line - 1]) + wrong + lines(many[line:])
    one, three = (run("nx-score", "-q", "--no-cache", "--jobs", jobs, stdin=given) for jobs in (1, 3))
    assert one.returncode == three.returncode == 3
    assert three.stdout == one.stdout and one.stdout.count(b"\n") == line - 1
    assert three.stderr == one.stderr and f"stdin:{line}: ".encode() in one.stderr


def test_a_stream_that_was_cut_is_an_error_behind_what_came(run: Run, many: list[Record]) -> None:
    done = run("nx-score", "-q", "--no-cache", "--jobs", 3, stdin=lines(many)[:-9])
    assert done.returncode == 3 and f"stdin:{MANY}: the last line has no newline".encode() in done.stderr
    assert done.stdout.count(b"\n") == MANY - 1


def test_killed_in_the_middle_what_was_stored_is_not_computed_again(
    environment: dict[str, str], tmp_path: Path, run: Run, many: list[Record]
) -> None:
    given = lines(many)
    (tmp_path / "in.jsonl").write_bytes(given)
    came = b""
    with subprocess.Popen(
        ["nx-score", "-q", "--jobs", "2", "in.jsonl"],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
        start_new_session=True,
    ) as process:
        assert process.stdout
        while came.count(b"\n") < 2 * LINES:  # it cannot go far ahead: nobody reads the rest
            came += os.read(process.stdout.fileno(), 1 << 12)
        os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 20
    while running(process.pid):
        assert time.monotonic() < until, "its processes end with it"
        time.sleep(0.05)
    done = run("nx-score", "--jobs", 2, stdin=given)
    computed, stored = scores(done.stderr)
    assert done.returncode == 0 and done.stdout.startswith(came[: came.rindex(b"\n") + 1])
    whole = scores(run("nx-score", "--jobs", 1, "--no-cache", stdin=given).stderr)
    assert computed + stored == sum(whole) and computed < 0.75 * whole[0]


def running(group: int) -> list[str]:
    """The command lines of a group's processes that score."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            of_group = int((folder / "stat").read_text().rpartition(")")[2].split()[2]) == group
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            found += [words] if of_group and "score" in words else []
    return found


def test_lines_go_out_as_they_come_in(
    environment: dict[str, str], tmp_path: Path, many: list[Record]
) -> None:
    """However they are cut, and though nobody says yet that more will come."""
    with subprocess.Popen(
        ["nx-score", "-q", "--jobs", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
    ) as process:
        assert process.stdin and process.stdout
        sent = 0
        for upto in (LINES, LINES + 1, LINES + 2, 3 * LINES, MANY):
            writing = Thread(target=_write, args=(process.stdin, lines(many[sent:upto])))
            writing.start()
            for _ in range(sent, upto):
                assert orjson.loads(process.stdout.readline())["kind"] == "unit"
            writing.join()
            sent = upto
        process.stdin.close()
        assert process.wait() == 0


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(data)
    pipe.flush()


def test_whoever_has_enough_ends_all_processes(run: Run, many: list[Record]) -> None:
    done = run(f"nx-score -q --jobs 3 | head -n {LINES + 2} | wc -l", stdin=lines(many))
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [str(LINES + 2).encode()], b"")


# Work of any kind


def square(numbers: list[int]) -> list[Any]:
    progress.warn_once("squares: they grow")
    if 666 in numbers:
        os._exit(9)
    return [number**2 for number in numbers]


class Squaring:
    """Squares the index of a unit; a unit knows the one before it."""

    def __init__(self) -> None:
        self.engine = LocalEngine(square)
        self.noted: list[int] = []

    def begin(self, store: Store) -> Callable[[Record], Step]:
        return self.step

    def prepare(self, units: Iterable[Record]) -> Iterator[Record]:
        before = None
        for unit in units:
            yield unit | {"before": before}
            before = unit["unit"]["index"]

    def seen(self) -> list[int]:
        noted, self.noted = self.noted, []
        return noted

    def see(self, seen: list[int]) -> None:
        self.noted += seen

    def step(self, record: Record) -> Step:
        index = record["unit"]["index"]
        self.noted.append(index)
        (answer,) = yield [Question("square", 1, {"of": index}, self.engine, index)]
        return record | {"square": answer, "process": os.getpid()}


@pytest.fixture
def store(tmp_path: Path) -> Callable[[], Store]:
    return lambda: Store(tmp_path / "cache")


def divided(path: Path, work: Squaring, store: Callable[[], Store]) -> list[Record]:
    reader = Reader([str(path)], check_unit, parse=folded)
    assert next(iter(reader))["unit"]["index"] == 0, "one line is read before others take over"
    with closing(iter(Divided(reader, work, store, 2, 20))) as found:
        return [orjson.loads(b"".join(pieces)) for pieces in found]


def write(path: Path, units: list[Record], indexes: Iterable[int]) -> Path:
    chosen = (units[0] | {"unit": units[0]["unit"] | {"index": index}} for index in indexes)
    path.write_bytes(lines(chosen))
    return path


@pytest.mark.parametrize("forks", [True, False])
def test_other_processes_do_all_and_every_unit_knows_the_one_before_it(
    tmp_path: Path,
    units: list[Record],
    store: Callable[[], Store],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    forks: bool,
) -> None:
    monkeypatch.setattr("nxtools.parallel.FORKS", forks)
    monkeypatch.setattr("nxtools.progress._warned", set())
    work = Squaring()
    work.noted.append(-1)
    found = divided(write(tmp_path / "in.jsonl", units, range(MANY)), work, store)
    assert [(one["unit"]["index"], one["before"], one["square"]) for one in found] == [
        (number, number - 1, number**2) for number in range(1, MANY)
    ]
    assert os.getpid() not in {one["process"] for one in found}
    assert work.noted == [-1, *range(1, MANY)], "in order, and what was noted here is not noted again"
    assert found[0]["excerpts"] == units[0]["excerpts"]
    assert capfd.readouterr().err == "squares: they grow\n"


def test_a_process_that_dies_is_said_in_one_line_and_loses_nothing_stored(
    tmp_path: Path, units: list[Record], store: Callable[[], Store]
) -> None:
    path = write(tmp_path / "in.jsonl", units, [*range(3 * LINES), 666])
    with pytest.raises(WorkerError, match="a worker process died") as caught:
        divided(path, Squaring(), store)
    assert "\n" not in str(caught.value)
    time.sleep(0.05)
    path = write(tmp_path / "in.jsonl", units, range(3 * LINES))
    assert len(divided(path, Squaring(), store)) == 3 * LINES - 1


# Lines as they are


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(0, 20), st.booleans())
@settings(max_examples=50, deadline=None)
def test_lines_that_are_taken_are_those_that_would_be_read(
    tmp_path_factory: pytest.TempPathFactory, most: list[int], first: int, cut: bool
) -> None:
    path = tmp_path_factory.mktemp("taken") / "in.jsonl"
    path.write_bytes(b"\n".join(b'{"n":%d}' % n for n in range(20)) + (b"" if cut else b"\n"))
    there = 19 if cut else 20
    reader = Reader([str(path)], lambda record: None)
    read = [record["n"] for record in islice(reader, min(first, there))]
    for number in [*most, 30, 30]:
        try:
            taken = reader.take(number)
        except InputError as error:
            assert cut and read == list(range(19)) and "no newline" in error.message
            continue
        assert len(taken) <= number
        read += [orjson.loads(line)["n"] for _, line in taken]
        assert not taken or taken[-1][0] == f"{path}:{read[-1] + 1}"
    assert read == list(range(there))


# Threads

ASKED_BEFORE_NUMPY = """
import importlib, sys
from nxtools import threads
given = threads.one_for_products
def asked():
    given()
    print("early" if "numpy" not in sys.modules else "late")
threads.one_for_products = asked
importlib.import_module(sys.argv[1]).main(sys.argv[2:])
"""


@pytest.mark.parametrize("name", ["explain", "score", "simulate"])
def test_products_take_one_thread_where_processes_share_the_cores(
    run: Run, environment: dict[str, str], name: str
) -> None:
    words = [sys.executable, "-c", ASKED_BEFORE_NUMPY, f"nxtools.commands.{name}", "-q", UNITS, "-o", "x"]
    done = run(*words, env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"early\n", b"")
