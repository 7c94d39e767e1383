"""What the README shows is what happens: its shell blocks run, in order, in one folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pipe has run once."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "samples").symlink_to(ROOT / "samples")
    assert "layer 2" in run(BLOCKS[0], folder).stderr
    return folder


def run(block: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{ROOT / 'bin'}:{os.environ['PATH']}",
        "NXTOOLS_CACHE": str(folder / "cache"),
        "NXTOOLS_PYTHON": sys.executable,
    }
    return subprocess.run(
        ["bash", "-e", "-c", block], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def test_the_blocks_run_and_the_second_time_nothing_is_computed(folder: Path) -> None:
    pipe, best, mine = BLOCKS
    scored = (folder / "scored.jsonl").read_bytes()
    units = [orjson.loads(line) for line in scored.splitlines()]
    assert [(u["unit"]["layer"], u["unit"]["index"]) for u in units] == [
        (layer, index) for layer in (1, 2) for index in range(512)
    ]

    again = run(pipe, folder)
    assert (folder / "scored.jsonl").read_bytes() == scored
    assert "0 layers of shards recorded in 0 passes" in again.stderr
    assert "0 explanations computed" in again.stderr
    assert "0 scores computed" in again.stderr

    if shutil.which("jq"):
        rows = [line.split("\t") for line in run(best, folder).stdout.splitlines()]
        assert len(rows) == 8
        assert all(float(row[2]) > 0.8 for row in rows)

    run(mine, folder)
    texts = {
        orjson.loads(line)["explanations"][-1]["text"]
        for line in (folder / "mine.jsonl").read_bytes().splitlines()
        if b'"dead":true' not in line
    }
    assert len(texts) == 1


def test_the_unit_line_that_is_shown_has_the_fields_of_a_real_one(folder: Path) -> None:
    shown = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    fields = set(re.findall(r'"(\w+)":', shown[1]))
    real = (folder / "scored.jsonl").read_text().splitlines()[1]
    assert fields <= set(re.findall(r'"(\w+)":', real))
