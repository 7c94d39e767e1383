"""nx-view on 10,000 units: how long the server's index takes, and how fast a unit is there.

    python benchmarks/serving.py [--subject DIR] [--text SOURCE] [--units N] [--scored FILE]

The lines of a run are repeated under other layers until there are enough. 100 units are asked for in a random
order, each over a connection of its own, with the patterns run that nobody has simulated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from pipe import path_of, run, timed
from reports import more

PAGES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", default="samples/pydoc-1m")
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--excerpts", type=int, default=4000)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument(
        "--scored", help="Scored units that are there already; their store is that of the environment."
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        many = more(Path(options.scored or made(folder, options)), Path(folder, "many.jsonl"), options.units)
        print(f"{options.units:,} units, {many.stat().st_size / 1e6:,.0f} MB\n\n| | |\n|---|---|")
        wall, cpu = timed([["nx-view", "--unit", "1:41", str(many), "-o", os.devnull]])
        show("`nx-view --unit 1:41`", f"{wall:.1f} s ({cpu:.1f} s of CPU)")
        served(many)


def made(folder: str, options: argparse.Namespace) -> str:
    os.environ["NXTOOLS_CACHE"] = str(Path(folder, "cache"))
    recorded, units, explained, scored = (str(Path(folder, f"{step}.jsonl")) for step in range(4))
    source = ["--subject", options.subject, "--excerpts", str(options.excerpts), options.text]
    run(["nx-record", *source, "-o", recorded])
    run(["nx-top", recorded, "-o", units])
    run(["nx-explain", units, "-o", explained])
    run(["nx-score", explained, "-o", scored])
    return scored


def served(units: Path) -> None:
    begun = time.perf_counter()
    process = subprocess.Popen(
        [path_of("nx-view"), "-q", "--serve", "--port", "0", str(units)], stdout=subprocess.PIPE, text=True
    )
    url = process.stdout.readline().strip()
    wall = time.perf_counter() - begun
    show("from the command to the address", f"{wall:.1f} s ({cpu_of(process.pid):.1f} s of CPU)")
    rows = json.loads(get(f"{url}rows")[1])
    taken, sizes = [], []
    for row in random.Random(0).sample(rows, PAGES):
        milliseconds, body = get(f"{url}units/{urllib.request.quote(row['address'], safe='')}")
        taken.append(milliseconds)
        sizes.append(len(body))
    show(
        "page of a unit, median", f"{statistics.median(taken):.0f} ms, {statistics.mean(sizes) / 1000:.0f} kB"
    )
    show("page of a unit, slowest of 100", f"{max(taken):.0f} ms")
    show("all rows of the start page", "{:.0f} ms, {:.1f} MB".format(*row_of(url)))
    show("memory", f"{memory_of(process.pid):.0f} MB")
    process.send_signal(signal.SIGINT)
    process.wait()


def get(url: str) -> tuple[float, bytes]:
    """Milliseconds, and what was answered."""
    begun = time.perf_counter()
    with urllib.request.urlopen(url) as answer:
        body = answer.read()
    return 1000 * (time.perf_counter() - begun), body


def row_of(url: str) -> tuple[float, float]:
    milliseconds, body = get(f"{url}rows")
    return milliseconds, len(body) / 1e6


def cpu_of(process: int) -> float:
    """Seconds of CPU that it has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(process: int) -> float:
    """The most that it held, in MB."""
    return int(re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process}/status").read_text())[1]) / 1000


def show(what: str, seen: str) -> None:
    print(f"| {what} | {seen} |", flush=True)


if __name__ == "__main__":
    main()
