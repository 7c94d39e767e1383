"""What the commands share: settings, exit status, one-line errors, progress on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import textwrap
from pathlib import Path

import orjson
import pytest
from conftest import ROOT, UNITS, Run

from nxtools.commands._base import allowed
from nxtools.errors import InputError, ModelError, NxError, OutputError, UsageError, WorkerError
from nxtools.stage import Counts


@pytest.fixture
def here(run: Run) -> Path:
    """The folder that commands are run in."""
    return Path(run("pwd").stdout.decode().strip())


# Where an option's value comes from


def store_of(run: Run, *words: str, env: dict[str, str] | None = None) -> str:
    """The folder that nx-cache was told to look at."""
    done = run("nx-cache", "--json", *words, env=env)
    assert done.returncode == 0, done.stderr
    return Path(orjson.loads(done.stdout)["path"]).name


def test_flags_go_before_variables_before_the_file_before_defaults(run: Run, here: Path) -> None:
    nothing = {"NXTOOLS_CACHE": "", "XDG_CACHE_HOME": "/nowhere"}
    assert store_of(run, env=nothing) == "nxtools"
    (here / "nxtools.toml").write_text('cache = "of-all"\n')
    assert store_of(run, env=nothing) == "of-all"
    (here / "nxtools.toml").write_text(
        'cache = "of-all"\n[nx-cache]\ncache = "of-one"\n[nx-top]\ncache = "of-top"\n'
    )
    assert store_of(run, env=nothing) == "of-one"
    assert store_of(run, env={"NXTOOLS_CACHE": "of-environment"}) == "of-environment"
    assert store_of(run, "--cache", "of-flag", env={"NXTOOLS_CACHE": "of-environment"}) == "of-flag"


def test_settings_are_named_as_options_are_typed(run: Run, here: Path) -> None:
    (here / "nxtools.toml").write_text("allow-errors = 3\nkeep_going = true\n[nx-score]\nliterals = 5\n")
    assert run("nx-score", stdin=b"{\n").returncode == 0
    assert run("nx-score", stdin=b"{\n", env={"NXTOOLS_ALLOW_ERRORS": "0"}).returncode == 1
    assert run("nx-score", "--allow-errors", "0", stdin=b"{\n").returncode == 1


def test_a_variable_that_is_no_option_changes_nothing(run: Run) -> None:
    for name in ("NXTOOLS_VERSION", "NXTOOLS_HELP"):
        assert run("nx-score", env={name: "1"}).stdout == b""


FILES = {
    "cache = ": "nxtools.toml: is not TOML: ",
    "sed = 1": "nxtools.toml: no command has an option 'sed' (did you mean 'seed'?)",
    "[nx-score]\nliteral = 1": "nxtools.toml: nx-score has no option 'literal' (did you mean 'literals'?)",
    "[score]\nliterals = 1": "nxtools.toml: there is no command 'score' (",
    "keep-going = 1": "nxtools.toml: 'keep-going' is an integer, not true or false",
    "cache = true": "nxtools.toml: 'cache' is true or false, not a string or an integer or a number",
    'cache = ["a"]': "nxtools.toml: 'cache' is an array, not a string or an integer or a number",
    "cache = 1979-05-27": "nxtools.toml: 'cache' is date, not a string or an integer or a number",
    '[nx-score]\nliterals = "many"': "nxtools.toml: Invalid value for '--literals': 'many' is not a valid",
    '[nx-score]\nbaselines = "some"': "nxtools.toml: Invalid value for '--baselines': 'some' is not one of",
}


@pytest.mark.parametrize("text", FILES)
def test_a_setting_that_fits_nothing_is_a_usage_error(run: Run, here: Path, text: str) -> None:
    (here / "nxtools.toml").write_text(text + "\n")
    done = run("nx-score")
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"nx-score: {FILES[text]}")
    assert done.stderr.count(b"\n") == 1


def test_the_settings_that_our_page_shows_are_accepted(run: Run, here: Path) -> None:
    page = (ROOT / "docs" / "commands" / "shared.md").read_text(encoding="utf-8")
    shown = re.search(r"in a table for one:\n\n((?:    .*\n|\n)+)", page)
    assert shown
    (here / "nxtools.toml").write_text(textwrap.dedent(shown[1]))
    done = run("nx-explain")
    assert done.returncode == 0, done.stderr


def test_what_other_commands_have_at_the_top_is_theirs(run: Run, here: Path) -> None:
    (here / "nxtools.toml").write_text("seed = 1\n[nx-explain]\nliterals = 5\nno-such-option = 1\n")
    assert run("nx-score").returncode == 0
    assert run("nx-explain").returncode == 2


def test_a_wrong_variable_is_named(run: Run) -> None:
    done = run("nx-score", env={"NXTOOLS_LITERALS": "many"})
    assert done.returncode == 2
    assert done.stderr.startswith(b"nx-score: NXTOOLS_LITERALS: Invalid value for '--literals': 'many'")


# Exit status


def test_every_error_has_its_status() -> None:
    statuses = {
        kind: kind.exit_status for kind in (UsageError, InputError, OutputError, ModelError, WorkerError)
    }
    assert list(statuses.values()) == [2, 3, 3, 4, 70]
    assert 1 not in {kind.exit_status for kind in NxError.__subclasses__()}, (
        "1 is for output that is complete"
    )


def test_an_error_is_what_is_wrong_where_and_what_to_do() -> None:
    assert str(InputError("is wrong")) == "is wrong"
    assert str(InputError("is wrong", where="a:3", hint="change it")) == "a:3: is wrong (change it)"


@pytest.mark.parametrize(
    ("text", "total", "admitted"), [("0", 9, 0), ("12", 9, 12), ("5%", 200, 10), ("0.5%", 200, 1)]
)
def test_allow_errors_takes_a_number_or_a_share(text: str, total: int, admitted: float) -> None:
    assert allowed(text, total) == admitted


@pytest.mark.parametrize("text", ["", "%", "-1", "nan%", "1.5", "5 %", "many"])
def test_allow_errors_takes_nothing_else(text: str) -> None:
    with pytest.raises(UsageError, match="--allow-errors takes a number or a percentage"):
        allowed(text, 10)


def test_the_last_line_says_what_a_run_did() -> None:
    assert Counts(units=3).described() == "nothing to do"
    counts = Counts(units=2000, computed=1200, from_store=800, failed=2, skipped=1)
    assert counts.described() == "1,200 answers computed, 800 taken from the store, 2 failed, 1 lines skipped"
    assert (counts.asked, counts.errors) == (2002, 3)


MADE_UP = """
import click, sys
from nxtools.commands._base import command
from nxtools.errors import ModelError
@command("nx-made-up", examples="nx-made-up", takes="nothing", gives="nothing")
@click.argument("what")
def main(what):
    "Do what is asked."
    if what == "none":
        return None
    if what.isdigit():
        return int(what)
    raise {
        "bug": KeyError("no such thing"),
        "model": ModelError("cannot be loaded:\\n  two\\n  lines", hint="get it"),
        "socket": BrokenPipeError(32, "Broken pipe"),
        "end": EOFError("nothing more"),
        "interrupt": KeyboardInterrupt(),
    }[what]
main()
"""


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("none", 0, ""),
        ("1", 1, ""),
        (
            "bug",
            70,
            "nx-made-up: this is a bug: KeyError: 'no such thing' (NXTOOLS_DEBUG=1 shows the traceback)\n",
        ),
        ("model", 4, "nx-made-up: cannot be loaded: two lines (get it)\n"),
        ("socket", 70, "nx-made-up: a connection closed: [Errno 32] Broken pipe\n"),
        (
            "end",
            70,
            "nx-made-up: this is a bug: EOFError: nothing more (NXTOOLS_DEBUG=1 shows the traceback)\n",
        ),
        (
            "interrupt",
            130,
            "nx-made-up: interrupted (what was finished is in the store: run it again to go on)\n",
        ),
    ],
)
def test_however_a_command_ends_it_says_so_in_one_line(
    run: Run, here: Path, what: str, status: int, said: str
) -> None:
    (here / "made_up.py").write_text(MADE_UP)
    env = {"PYTHONPATH": str(ROOT)}
    done = run(f'"$NXTOOLS_PYTHON" made_up.py {what}', env=env)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (status, b"", said)
    debug = run(f'"$NXTOOLS_PYTHON" made_up.py {what}', env=env | {"NXTOOLS_DEBUG": "1"}).stderr.decode()
    assert debug.endswith(said)
    assert ("Traceback" in debug) == (status not in (0, 1, 130))


# Where a checkout is run from


def test_commands_run_from_anywhere_and_through_links(run: Run, here: Path) -> None:
    (here / "click.py").write_text("raise ImportError('a file of the user')\n")
    (here / "nx-top").symlink_to(ROOT / "bin" / "nx-top")
    assert run("nx-top").returncode == 0
    assert run("./nx-top --version").stdout.startswith(b"nx-top, nxtools ")


def test_python_m_names_the_commands(run: Run) -> None:
    done = run('"$NXTOOLS_PYTHON" -m nxtools', env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert re.match(rb"nxtools: name a command: .*explain.*top", done.stderr)


# A terminal that several commands share


def test_progress_on_a_terminal_keeps_to_its_line_and_leaves_whole_ones(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Units come until both commands of the pipe have shown how far they are."""
    ours, theirs = pty.openpty()
    pipe = subprocess.Popen(
        ["bash", "-c", "nx-explain | nx-simulate > out.jsonl"],
        stdin=subprocess.PIPE,
        stderr=theirs,
        env=environment,
        cwd=tmp_path,
    )
    os.close(theirs)
    assert pipe.stdin is not None
    shown, fed = b"", 0
    while not all(re.search(rb"%b: \d+ units, " % name, shown) for name in (b"nx-explain", b"nx-simulate")):
        assert fed < 3000, shown
        pipe.stdin.write(UNITS.read_bytes())
        pipe.stdin.flush()
        fed += 3
        while select.select([ours], [], [], 0.1)[0]:
            shown += os.read(ours, 4096)
    pipe.stdin.close()
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # how a pty says that it ends
        pass
    os.close(ours)
    assert pipe.wait() == 0
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == fed
    rows = shown.decode().replace("\r\n", "\n").split("\n")
    assert rows.pop() == "", "the prompt finds a line of its own"
    assert len(rows) == 2, "one line of each command stays"
    renewed = [row.split("\r\x1b[K") for row in rows]
    stays = {row[-1].split(":")[0] for row in renewed}
    assert stays == {"nx-explain", "nx-simulate"}
    live = [line for row in renewed for line in row[:-1] if line]
    assert {line.split(":")[0] for line in live} == {"nx-explain", "nx-simulate"}
    assert all(re.fullmatch(r"nx-\w+: \d+ units, \d+/s", line) for line in live)


def test_a_store_that_cannot_be_used_is_said_once_and_by_the_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    units = [orjson.loads(line) | {"pool": {"blob": "0" * 64, "column": 0}} for line in UNITS.open("rb")]
    lines = b"".join(orjson.dumps(unit) + b"\n" for unit in units)
    done = run("nx-explain", stdin=lines, env={"NXTOOLS_CACHE": str(tmp_path / "file" / "store")})
    said = done.stderr.decode().splitlines()
    assert done.returncode == 0 and len([line for line in said if "without the store" in line]) == 1
    assert len([line for line in said if "without the random pool" in line]) == 1
    assert all(line.startswith("nx-explain: ") for line in said)
