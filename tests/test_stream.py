"""JSON lines in and out."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard
from conftest import Run
from hypothesis import given
from hypothesis import strategies as st

from nxtools.errors import InputError, OutputError
from nxtools.stream import Reader, Record, Writer, dump, lines, parsed


def anything(record: Record) -> None:
    """A check that finds nothing wrong."""


def read(*paths: Path, **options: Any) -> list[Record]:
    return list(Reader([str(path) for path in paths], anything, **options))


def written(path: Path, records: Iterable[Record]) -> Path:
    with Writer(str(path)) as out:
        for record in records:
            out.write(record)
    return path


# What goes in comes out

TEXT = st.text()
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
RECORDS = st.dictionaries(TEXT, VALUES, max_size=5)


@given(RECORDS)
def test_any_record_comes_back(record: Record) -> None:
    line = dump(record)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert parsed(line) == record
    assert dump(parsed(line)) == line


@given(st.lists(RECORDS, max_size=5), st.sampled_from(["some.jsonl", "some.jsonl.zst"]))
def test_any_records_come_back_from_files(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], name: str
) -> None:
    path = written(tmp_path_factory.mktemp("files") / name, records)
    assert read(path) == records
    assert path.read_bytes().startswith(b"\x28\xb5\x2f\xfd") == name.endswith(".zst")


@given(st.binary(max_size=60), st.lists(st.integers(1, 9), max_size=30))
def test_lines_do_not_depend_on_how_the_bytes_came(data: bytes, sizes: list[int]) -> None:
    data += b"\n"

    def pieces() -> Iterator[bytes]:
        begin = 0
        for size in sizes:
            yield data[begin : begin + size]
            begin += size
        yield data[begin:]

    come = [line for some in lines(pieces(), "x") for line in some]
    assert come == [(n, line) for n, line in enumerate(data.split(b"\n"), 1) if line.strip(b" \t\r\n\v\f")]


def test_arrays_are_printed_short_and_nan_is_null() -> None:
    row = np.array([0.1, 2.5, np.nan], dtype=np.float32)
    assert dump({"a": row, "b": math.nan}) == b'{"a":[0.1,2.5,null],"b":null}\n'


def test_half_a_character_becomes_a_replacement_character() -> None:
    assert dump({"t\ud83d": ["a\udc00", ("\ud83d\ude00",)]}) == '{"t\ufffd":["a\ufffd",["😀"]]}\n'.encode()
    assert parsed(rb'{"t":"a\ud83d","u":"\ud83d\ude00"}') == {"t": "a\ufffd", "u": "😀"}


def test_integers_beyond_64_bits_become_the_nearest_double_as_they_do_in_jq() -> None:
    assert parsed(b'{"a":18446744073709551615}') == {"a": 2**64 - 1}
    assert parsed(b'{"a":36893488147419103233}') == {"a": 2.0**65}


def test_a_huge_line_is_read_in_linear_time(tmp_path: Path) -> None:
    path = written(tmp_path / "huge.jsonl", [{"a": "x" * 100_000_000}, {"b": 1}])
    begun = time.process_time()
    assert [len(record) for record in read(path)] == [1, 1]
    assert time.process_time() - begun < 5  # adding chunk by chunk to one bytes object took 20


# Several inputs


def test_inputs_are_read_in_order_and_every_record_knows_its_place(tmp_path: Path) -> None:
    first = written(tmp_path / "a.jsonl", [{"n": 1}, {"n": 2}])
    (tmp_path / "b.jsonl").write_bytes(b'\n{"n":3}\r\n  \n{"n":4}\n')
    reader = Reader([str(first), str(tmp_path / "b.jsonl")], anything)
    found = [(record["n"], Path(reader.where).name) for record in reader]
    assert found == [(1, "a.jsonl:1"), (2, "a.jsonl:2"), (3, "b.jsonl:2"), (4, "b.jsonl:4")]


def test_an_empty_file_holds_no_records(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert read(tmp_path / "empty.jsonl") == []


def test_frames_behind_each_other_are_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "frames"  # recognised by its bytes, whatever its name
    path.write_bytes(zstandard.compress(b'{"n":1}\n{"n"') + zstandard.compress(b":2}\n"))
    assert read(path) == [{"n": 1}, {"n": 2}]


# What is wrong is said with its place

LINES = {
    b'{"n":1': "not JSON: ",
    b"[1]": "a record is an object, this line holds an array",
    b"17": "a record is an object, this line holds an integer",
    b'{"n":NaN}': "not JSON: ",
    b'{"n":"\xff"}': "not UTF-8: byte 0xff at byte 7",
    b"[" * 3000 + b"]" * 3000: "not JSON: ",
    b'{"n":"\\ud83d"': "not JSON: ",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_no_record_raises_with_its_place(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"n":1}\n' + line + b"\n")
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.where == f"{path}:2"
    assert caught.value.message.startswith(LINES[line])


def test_keep_going_skips_counts_and_reports(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"n":1}\n{\n{"n":2}\n3\n')
    reported: list[InputError] = []
    reader = Reader([str(path)], anything, keep_going=True, on_bad=reported.append)
    assert list(reader) == [{"n": 1}, {"n": 2}]
    assert [error.where for error in reported] == [f"{path}:2", f"{path}:4"]
    assert reader.skipped == 2


def test_what_the_check_finds_gets_the_place_too(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"n": 1}])

    def check(record: Record) -> None:
        raise InputError("n is odd")

    with pytest.raises(InputError, match=r"a\.jsonl:1: n is odd"):
        list(Reader([str(path)], check))


def test_a_last_line_without_newline_is_an_error_even_when_it_is_json(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_bytes(b'{"n":1}\n{"n":2}')
    reader = iter(Reader([str(path)], anything, keep_going=True))
    assert next(reader) == {"n": 1}
    with pytest.raises(InputError, match=r"cut\.jsonl:2: the last line has no newline"):
        next(reader)


def test_zstd_that_is_cut_damaged_or_none_at_all_is_an_error(tmp_path: Path) -> None:
    whole = zstandard.compress(b"".join(b'{"n":%d}\n' % n for n in range(1000)))
    for name, data, message in (
        ("cut.zst", whole[:-5], "stops before its end"),
        ("cut-in-the-second.zst", whole + whole[:2], "stops before its end"),
        ("damaged.zst", whole[:20] + b"\xff" * 20 + whole[40:], "damaged zstd data"),
        ("garbage-behind.zst", whole + b"garbage", "damaged zstd data"),
        ("plain.zst", b'{"n":1}\n', "no zstd data"),
        ("empty.zst", b"", "no zstd data"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message) as caught:
            read(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not-there\.jsonl: cannot be read: No such file"):
        read(tmp_path / "not-there.jsonl")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read(tmp_path)


# Whether more can be had without waiting


def test_ready_says_whether_reading_on_would_wait(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    reader = Reader([str(fifo)], anything)
    assert not reader.ready()  # nothing is open yet
    os.write(end, b'{"n":1}\n{"n":2}\n')
    records = iter(reader)
    assert next(records) == {"n": 1}
    assert reader.ready()  # the second line came with the first
    assert next(records) == {"n": 2}
    assert not reader.ready()
    os.write(end, b'{"n":3}\n')
    assert reader.ready()
    assert next(records) == {"n": 3}
    os.close(end)
    assert reader.ready()  # the end can be had
    assert list(records) == []


# Writing


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Writer(str(path)) as out:
        out.write({"n": 1})
        out.flush()
        assert not path.exists()
    assert read(path) == [{"n": 1}]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.zst"])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, [{"old": True}])
    with pytest.raises(KeyboardInterrupt), Writer(str(path)) as out:
        out.write({"new": True})
        raise KeyboardInterrupt
    assert read(path) == [{"old": True}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_read_and_written_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"n": n} for n in range(5)])
    with Writer(str(path)) as out:
        for record in Reader([str(path)], anything):
            out.write({**record, "more": 1})
    assert read(path) == [{"n": n, "more": 1} for n in range(5)]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    written(tmp_path / "real.jsonl", [])
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    written(tmp_path / "link.jsonl", [{"n": 1}])
    assert (tmp_path / "link.jsonl").is_symlink()
    assert read(tmp_path / "real.jsonl") == [{"n": 1}]


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    written(fifo, [{"n": 1}])
    assert os.read(end, 100) == b'{"n":1}\n'
    os.close(end)
    assert fifo.is_fifo()


def test_files_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/out\.jsonl: cannot be written: No such file"):
        Writer(str(tmp_path / "no" / "out.jsonl"))
    with pytest.raises(OutputError, match="cannot be written: Is a directory"):
        Writer(str(tmp_path))
    with pytest.raises(OutputError, match="cannot be written: No space left"), Writer("/dev/full") as out:
        out.write({"n": 1})


# Through real pipes: what the commands see

PASS = """
import sys
from nxtools.errors import NxError
from nxtools.stream import Reader, ReaderLeft, Writer
try:
    with Writer() as out:
        for record in Reader(sys.argv[1:], lambda record: None):
            out.write(record)
            if "fail" in record:
                raise SystemExit(9)
except ReaderLeft:
    sys.exit(0)
except NxError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
"""


@pytest.fixture
def passing(tmp_path: Path, environment: dict[str, str]) -> str:
    """A program that passes records on, as a word of bash."""
    program = tmp_path / "pass.py"
    program.write_text(PASS, encoding="utf-8")
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    return f"{environment['NXTOOLS_PYTHON']} {program}"


def test_stdin_and_files_in_any_order(run: Run, passing: str) -> None:
    done = run(f"echo '{{\"n\":1}}' > a; {passing} a - a", stdin=b'{"n":2}\n')
    assert (done.returncode, done.stdout) == (0, b'{"n":1}\n{"n":2}\n{"n":1}\n')


def test_zstd_is_recognised_on_stdin(run: Run, passing: str) -> None:
    done = run(passing, stdin=zstandard.compress(b'{"n":1}\n'))
    assert (done.returncode, done.stdout) == (0, b'{"n":1}\n')


def test_a_reader_that_left_early_is_no_error(run: Run, passing: str, tmp_path: Path) -> None:
    many = written(tmp_path / "many.jsonl", ({"n": n, "text": "x" * 1000} for n in range(20_000)))
    done = run(f"{passing} {many} | head -1 | cut -c 1-6")
    assert (done.returncode, done.stdout, done.stderr) == (0, b'{"n":0\n', b"")


@pytest.mark.parametrize("count", [1, 20_000])
def test_a_full_disk_is_said_once(run: Run, passing: str, tmp_path: Path, count: int) -> None:
    many = written(tmp_path / "many.jsonl", ({"n": n, "text": "x" * 100} for n in range(count)))
    done = run(f"{passing} {many} > /dev/full")
    assert done.returncode == 3
    assert done.stderr == b"stdout: cannot be written: No space left on device\n"


def test_closed_ends_are_said(run: Run, passing: str) -> None:
    done = run(f"{passing} <&-")
    assert (done.returncode, done.stderr.split(b" (")[0]) == (3, b"stdin: is closed")
    done = run(f"{passing} >&-", stdin=b'{"n":1}\n')
    assert (done.returncode, done.stderr.split(b" (")[0]) == (3, b"stdout: is closed")


def test_complete_lines_go_out_even_when_an_error_ends_the_run(run: Run, passing: str) -> None:
    done = run(passing, stdin=b'{"n":1}\n{"fail":1}\n{"n":2}\n')
    assert (done.returncode, done.stdout) == (9, b'{"n":1}\n{"fail":1}\n')
    assert [orjson.loads(line) for line in done.stdout.splitlines()] == [{"n": 1}, {"fail": 1}]
