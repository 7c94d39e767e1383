"""What nx-revise is worth for patterns: held-out scores before and after, by new evidence and by the control.

    python benchmarks/revising.py [--subject DIR] [--text SOURCE] [--separator LINE] [--every N] [--pool N]

Prints what nx-compare says of revised and unrevised explanations, paired by unit, as rows of a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

from pipe import path_of, run

FIGURES = ("top_and_random", "random_only", "pool", "all")
SOURCES = ("corpus,neighbours", "none")  # new evidence, and a second search without any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", default="samples/pydoc-1m")
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--separator")
    parser.add_argument("--every", type=int, default=64, help="one of so many units")
    parser.add_argument("--pool", type=int, default=4000)
    options = parser.parse_args()
    parted = ["--separator", options.separator] if options.separator else []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NXTOOLS_CACHE"] = str(Path(folder, "cache"))
        recorded, units, some, explained, revised, scored = (
            str(Path(folder, f"{name}.jsonl"))
            for name in ("recorded", "units", "some", "explained", "revised", "scored")
        )
        run(["nx-record", "--subject", options.subject, *parted, options.text, "-o", recorded])
        run(["nx-top", recorded, "-o", units])
        lines = Path(units).read_bytes().splitlines(keepends=True)
        Path(some).write_bytes(b"".join(lines[min(6, options.every - 1) :: options.every]))
        run(["nx-explain", some, "-o", explained])
        print("| --from | figure | units | unrevised | revised | difference |\n|---|---|---|---|---|---|")
        for source in SOURCES:
            how = ["--from", source, "--pool", str(options.pool), "--rounds", "2"]
            run(["nx-revise", "--subject", options.subject, *how, explained, "-o", revised])
            run(["nx-score", "--baselines", "none", revised, "-o", scored])
            for figure in FIGURES:
                print(f"| {source} | {figure} | {compared(scored, figure)} |")


def compared(scored: str, figure: str) -> str:
    """Units, both means, and the difference of revised and unrevised with its 95% interval."""
    command = [path_of("nx-compare"), "-q", "--by", "run", "--format", "json", "--figure", figure, scored]
    (line,) = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()
    row = json.loads(line)
    means = (row["mean_b"], row["mean_a"])
    if "revised" not in row["a"]:
        raise ValueError(f"nx-compare puts {row['a']} first, which is not the revised series")
    cells = [str(row["units"]), *(f"{mean:.3f}" for mean in means)]
    half = (row["high"] - row["low"]) / 2
    return " | ".join([*cells, f"{row['difference']:+.3f} ± {half:.3f}"])


if __name__ == "__main__":
    main()
