"""What every nx-* command does alike. New commands are found by themselves."""

from __future__ import annotations

import array
import fcntl
import importlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import tomllib
from pathlib import Path
from typing import Any

import click
import orjson
import pytest
from conftest import ROOT, UNITS, Run

from nxtools.commands import names
from nxtools.commands._base import EXIT_CODES, NxCommand
from nxtools.stream import dump

Record = dict[str, Any]

COMMANDS: dict[str, NxCommand] = {
    f"nx-{name}": importlib.import_module(f"nxtools.commands.{name}").main for name in names()
}
TAKES_UNITS = [name for name, made in COMMANDS.items() if made.takes.startswith("unit lines")]
TAKES_LINES = [name for name, made in COMMANDS.items() if re.match(r"(unit|recording) lines", made.takes)]
PAID = [name for name in TAKES_UNITS if name != "nx-directions"]  # they ask questions
SEVERAL_JOBS = [name for name in TAKES_UNITS if "jobs" in COMMANDS[name].options()]

EVERY = pytest.mark.parametrize("name", COMMANDS)
EVERY_OF_LINES = pytest.mark.parametrize("name", TAKES_LINES)
EVERY_OF_UNITS = pytest.mark.parametrize("name", TAKES_UNITS)


@pytest.fixture
def explained(units: list[Record]) -> list[Record]:
    """Our units with a pattern that somebody typed, and fields that no command knows."""
    return [
        unit
        | {
            "x-unit": {"deep": [1, 2.5, None, "\ufffd"]},
            "unit": unit["unit"] | {"x-name": "n"},
            "explanations": [
                {"id": "typed", "text": '" not" (8); " the" (2)', "by": {"explainer": "person"}, "x": 1}
            ],
        }
        for unit in units
    ]


def lines(records: list[Record]) -> bytes:
    return b"".join(map(dump, records))


def read(data: bytes) -> list[Record]:
    return [orjson.loads(line) for line in data.splitlines()]


def holds(found: Any, given: Any) -> bool:
    """Whether all that was given is in what was found, which may have more."""
    if isinstance(given, dict):
        return isinstance(found, dict) and all(
            key in found and holds(found[key], given[key]) for key in given
        )
    if isinstance(given, list) and given and isinstance(given[0], dict):
        return isinstance(found, list) and all(any(holds(f, g) for f in found) for g in given)
    return bool(found == given)


def test_the_commands_are_found() -> None:
    assert {"nx-record", "nx-top", "nx-explain", "nx-simulate", "nx-score", "nx-cache"} <= set(COMMANDS)
    assert {"nx-explain", "nx-simulate", "nx-score"} <= set(TAKES_UNITS)
    assert "nx-top" in TAKES_LINES and "nx-explain" in SEVERAL_JOBS


# Help and pages


@EVERY
def test_help_has_examples_records_and_exit_codes(run: Run, name: str) -> None:
    done = run(name, "-h")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    examples = text.partition("\nExamples:\n")[2].partition("\nExit status:\n")[0].strip().splitlines()
    assert len(examples) >= 2
    assert all(name in example for example in examples)
    assert re.search(r"\nRecords:\n  in   \S.*\n(?:.*\n)*?  out  \S", text)
    assert " ".join(text.partition("\nExit status:\n")[2].split()) == EXIT_CODES


@EVERY
def test_numbers_have_a_range(name: str) -> None:
    """Anything is a seed; of nothing else there is less than none."""
    numbers = {
        option: made.type
        for option, made in COMMANDS[name].options().items()
        if isinstance(made.type, type(click.INT) | type(click.FLOAT)) and option != "seed"
    }
    ranges = {o: kind for o, kind in numbers.items() if isinstance(kind, click.IntRange | click.FloatRange)}
    assert ranges == numbers and all((kind.min or 0) >= 0 for kind in ranges.values())


@EVERY
def test_help_loads_nothing_heavy(run: Run, name: str) -> None:
    heavy = (
        "torch",
        "transformers",
        "tokenizers",
        "numpy",
        "openai",
        "llama_cpp",
        "joblib",
        "sqlite3",
        "zstandard",
    )
    program = f"""
import sys
sys.argv = ["{name}", "-h"]
from nxtools.commands.{name.removeprefix("nx-")} import main
try:
    main()
finally:
    print("loaded", *sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)
"""
    done = run(sys.executable, "-c", program, env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, b"loaded\n")


@EVERY
def test_version(run: Run, name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert run(name, "--version").stdout.decode() == f"{name}, nxtools {version}\n"


@EVERY
def test_there_is_a_program_in_bin_and_one_that_pip_installs(name: str) -> None:
    assert (ROOT / "bin" / name).resolve() == ROOT / "bin" / "run"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"][name] == f"nxtools.commands.{name.removeprefix('nx-')}:main"


@EVERY
def test_the_readme_has_it_in_its_table(name: str) -> None:
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert any(f"[{name}](docs/commands/{name}.md)" in row for row in rows)


def described_options(command: click.Command) -> list[str]:
    own = [
        next((o for o in param.opts if o.startswith("--")), param.opts[0])
        for param in command.params
        if isinstance(param, click.Option) and param.expose_value
    ]
    if isinstance(command, click.Group):
        own += [option for inner in command.commands.values() for option in described_options(inner)]
    return own


@EVERY
def test_its_page_describes_every_option(name: str) -> None:
    pages = ROOT / "docs" / "commands"
    page = (pages / f"{name}.md").read_text(encoding="utf-8")
    shared = (pages / "shared.md").read_text(encoding="utf-8") if "](shared.md)" in page else ""
    missing = [
        option
        for option in described_options(COMMANDS[name])
        if not re.search(rf"(?<![-\w]){re.escape(option)}(?![-\w])", page + shared)
    ]
    assert missing == []


# Lines in, lines out


@EVERY_OF_LINES
def test_empty_in_empty_out(run: Run, name: str) -> None:
    done = run(name)
    assert (done.returncode, done.stdout) == (0, b"")


@EVERY_OF_UNITS
def test_whatever_came_in_goes_out_with_more_on_it(run: Run, name: str, explained: list[Record]) -> None:
    done = run(name, stdin=lines(explained))
    assert done.returncode == 0, done.stderr
    found = read(done.stdout)
    assert len(found) == len(explained)
    for out, given in zip(found, explained, strict=True):
        assert holds(out, given)
    assert found != explained


@EVERY_OF_UNITS
def test_a_unit_does_not_depend_on_the_units_around_it(run: Run, name: str, explained: list[Record]) -> None:
    together = read(run(name, "--no-cache", stdin=lines(explained)).stdout)
    alone = [read(run(name, "--no-cache", stdin=lines([unit])).stdout)[0] for unit in explained]
    for record in together + alone:
        record.pop("baselines", None)  # the null is made of the unit before
    assert together == alone


@EVERY_OF_UNITS
def test_error_records_pass(run: Run, name: str, explained: list[Record]) -> None:
    error = {"stage": "record", "kind": "non-finite", "message": "3 activations are not finite"}
    broken = explained[0] | {"error": error}
    missing = explained[1] | {"explanations": [{"by": {"explainer": "somebody"}, "error": error}]}
    done = run(name, stdin=lines([broken, missing]))
    assert done.returncode == 0, done.stderr
    found = read(done.stdout)
    assert found[0]["error"] == error
    assert any(each.get("error") == error for each in found[1]["explanations"])
    assert found[0].keys() == broken.keys(), "nothing was tried where nothing can be done"


@EVERY_OF_UNITS
def test_a_second_run_is_free_and_the_same(run: Run, name: str, explained: list[Record]) -> None:
    first = run(name, stdin=lines(explained))
    second = run(name, "--offline", stdin=lines(explained))
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout == second.stdout


@pytest.mark.parametrize("name", PAID)
def test_answers_that_fail_set_the_exit_status(run: Run, name: str, explained: list[Record]) -> None:
    done = run(name, "--offline", stdin=lines(explained))
    assert done.returncode == 1
    assert len(read(done.stdout)) == len(explained)
    assert b'"kind":"offline"' in done.stdout
    for admitted, status in (("100%", 0), ("99.5%", 1), ("1000", 0), ("0", 1)):
        assert run(name, "--offline", "--allow-errors", admitted, stdin=lines(explained)).returncode == status


@pytest.mark.parametrize("name", PAID)
def test_a_stage_retries_its_own_errors(run: Run, name: str, explained: list[Record]) -> None:
    failed = run(name, "--offline", "-q", stdin=lines(explained))
    assert b'"error"' in failed.stdout
    again = run(name, "-q", stdin=failed.stdout)
    assert (again.returncode, again.stderr) == (0, b"")
    assert read(again.stdout) == read(run(name, "-q", stdin=lines(explained)).stdout)


@pytest.mark.parametrize("name", SEVERAL_JOBS)
def test_any_number_of_jobs_gives_the_same_bytes(run: Run, name: str, explained: list[Record]) -> None:
    one, many = (run(name, "--no-cache", "--jobs", jobs, stdin=lines(explained)) for jobs in (1, 3))
    assert (one.returncode, many.returncode) == (0, 0)
    assert one.stdout == many.stdout


@EVERY_OF_UNITS
def test_output_may_be_a_file_and_compressed(run: Run, name: str, explained: list[Record]) -> None:
    done = run(name, "-q", "-o", "out.jsonl.zst", stdin=lines(explained))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    piped = run(f"{name} -q out.jsonl.zst | {name} -q", stdin=b"")
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert len(read(piped.stdout)) == len(explained)


# Lines that cannot be read

GOOD: dict[str, bytes] = {
    "unit": dump(
        {
            "kind": "unit",
            "v": 1,
            "unit": {"layer": 0, "index": 1},
            "excerpts": [],
            "error": {"stage": "record"},
        }
    ),
}
BAD: dict[str, tuple[bytes, str]] = {
    "no JSON": (b'{"kind":', "not JSON"),
    "another kind": (b'{"kind":"other","v":1}', "this line is of kind 'other'"),
    "no kind": (b"{}", "this line is without a 'kind'"),
    "a newer version": (b'{"kind":"KIND","v":2}', "the field 'v' is 2"),
    "no fields": (b'{"kind":"KIND","v":1}', "is missing"),
    "a wrong type": (b'{"kind":"unit","v":1,"unit":{"layer":"0"}}', "the field 'unit.layer' is a string"),
}


@pytest.mark.parametrize("what", BAD)
@EVERY_OF_LINES
def test_a_line_that_cannot_be_read_is_named(run: Run, name: str, what: str) -> None:
    kind = COMMANDS[name].takes.split()[0]
    line, message = BAD[what]
    if what == "a wrong type" and kind != "unit":
        line, message = b'{"kind":"recording","v":1,"run":7}', "the field 'run' is an integer"
    done = run(
        f"cat > bad.jsonl; {name} bad.jsonl", stdin=b"\n" + line.replace(b"KIND", kind.encode()) + b"\n"
    )
    assert done.returncode == 3
    assert done.stdout == b""
    said = done.stderr.decode()
    assert said.startswith(f"{name}: bad.jsonl:2: ") and message in said
    assert said.count("\n") == 1 and "Traceback" not in said


@EVERY_OF_UNITS
def test_keep_going_skips_counts_and_exits_1(run: Run, name: str) -> None:
    bad = [line.replace(b"KIND", b"unit") + b"\n" for line, _ in BAD.values()]
    stream = GOOD["unit"] + b"".join(bad) + GOOD["unit"]
    done = run(name, "--keep-going", stdin=stream)
    assert done.returncode == 1
    assert len(read(done.stdout)) == 2
    said = done.stderr.decode().splitlines()
    assert [line.split(": ")[1] for line in said if line.endswith("; skipped")] == [
        f"stdin:{number}" for number in range(2, 2 + len(bad))
    ]
    assert run(name, "--keep-going", "--allow-errors", len(bad), stdin=stream).returncode == 0


@pytest.mark.parametrize("name", [name for name in TAKES_LINES if name not in TAKES_UNITS])
def test_keep_going_counts_other_lines_too(run: Run, name: str) -> None:
    done = run(name, "--keep-going", stdin=b"{}\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"stdin:1" in done.stderr


@EVERY_OF_UNITS
def test_units_before_a_bad_line_come_out(run: Run, name: str) -> None:
    done = run(name, stdin=GOOD["unit"] * 3 + b"{\n" + GOOD["unit"])
    assert done.returncode == 3
    assert len(read(done.stdout)) == 3
    assert b"stdin:4" in done.stderr


EXCERPT_FAULTS = {
    "no set": {"set": None},
    "activations that are none": {"activations": 3},
    "a value that is none": {"activations": ["much"] * 8},
    "ids that are none": {"ids": [0.5] * 8},
    "tokens that are none": {"tokens": [1] * 8, "ids": None},
    "too few tokens": {"tokens": ["a"]},
}


@pytest.mark.parametrize("fault", EXCERPT_FAULTS)
@EVERY_OF_UNITS
def test_excerpts_that_cannot_be_read_are_named(
    run: Run, name: str, fault: str, explained: list[Record]
) -> None:
    spoiled = explained[0] | {
        "excerpts": [excerpt | EXCERPT_FAULTS[fault] for excerpt in explained[0]["excerpts"]]
    }
    done = run(name, stdin=lines([spoiled]))
    assert done.returncode == 3, done.stderr
    assert re.match(
        rf"{name}: stdin:1: .*{next(iter(EXCERPT_FAULTS[fault])).rstrip('s')}", done.stderr.decode()
    )


# Usage


@EVERY
def test_usage_errors_are_one_line_and_exit_2(run: Run, name: str) -> None:
    wrong = [["--no-such-option"]]
    if name in TAKES_LINES:
        wrong += [["--allow-errors", "many"], ["--no-cache", "--offline"], ["--cache"]]
    for options in wrong:
        done = run(name, *options)
        assert (done.returncode, done.stdout) == (2, b""), options
        assert done.stderr.startswith(name.encode()) and done.stderr.count(b"\n") == 1


@EVERY_OF_LINES
def test_a_terminal_and_nothing_named_is_help_and_2(run: Run, name: str) -> None:
    ours, theirs = pty.openpty()
    done = run(name, stdin=theirs)
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(f"Usage: {name} ".encode())


# Ends


@EVERY
def test_help_for_a_reader_that_left_or_a_full_disk(run: Run, name: str) -> None:
    assert run(f"{name} -h | true").returncode == 0
    full = run(f"{name} -h > /dev/full")
    assert full.returncode == 3
    assert full.stderr.decode() == f"{name}: stdout: cannot be written: No space left on device\n"


@EVERY_OF_UNITS
def test_a_reader_that_leaves_early_is_no_error(run: Run, name: str) -> None:
    done = run(f"{name} -q | head -1 | wc -l", stdin=GOOD["unit"] * 20_000)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"1", b"")


@EVERY_OF_UNITS
def test_a_full_disk_is_said(run: Run, name: str) -> None:
    done = run(f"{name} -q > /dev/full", stdin=GOOD["unit"])
    assert done.returncode == 3
    assert done.stderr.decode() == f"{name}: stdout: cannot be written: No space left on device\n"


@EVERY_OF_UNITS
def test_closed_ends(run: Run, name: str) -> None:
    done = run(f"{name} <&-")
    assert (done.returncode, done.stderr.split(b" (")[0]) == (3, f"{name}: stdin: is closed".encode())
    done = run(f"{name} >&-", stdin=GOOD["unit"])
    assert (done.returncode, done.stderr.split(b" (")[0]) == (3, f"{name}: stdout: is closed".encode())
    done = run(f"{name} 2>&-", stdin=GOOD["unit"])
    assert (done.returncode, done.stdout) == (0, GOOD["unit"])


@pytest.mark.parametrize("name", [name for name, made in COMMANDS.items() if made.gives.startswith("none")])
def test_text_for_people_ends_as_lines_do(run: Run, name: str) -> None:
    full = run(f"{name} > /dev/full")
    assert full.returncode == 3
    assert full.stderr.decode() == f"{name}: stdout: cannot be written: No space left on device\n"
    gone = run(f"{name} | exec 0<&- sleep 1")
    assert (gone.returncode, gone.stderr) == (0, b"")


def unread(end: int) -> int:
    """Bytes that wait in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(end, termios.FIONREAD, count)
    return count[0]


@EVERY_OF_LINES
def test_a_line_is_answered_before_the_next_one_comes_and_ctrl_c_is_130(
    environment: dict[str, str], tmp_path: Path, explained: list[Record], name: str
) -> None:
    """With all its processes, as a terminal interrupts them; several jobs where there can be."""
    process = subprocess.Popen(
        [name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"NXTOOLS_JOBS": "2"},
        cwd=tmp_path,
        start_new_session=True,
        # Shells have their background jobs ignore it, and this may run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdin and process.stdout
    process.stdin.write(lines(explained[1:2]) if name in TAKES_UNITS else b"\n")
    process.stdin.flush()
    if name in TAKES_UNITS:
        assert select.select([process.stdout], [], [], 30)[0], "the answer waits for more input"
    while unread(process.stdin.fileno()):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.decode().splitlines()[-1].startswith(f"{name}: interrupted")
    assert b"Traceback" not in err
    assert out.count(b"\n") == (1 if name in TAKES_UNITS else 0)


# Terminals


@EVERY_OF_UNITS
def test_stderr_has_plain_lines_and_quiet_has_none(run: Run, name: str) -> None:
    done = run(name, UNITS)
    assert done.returncode == 0
    assert done.stderr.endswith(b"\n") and b"\r" not in done.stderr and b"\x1b" not in done.stderr
    assert all(line.startswith(f"{name}: ") for line in done.stderr.decode().splitlines())
    assert run(name, "-q", UNITS).stderr == b""
