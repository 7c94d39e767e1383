"""How fast nx-summary, nx-compare and nx-convert are on 10,000 scored units.

    python benchmarks/reports.py [--subject DIR] [--text SOURCE] [--excerpts N] [--units N]

The sample subject has fewer units: lines of two real runs, of 30 and of 10 literals, are repeated under other
layers until there are enough. Every figure is the median of several runs of the whole command on one core.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
from itertools import count, islice
from pathlib import Path

from pipe import RUNS, run, timed

UNIT = re.compile(rb'"layer":(\d+),"index"')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", default="samples/pydoc-1m")
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--excerpts", type=int, default=4000)
    parser.add_argument("--units", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NXTOOLS_CACHE"] = str(Path(folder, "cache"))
        os.environ["OMP_NUM_THREADS"] = "1"
        recorded, units = (str(Path(folder, name)) for name in ("recorded.jsonl", "units.jsonl"))
        source = ["--subject", options.subject, "--excerpts", str(options.excerpts), options.text]
        run(["nx-record", *source, "-o", recorded])
        run(["nx-top", recorded, "-o", units])
        many = [repeated(units, literals, options.units) for literals in (30, 10)]
        size = many[0].stat().st_size
        print(f"{options.units} units a run, {size / options.units / 1000:.0f} kB a line\n")
        print("| command | s, wall | s, CPU |\n|---|---|---|")
        first, second = map(str, many)
        show("nx-summary", ["nx-summary", first])
        show("nx-summary --plot", ["nx-summary", "--plot", str(Path(folder, "plot.svg")), first])
        show("nx-compare, series of one run", ["nx-compare", first])
        show("nx-compare, two runs", ["nx-compare", first, second])
        there = str(Path(folder, "public"))
        show("nx-convert --to", ["nx-convert", "--to", "neuron-explainer", "-o", there, first])
        show("nx-convert --from", ["nx-convert", "--from", "neuron-explainer", there])


def repeated(units: str, literals: int, wanted: int) -> Path:
    """A scored run of so many units, made of fewer."""
    explained = units.replace("units.jsonl", f"explained-{literals}.jsonl")
    scored = Path(units.replace("units.jsonl", f"scored-{literals}.jsonl"))
    run(["nx-explain", "--literals", str(literals), units, "-o", explained])
    run(["nx-score", explained, "-o", str(scored)])
    return more(scored, scored.with_name(f"many-{literals}.jsonl"), wanted)


def more(scored: Path, many: Path, wanted: int) -> Path:
    """So many units in a file, made of fewer."""
    lines = scored.read_bytes().splitlines(keepends=True)
    layers = 1 + max(int(UNIT.search(line)[1]) for line in lines)
    copies = (moved(line, turn * layers) for turn in count() for line in lines)
    with many.open("wb") as file:
        file.writelines(islice(copies, wanted))
    return many


def moved(line: bytes, by: int) -> bytes:
    return UNIT.sub(lambda match: b'"layer":%d,"index"' % (int(match[1]) + by), line, count=1)


def show(name: str, command: list[str]) -> None:
    walls, cpus = zip(*(timed([command]) for _ in range(RUNS)), strict=True)
    print(f"| {name} | {statistics.median(walls):.1f} | {statistics.median(cpus):.1f} |", flush=True)


if __name__ == "__main__":
    main()
