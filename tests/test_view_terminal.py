"""nx-view --unit: units in a terminal, 80 columns wide, with and without colours."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import UNITS, Run
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from viewed import everything, lines, unit

from nxtools.errors import InputError
from nxtools.pattern.lexicon import Lexicon
from nxtools.records import check_unit
from nxtools.stream import dump
from nxtools.view.bars import Axis, histogram
from nxtools.view.finding import Search, Wanted
from nxtools.view.heat import CUT, DARK, LEVELS, LIGHT, Heat, around, level, luminance
from nxtools.view.heat import lines as broken
from nxtools.view.model import page, row
from nxtools.view.simulated import simulate_patterns
from nxtools.view.terminal import drawn
from nxtools.view.visible import readable, visible

Record = dict[str, Any]

COLOURED = {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color", "COLUMNS": "80"}
PLAIN = {"NO_COLOR": "1", "COLUMNS": "80"}
STYLES = re.compile(r"\x1b\[[0-9;]*m")
# Nothing of these ever reaches a terminal: controls, bidi marks and zero widths, line separators, halves.
UNSAFE = {"Cc", "Cf", "Zl", "Zp", "Cs"}


def unsafe(text: str) -> set[str]:
    return {c for c in STYLES.sub("", text) if c != "\n" and unicodedata.category(c) in UNSAFE}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("units") / "units.jsonl"
    path.write_bytes(b"".join(map(dump, lines())))
    return path


def shown(record: Record, monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name in (*COLOURED, *PLAIN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return drawn(page(record))


# Tokens


@given(st.text())
def test_what_does_something_to_a_terminal_becomes_a_sign(text: str) -> None:
    for made in (visible(text), readable(text)):
        assert unsafe(made) == set() and "\n" not in made and "\x1b" not in made


@pytest.mark.parametrize(
    ("token", "sign"),
    [
        (" not", " not"),
        ("\n", "↵"),
        ("\t\t", "⇥⇥"),
        ("  ", "␣␣"),
        ("\x1b[31m", "␛[31m"),
        ("\u202ereversed", "⟨U+202E⟩reversed"),
        ("\u0301x", "◌\u0301x"),
        ("\xa0", "⍽"),
        ("", ""),
        ("\ufffd", "\ufffd"),
    ],
)
def test_tokens_are_seen(token: str, sign: str) -> None:
    assert visible(token) == sign


@given(st.lists(st.floats(-2, 2) | st.none(), min_size=1))
def test_without_colours_strong_tokens_carry_the_tenths_that_colours_would_show(
    values: list[float | None],
) -> None:
    tokens = ["x"] * len(values)
    plain, coloured = Heat(None, 2.0).pieces(tokens, values), Heat(DARK, 2.0).pieces(tokens, values)
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    for one, other in zip(plain, coloured, strict=True):
        assert one.level == other.level and other.text == "x"
        marked = one.text.translate(digits).removeprefix("‹x›")
        assert (int(marked) if one.text != "x" else 0) == (one.level if abs(one.level) > 1 else 0)


@pytest.mark.parametrize("palette", [DARK, LIGHT])
def test_every_colour_is_readable_and_strength_goes_one_way(palette: Any) -> None:
    """Contrast of 4.5 to 1 (WCAG 2 AA) for text of every level."""
    for side in (1, -1):
        backgrounds = [luminance(palette.background(side * step / LEVELS)) for step in range(LEVELS + 1)]
        assert backgrounds == sorted(backgrounds, reverse=palette is LIGHT)
        for step in range(1, LEVELS + 1):
            style = palette.style(side * step / LEVELS)
            inks = (luminance(tuple(style.color.triplet)), luminance(tuple(style.bgcolor.triplet)))
            assert (max(inks) + 0.05) / (min(inks) + 0.05) >= 4.5


def test_levels_are_tenths_of_the_scale() -> None:
    assert [level(v, 4.0) for v in (4.0, 2.0, 0.1, 0, None, -4, -0.5, 99, float("nan"))] == [
        10, 5, 0, 0, 0, -10, -1, 10, 0,
    ]  # fmt: skip
    assert level(1.0, 0.0) == 0


@given(st.lists(st.integers(1, 12), min_size=1, max_size=60), st.data())
def test_a_window_has_the_peak_and_fits(widths: list[int], data: st.DataObject) -> None:
    peak = data.draw(st.integers(0, len(widths) - 1))
    begin, end = around(widths, peak, 20, 2)
    assert begin <= peak < end
    cut = [CUT.width] * (begin > 0), [CUT.width] * (end < len(widths))
    shown = [*cut[0], *widths[begin:end], *cut[1]]
    rows = broken(shown, 20)
    assert len(rows) <= 2 and all(sum(shown[a:b]) <= 20 for a, b in rows)
    assert [place for a, b in rows for place in range(a, b)] == list(range(len(shown)))
    if sum(widths) <= 20:
        assert (begin, end) == (0, len(widths))


# Drawings


def test_intervals_stand_on_their_axis() -> None:
    axis = Axis.of_scores([0.2, -0.3], 16)
    assert axis.left == -0.5
    assert axis.interval(0.5, 0.0, 1.0) == "     ├────●────┤"
    assert axis.interval(-0.5, None, None) == "●    ┊"
    assert Axis(-0.5, 1.0, 31).labels() == "-0.5      0        0.5        1"


def test_a_single_excerpt_is_seen_in_a_histogram() -> None:
    """Heights are logarithms: 1 of 10,000 is not lost."""
    assert histogram([0, 1, 99, 9_999], 2) == ["      ██", "  ▁▁████"]


# Units


def test_no_line_is_wider_than_eighty_columns_and_nothing_unsafe_is_printed(made: Path, run: Run) -> None:
    names = ["--unit", "0:0", "--unit", "0:1", "--unit", "0:2", "--unit", "0:4", "--unit", "1:7"]
    coloured = run("nx-view", *names, made, env=COLOURED).stdout.decode()
    plain = run("nx-view", *names, made, env=PLAIN).stdout.decode()
    assert "\x1b" not in plain and "\x1b[" in coloured
    for text in (plain, coloured):
        assert unsafe(text) == set()
        assert text.count("Unit ") == 5
        for line in STYLES.sub("", text).splitlines():
            assert cell_len(line) <= 80 and line == line.rstrip()


def test_whatever_tokens_are_the_drawing_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.text(max_size=40), min_size=12, max_size=12))
    def check(tokens: list[str]) -> None:
        record = unit(0, 1, " not")
        record["excerpts"][0]["tokens"] = tokens
        for environment in (PLAIN, COLOURED):
            text = shown(record, monkeypatch, **environment)
            assert unsafe(text) == set()
            assert max(cell_len(line) for line in STYLES.sub("", text).splitlines()) <= 80

    check()


def test_all_that_a_line_has_is_shown_and_what_it_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shown(everything(unit(1, 7, " not", sign="+-")), monkeypatch, **PLAIN)
    for part in (
        "Explanation 1 of 2 by person",
        "Revised: version 1 stands. validation rose from 0.75 to 0.8",
        "Bottom, evidence",
        "Spread over strengths, evidence",
        "promotes          not +2.5",
        "downstream: absent, there is no layer behind it",
    ):
        assert part in whole
    bare = unit(0, 1, " not")
    for name in ("stats", "explanations", "recorded"):
        del bare[name]
    bare["excerpts"] = []
    said = shown(bare, monkeypatch, **PLAIN).partition("Not there")[2]
    for part in ("nx-explain", "nx-score", "nx-connect", "nx-top", "nx-revise", "nx-simulate"):
        assert part in said


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a record; of arrays, in their first two."""
    inside = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    )
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


WHOLE = everything(unit(1, 7, " not", sign="+-"))


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(list(places(WHOLE))),
    st.sampled_from([None, 0, -1, 1e300, True, "x", [], ["x"], [[1]], {}, {"a": 1}]),
)
def test_whatever_stands_on_a_line_is_shown_or_refused(path: tuple[Any, ...], value: Any) -> None:
    record = orjson.loads(dump(WHOLE))
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with contextlib.suppress(InputError):
        check_unit(record)
        row(record)
        simulate_patterns(record, lambda unit: Lexicon(unit.vocabulary))
        assert unsafe(drawn(page(record))) == set()


def test_a_unit_is_found_without_reading_the_others(made: Path, run: Run, tmp_path: Path) -> None:
    """Lines of other units may even be broken behind their first bytes; those that must be read may not."""
    whole = made.read_bytes().splitlines(keepends=True)
    cut = [line[: len(line) // 2] + b"\n" if place != 45 else line for place, line in enumerate(whole)]
    (tmp_path / "broken.jsonl").write_bytes(b"".join(cut))
    assert b"Unit 1:5 " in run("nx-view", "--unit", "1:5", tmp_path / "broken.jsonl").stdout
    one = run("nx-view", "--best", "1", tmp_path / "broken.jsonl")
    assert (one.returncode, one.stdout) == (3, b"")
    assert b"broken.jsonl:1: not JSON" in one.stderr


def test_lines_that_others_wrote_are_found_too(made: Path, run: Run) -> None:
    """With blanks, or with fields in another order."""
    done = run(f"python3 -m json.tool --json-lines --no-indent --sort-keys {made} | nx-view --unit 2:3 -")
    assert done.returncode == 0 and b"Unit 2:3 " in done.stdout


def test_units_of_one_name_are_all_shown_or_told_apart_by_site(tmp_path: Path) -> None:
    records = [unit(0, 1, " not"), unit(0, 1, " if"), unit(0, 2, " not")]
    records[1]["unit"]["site"] = "layers.0/sae"
    records[1]["unit"]["fingerprint"] = "sha256:0123456789"
    path = tmp_path / "two.jsonl"
    path.write_bytes(b"".join(map(dump, records)))

    def places(name: str) -> list[str]:
        (found,) = Search([str(path)]).named([Wanted.parse(name)]).values()
        return [where.rpartition(":")[2] for where, _ in found]

    assert places("0:1") == ["1", "2"]
    assert places("layers.0/sae/0:1") == ["2"]
    assert places("23456789/layers.0/sae/0:1") == ["2"]
    assert places("mlp/0:1") == ["1"]
    assert places("1:1") == []


def test_best_and_worst_are_those_of_the_scores(run: Run, tmp_path: Path) -> None:
    done = run(f"nx-explain -q {UNITS} | nx-score -q --baselines none > scored.jsonl; echo $?")
    assert done.stdout == b"0\n", done.stderr
    scored = (tmp_path / "here" / "scored.jsonl").read_bytes().splitlines()
    value = {}
    for line in map(orjson.loads, scored):
        for told in line.get("explanations", [])[:1]:
            value[f"{line['unit']['layer']}:{line['unit']['index']}"] = told["scores"][0]["top_and_random"]
    ranked = sorted(value, key=lambda name: value[name])
    for option, names in (("--best", ranked[::-1]), ("--worst", ranked)):
        text = run("nx-view", option, "9", "scored.jsonl").stdout.decode()
        assert re.findall(r"^Unit (\S+)", text, re.MULTILINE) == names


def test_random_units_are_all_drawn_sooner_or_later(made: Path) -> None:
    draws = [{where for where, _ in Search([str(made)]).drawn(100)} for _ in range(20)]
    assert {len(drawn) for drawn in draws} == {100}
    assert len(set.union(*draws)) == 120  # each stays away with 1/6 to the 20th
    assert len(set(map(frozenset, draws))) > 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--unit", "9:9"], 3, "there is no unit 9:9 (layers with units: 0, 1, 2)"),
        (["--unit", "nine"], 2, "--unit takes LAYER:INDEX, not 'nine'"),
        (["--unit", "0:3", "--best", "1"], 2, "--unit and --best exclude each other"),
        (["--unit", "0:3", "--serve"], 2, "--serve and --unit exclude each other"),
        (["--unit", "0:3", "--title", "x"], 2, "--title goes with a report, not with --unit"),
        (["--light"], 2, "--light goes with --unit, --best, --worst or --random"),
        (["--best", "1", "/dev/null"], 3, "no unit has a score"),
    ],
)
def test_what_makes_no_sense_is_said(
    made: Path, run: Run, arguments: list[str], status: int, said: str
) -> None:
    done = run("nx-view", *arguments, *([] if "/dev/null" in arguments else [made]))
    assert (done.returncode, done.stdout) == (status, b"")
    assert said in done.stderr.decode()


def test_a_unit_that_cannot_be_shown_says_where_it_stands(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(dump(unit(0, 3, " not") | {"excerpts": [{"set": "evidence", "pick": "top"}]}))
    done = run("nx-view", "--unit", "0:3", broken)
    assert done.returncode == 3
    assert done.stderr.decode().startswith(f"nx-view: {broken}:1: an excerpt (evidence top): 'tokens' is")


def test_units_that_are_there_come_before_the_complaint_about_others(made: Path, run: Run) -> None:
    done = run("nx-view", "--unit", "9:9", "--unit", "0:5", made)
    assert done.returncode == 3 and b"Unit 0:5 " in done.stdout


def test_on_a_terminal_there_are_colours_and_its_width(made: Path, environment: dict[str, str]) -> None:
    """On a pseudo-terminal 60 columns wide; NO_COLOR leaves marks in the place of colours."""
    for extra in ({}, {"NO_COLOR": "1"}):
        text = on_terminal(
            ["nx-view", "--unit", "1:5", str(made)], environment | {"TERM": "xterm-256color"} | extra
        )
        assert ("\x1b[38;5;" in text or "\x1b[48;5;" in text) == (not extra)
        assert ("‹" in text) == bool(extra)
        assert max(cell_len(line) for line in STYLES.sub("", text).splitlines()) == 60


def on_terminal(command: list[str], environment: dict[str, str]) -> str:
    kept = {
        key: value for key, value in environment.items() if key not in ("COLUMNS", "NO_COLOR", "COLORTERM")
    }
    child, master = pty.fork()
    if child == 0:
        os.execvpe(
            "bash", ["bash", "-c", 'stty cols 60 rows 30; exec "$@"', "bash", *command], kept | environment
        )
    text = b""
    while True:
        try:
            got = os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        if not got:
            break
        text += got
    os.waitpid(child, 0)
    os.close(master)
    return text.decode().replace("\r\n", "\n")
