"""What several test modules use: the commands as a user runs them, and small unit lines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "tests" / "golden" / "units.jsonl"

Ran = subprocess.CompletedProcess[bytes]
Run = Callable[..., Ran]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="Take what the golden pipes print for right.")


def settings(cache: Path) -> dict[str, str]:
    """Variables by which commands are found, and their store."""
    return {
        "PATH": f"{ROOT / 'bin'}:{os.environ['PATH']}",
        "NXTOOLS_PYTHON": sys.executable,
        "NXTOOLS_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
    }


def shell(pipe: str, cache: Path, stdin: bytes = b"") -> Ran:
    """A line of bash with pipefail and a store, for fixtures that whole modules share; it has to succeed."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", pipe],
        env=os.environ | settings(cache),
        input=stdin,
        capture_output=True,
        check=True,
    )


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """bin/ first on the PATH, a store of its own, one job, no keys, no settings of whoever runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("NXTOOLS_") and not name.endswith(("_KEY", "_TOKEN"))
    }
    return kept | {
        "PATH": f"{ROOT / 'bin'}:{kept['PATH']}",
        "NXTOOLS_PYTHON": sys.executable,
        "NXTOOLS_CACHE": str(tmp_path / "cache"),
        "NXTOOLS_JOBS": "1",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Runs a program, or a line of bash with pipefail, in an empty folder.

    `stdin`: bytes, or a descriptor.
    """
    folder = tmp_path / "here"
    folder.mkdir()

    def run(*words: object, stdin: bytes | int = b"", env: dict[str, str] | None = None) -> Ran:
        line = [str(word) for word in words]
        if len(line) == 1:
            line = ["bash", "-o", "pipefail", "-c", line[0]]
        given: dict[str, Any] = {"stdin": stdin} if isinstance(stdin, int) else {"input": stdin}
        return subprocess.run(
            line,
            cwd=folder,
            env=environment | (env or {}),
            capture_output=True,
            timeout=60,
            check=False,
            **given,
        )

    return run


@pytest.fixture(scope="session")
def units() -> list[dict[str, Any]]:
    """Units of our own making: one of both signs, one with a note on it, a dead one."""
    return [orjson.loads(line) for line in UNITS.read_bytes().splitlines()]
