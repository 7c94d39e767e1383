"""Reading text: every kind of source, every way in which one can be wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nxtools.errors import InputError, UsageError
from nxtools.subject.text import Cutting, Passage, read_passages


def texts(*sources: object, cutting: Cutting | None = None) -> list[str]:
    return [passage.text for passage in read_passages(map(str, sources), cutting)]


def error_of(*sources: object, cutting: Cutting | None = None) -> str:
    with pytest.raises(InputError) as caught:
        texts(*sources, cutting=cutting)
    return str(caught.value)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch):
    def holds(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return holds


# Text files


def test_blank_lines_cut_a_text_file_into_paragraphs(tmp_path: Path) -> None:
    file = tmp_path / "story.txt"
    file.write_text("\n\nOnce upon\na time\n  \n\n  There was\n")

    assert list(read_passages([str(file)])) == [
        Passage("story.txt", "Once upon\na time", continues=False),
        Passage("story.txt", "  There was", continues=True),
    ]


def test_a_separator_cuts_documents_that_stand_alone(tmp_path: Path) -> None:
    file = tmp_path / "stories.txt"
    file.write_text("one\n\nstill one\n<|end|>\n<|end|>\ntwo <|end|>\n<|end|>\n")

    found = list(read_passages([str(file)], Cutting(separator="<|end|>")))

    assert found == [Passage("stories.txt", "one\n\nstill one"), Passage("stories.txt", "two <|end|>")]


def test_a_file_can_stay_whole(tmp_path: Path) -> None:
    file = tmp_path / "story.txt"
    file.write_text("one\n\n\ntwo\n")
    assert texts(file, cutting=Cutting(documents="file")) == ["one\n\n\ntwo"]
    with pytest.raises(UsageError, match="separator"):
        Cutting(documents="file", separator="---")


def test_the_first_paragraph_of_a_file_continues_no_other_file_of_the_same_name(tmp_path: Path) -> None:
    files = [tmp_path / folder / "a.txt" for folder in ("x", "y")]
    for file in files:
        file.parent.mkdir()
        file.write_text("one\n\ntwo\n")
    assert [p.continues for p in read_passages(map(str, files))] == [False, True, False, True]


def test_windows_line_ends_and_a_byte_order_mark_leave_no_trace(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\nmore\r\n\r\ntwo\r\n")
    assert texts(file) == ["one\nmore", "two"]
    assert texts(file, cutting=Cutting(separator="more")) == ["one", "two"]


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8")))))
def test_paragraphs_hold_every_line_that_is_not_blank_in_order(paragraphs: list[list[str]]) -> None:
    text = "\n\n".join("\n".join(lines) for lines in paragraphs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        found = texts("-", cutting=Cutting(format="text"))

    def is_text(line: str) -> bool:
        return bool(line.strip())

    wanted = [line for line in text.removeprefix("\ufeff").split("\n") if is_text(line)]
    assert [line for passage in found for line in passage.split("\n")] == wanted
    assert all(passage.split("\n")[0].strip() and passage.split("\n")[-1].strip() for passage in found)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_chunks_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    plain, packed = tmp_path / "a.txt", tmp_path / "b.txt.zst"
    plain.write_bytes("één\r\n\r\ntwo".encode())
    packed.write_bytes(zstandard.compress(plain.read_bytes()))
    monkeypatch.setattr("nxtools.stream.CHUNK_BYTES", size)
    assert texts(plain) == texts(packed) == ["één", "two"]


def test_bytes_that_are_not_utf8_are_named_by_line_and_offset(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes(b"\xef\xbb\xbfgood\ncaf\xe9 noir\n")
    assert error_of(file).startswith(f"{file}:2: not UTF-8: byte 0xe9 at offset 11")
    assert file.read_bytes()[11] == 0xE9
    assert texts(file, cutting=Cutting(encoding_errors="replace")) == ["good\ncaf\ufffd noir"]


def test_utf16_is_recognised_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "notepad.txt"
    file.write_text("hello", encoding="utf-16")
    assert "iconv -f UTF-16" in error_of(file)


# JSON lines


def test_each_json_line_is_a_document(tmp_path: Path) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text('{"text": "one\\n\\nstill one", "id": 1}\n\n{"text": ""}\n{"text": "two"}')
    assert list(read_passages([str(file)])) == [
        Passage("docs.jsonl", "one\n\nstill one"),
        Passage("docs.jsonl", ""),
        Passage("docs.jsonl", "two"),
    ]


def test_another_field_may_hold_the_text(tmp_path: Path) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text('{"body": "one", "text": 3}\n')
    assert texts(file, cutting=Cutting(field="body")) == ["one"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["text"]', "holds no JSON object"),
        ('{"id": 1, "body": "x"}', "no field 'text', but: body, id"),
        ('{"text": null}', "holds null, not text"),
        ('{"text": ["a"]}', "holds list, not text"),
    ],
)
def test_a_bad_json_line_is_named_or_skipped(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text(f'{{"text": "one"}}\n{line}\n{{"text": "two"}}\n')

    error = error_of(file)
    assert error.startswith(f"{file}:2: ") and message in error and error.endswith(")")

    skipped: list[InputError] = []
    found = [p.text for p in read_passages([str(file)], on_bad_line=skipped.append)]
    assert found == ["one", "two"]
    assert [str(error) for error in skipped] == [error_of(file)]


@given(st.text(st.characters(codec=None)))
def test_any_json_string_becomes_text_that_utf8_can_hold(text: str) -> None:
    line = json.dumps({"text": text})  # escapes lone surrogates, which orjson refuses to read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line.encode())))
        (found,) = texts("-")
    found.encode("utf-8")
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert found == text


def test_a_lone_surrogate_becomes_a_replacement_character(stdin) -> None:
    stdin(b'{"text": "a\\ud83d b \\ud83d\\ude00"}\n')
    assert texts("-") == ["a\ufffd b \U0001f600"]


# Where text comes from


def test_a_folder_is_read_at_any_depth_in_the_order_of_its_paths(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    for name, data in {
        "b.txt": b"b",
        "a/z.jsonl": b'{"text": "az"}',
        "a/y.txt.zst": zstandard.compress(b"ay"),
        "a.md": b"not text",
        ".hidden/c.txt": b"hidden",
        "a/._y.txt": b"\xff",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    found = list(read_passages([str(folder)]))

    assert [p.source for p in found] == ["corpus/a/y.txt.zst", "corpus/a/z.jsonl", "corpus/b.txt"]
    assert [p.text for p in found] == ["ay", "az", "b"]


def test_no_source_names_the_machine(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    found = [*read_passages([str(tmp_path / "a.txt")]), *read_passages([str(tmp_path)])]
    assert [p.source for p in found] == ["a.txt", f"{tmp_path.name}/a.txt"]


@pytest.mark.parametrize("pack", [lambda data: data, zstandard.compress], ids=["plain", "zst"])
def test_stdin_holds_json_lines_when_it_begins_like_them(stdin, pack) -> None:
    stdin(pack(b'{"text": "one\\n\\ntwo"}\n'))
    assert texts("-") == ["one\n\ntwo"]
    stdin(pack(b"one\n\ntwo\n"))
    assert list(read_passages(["-"])) == [Passage("stdin", "one"), Passage("stdin", "two", continues=True)]
    stdin(pack(b"{one}\n"))
    assert texts("-", cutting=Cutting(format="text")) == ["{one}"]


def test_a_file_named_outright_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("one")
    (tmp_path / "dump.ndjson").write_text('{"text": "two"}')
    assert texts(tmp_path / "README", tmp_path / "dump.ndjson") == ["one", "two"]


def test_empty_sources_hold_nothing(tmp_path: Path, stdin) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "a.jsonl").touch()
    stdin(b"")
    assert texts(tmp_path / "a.txt", tmp_path / "a.jsonl", "-") == []


def test_python_documents_itself() -> None:
    documents = {passage.source: passage.text for passage in read_passages(["python-docs"])}
    assert documents["python-docs/modules/textwrap"].startswith("Text wrapping and filling.")
    with pytest.raises(UsageError, match="nonsense"):
        list(read_passages(["python-docs:nonsense"]))


def test_what_is_not_there_is_said_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(InputError, match=r"b\.txt: no such file"):
        read_passages([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: this folder holds no \.txt"):
        read_passages([str(tmp_path / "empty")])
    with pytest.raises(UsageError, match="stdin is named twice"):
        read_passages(["-", "-"])
    with pytest.raises(UsageError, match="without a name"):
        read_passages([""])


# zstd


def test_frames_in_a_row_are_one_text(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"  # zstd by its bytes, not by its name
    file.write_bytes(zstandard.compress(b"one\n\nt") + zstandard.compress(b"wo\n"))
    assert texts(file) == ["one", "two"]


@pytest.mark.parametrize("kept", [6, 0.5, -1])
def test_a_cut_zstd_file_is_no_shorter_text(tmp_path: Path, kept: float) -> None:
    data = zstandard.compress("\n".join(map(str, range(5000))).encode())
    file = tmp_path / "a.txt.zst"
    file.write_bytes(data[: int(kept * len(data))] if kept == 0.5 else data[: int(kept)])
    assert "stops before its end" in error_of(file)


def test_damaged_and_mislabelled_zstd(tmp_path: Path) -> None:
    file = tmp_path / "a.txt.zst"
    file.write_bytes(b"\x28\xb5\x2f\xfd" + b"\xff" * 40)
    assert "damaged zstd data" in error_of(file)
    file.write_bytes(b"plain text")
    assert "no zstd data" in error_of(file)


def test_reading_text_loads_no_torch() -> None:
    code = (
        "import sys, nxtools.subject.text; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
