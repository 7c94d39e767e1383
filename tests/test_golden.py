"""Golden pipes: each folder of tests/golden holds a line of bash and what it must print.

`make bless` writes down what they print now; a person reads the diff. Where several commands of a pipe write
to stderr the order is anybody's, so all but one are given -q.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CASES = sorted(path.parent for path in Path(__file__).parent.glob("golden/*/cmd"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pipe_prints_what_it_printed(
    case: Path, environment: dict[str, str], pytestconfig: pytest.Config
) -> None:
    given = case / "in.jsonl"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", (case / "cmd").read_text(encoding="utf-8")],
        input=given.read_bytes() if given.exists() else b"",
        cwd=case,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    store = environment["NXTOOLS_CACHE"].encode()
    found = {
        "out.jsonl": done.stdout,
        "err": done.stderr.replace(store, b"$NXTOOLS_CACHE"),
        "status": b"%d\n" % done.returncode,
    }
    if pytestconfig.getoption("--bless"):
        for name, data in found.items():
            (case / name).write_bytes(data)
    for name, data in found.items():
        assert data.decode() == (case / name).read_text(encoding="utf-8"), name


def test_there_are_golden_pipes() -> None:
    assert len(CASES) >= 5
