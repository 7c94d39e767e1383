"""Python's own documentation as text: by name, in order, and split once and for all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nxtools.errors import InputError, UsageError
from nxtools.subject.pydoc import documents, is_held_out, library_state

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def everything() -> list[tuple[str, str]]:
    return list(documents())


@pytest.fixture(scope="module")
def held_out() -> list[tuple[str, str]]:
    return list(documents("held-out"))


def test_it_is_the_same_every_time(everything: list[tuple[str, str]]) -> None:
    assert list(documents()) == everything


def test_topics_come_first_then_modules_each_by_name(everything: list[tuple[str, str]]) -> None:
    names = [name for name, _ in everything]
    topics = [name for name in names if name.startswith("topics/")]
    modules = [name for name in names if name.startswith("modules/")]
    assert topics and modules
    assert names == sorted(topics) + sorted(modules)


def test_the_parts_are_the_whole(everything: list[tuple[str, str]], held_out: list[tuple[str, str]]) -> None:
    train = list(documents("train"))
    assert not set(train) & set(held_out)
    assert sorted(train + held_out) == sorted(everything)


def test_a_fifth_is_held_out(everything: list[tuple[str, str]], held_out: list[tuple[str, str]]) -> None:
    assert 0.15 < len(held_out) / len(everything) < 0.25
    assert 0.1 < sum(len(text) for _, text in held_out) / sum(len(text) for _, text in everything) < 0.3


def test_the_side_of_a_document_is_fixed() -> None:
    """The sample subject has learned the one side: were they to move, it would have seen the other."""
    learned = [
        "modules/argparse",
        "modules/json",
        "modules/random",
        "topics/assert",
        "topics/for",
        "topics/if",
    ]
    held_out = ["modules/csv", "modules/os", "modules/textwrap", "topics/compound", "topics/integers"]
    assert [name for name in learned + held_out if is_held_out(name)] == held_out


def test_equal_texts_come_once(everything: list[tuple[str, str]]) -> None:
    texts = [text for _, text in everything]
    assert len(set(texts)) == len(texts)


def test_what_people_know_is_there(everything: list[tuple[str, str]]) -> None:
    by_name = dict(everything)
    assert 'The "assert" statement' in by_name["topics/assert"]
    assert "JSON (JavaScript Object Notation)" in by_name["modules/json"]
    assert "Implementation of JSONEncoder" in by_name["modules/json.encoder"]
    assert not any("test" in name.split(".") or "idlelib" in name for name in by_name)


def library_of(folder: Path, **sources: str) -> Path:
    for name, source in sources.items():
        folder.joinpath(f"{name}.py").write_text(source, encoding="utf-8")
    return folder


def modules_of(library: Path) -> dict[str, str]:
    return {name: text for name, text in documents(library=library) if name.startswith("modules/")}


def test_docstrings_of_a_module_in_the_order_of_its_source(tmp_path: Path) -> None:
    source = '''
"""A shop."""
class Shop:
    """Sells things."""
    def open(self):
        """Unlock the door."""
        if self.cold:
            def heat():
                """Light the stove."""
    async def close(self):
        """Lock
           it."""
def visit(): "Go in."
def silent(): return "no docstring"
'''
    library = library_of(tmp_path, shop=source)
    docstrings = ["A shop.", "Sells things.", "Unlock the door.", "Light the stove.", "Lock\nit.", "Go in."]
    assert modules_of(library) == {"modules/shop": "\n\n".join(docstrings) + "\n"}


def test_source_is_read_and_never_run(tmp_path: Path) -> None:
    library = library_of(tmp_path, bomb='"""Boom."""\nraise SystemExit("it was run")\n')
    assert modules_of(library) == {"modules/bomb": "Boom.\n"}


def test_tests_and_other_peoples_packages_are_left_out(tmp_path: Path) -> None:
    for name in ("test", "site-packages", "idlelib", "useful"):
        (tmp_path / name).mkdir()
        library_of(tmp_path / name, __init__=f'"""In {name}."""', part=f'"""Part of {name}."""')
    assert list(modules_of(tmp_path)) == ["modules/useful", "modules/useful.part"]


def test_a_file_that_does_not_parse_is_named_and_left_out(tmp_path: Path) -> None:
    library = library_of(tmp_path, good='"""Good."""', old='"""Old."""\nprint "two"\n')
    with pytest.warns(UserWarning, match=r"old\.py: left out"):
        assert modules_of(library) == {"modules/good": "Good.\n"}


def test_without_sources_the_topics_remain_and_it_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no Python source"):
        names = [name for name, _ in documents(library=tmp_path)]
    assert "topics/assert" in names
    assert all(name.startswith("topics/") for name in names)


def test_without_any_documentation_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.warns() as said, pytest.raises(InputError, match="text files instead"):
        list(documents(library=tmp_path))
    assert [str(warning.message).partition(":")[0] for warning in said] == [
        "this Python has no pydoc_data",
        f"no Python source in {tmp_path}",
    ]


def test_a_python_that_strips_docstrings_gives_the_same_text(everything: list[tuple[str, str]]) -> None:
    count = "from nxtools.subject.pydoc import documents; print(sum(len(t) for _, t in documents()))"
    run = [sys.executable, "-OO", "-c", count]
    stripped = subprocess.run(run, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert int(stripped.stdout) == sum(len(text) for _, text in everything)


def test_an_unknown_part_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no part 'test'"):
        documents("test")


def test_the_state_of_a_library_changes_with_its_sources(tmp_path: Path) -> None:
    module = tmp_path / "package" / "a.py"
    module.parent.mkdir()
    module.write_text('"""One."""')
    os.utime(module, (1, 1))
    states = [library_state(tmp_path)]
    assert library_state(tmp_path) == states[0]
    module.write_text('"""Two."""')
    states.append(library_state(tmp_path))
    (tmp_path / "b.py").symlink_to("nowhere.py")
    states.append(library_state(tmp_path))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.py").write_text("")  # no documentation
    assert library_state(tmp_path) == states[-1]
    assert len(set(states)) == 3
