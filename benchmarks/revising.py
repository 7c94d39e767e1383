"""What nx-revise is worth for patterns: held-out scores before and after, by new evidence and by the control.

    python benchmarks/revising.py [--subject DIR] [--text SOURCE] [--separator LINE] [--every N] [--pool N]
                                  [--literals N,…] [--budget] [--from SOURCE,… …] [--jobs N]

Prints what nx-compare says of revised and unrevised explanations, paired by unit, as rows of a table. The
learner often stops before its budget is used up, so a revision may have no more literals than the sentence
that it revises; with `--budget` it may have as many as the learner might. Up to 30 literals have 500
characters, more have as many as they need.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import fmean

from pipe import path_of, run

from nxtools.pattern.language import parse

FIGURES = ("top_and_random", "random_only", "bottom_and_random", "pool", "all")
SOURCES = ("corpus,neighbours", "none")  # new evidence, and a second search without any
HEAD = "| budget | literals | --from | figure | units | unrevised | revised | difference |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", default="samples/pydoc-1m")
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--separator")
    parser.add_argument("--every", type=int, default=64, help="one of so many units")
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--literals", default="30", help="budgets of the learner, with commas")
    parser.add_argument("--budget", action="store_true", help="revisions may use up the learner's budget")
    parser.add_argument("--jobs", default="0", help="processes that mend: 0, one for each core")
    parser.add_argument("--from", dest="sources", nargs="+", default=SOURCES)
    options = parser.parse_args()
    parted = ["--separator", options.separator] if options.separator else []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NXTOOLS_CACHE"] = str(Path(folder, "cache"))
        names = ("recorded", "units", "some", "explained", "revised", "scored")
        recorded, units, some, explained, revised, scored = (Path(folder, f"{name}.jsonl") for name in names)
        run(["nx-record", "--subject", options.subject, *parted, options.text, "-o", str(recorded)])
        run(["nx-top", str(recorded), "-o", str(units)])
        lines = units.read_bytes().splitlines(keepends=True)
        some.write_bytes(b"".join(lines[min(6, options.every - 1) :: options.every]))
        print(f"{HEAD}\n{'|---' * HEAD.count(' | ')}|---|", flush=True)
        for literals in map(int, options.literals.split(",")):
            length = ["--characters", "500" if literals <= 30 else "0"]
            run(["nx-explain", "--literals", str(literals), *length, str(some), "-o", str(explained)])
            if not options.budget:
                hold(explained, None)
            for source in options.sources:
                how = ["--from", source, "--pool", str(options.pool), "--rounds", "2", "-j", options.jobs]
                run(["nx-revise", "--subject", options.subject, *how, str(explained), "-o", str(revised)])
                hold(revised, literals)  # explanations of one run
                run(["nx-score", "--baselines", "none", str(revised), "-o", str(scored)])
                for figure in FIGURES:
                    cells = (literals, named(revised), source, figure, compared(str(scored), figure))
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def hold(path: Path, literals: int | None) -> None:
    """Lets each explanation say that this was its budget, or that what it has used was (None)."""
    records = [json.loads(line) for line in path.open()]
    for record in records:
        for one in record.get("explanations", []):
            if "text" in one:
                one["by"]["literals"] = parse(one["text"]).literals if literals is None else literals
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def named(revised: Path) -> str:
    """How many literals explanations have before and after, on average."""
    pairs = [
        [parse(one["text"]).literals for one in explanations]
        for explanations in (json.loads(line).get("explanations", []) for line in revised.open())
        if len(explanations) == 2 and all("text" in one for one in explanations)
    ]
    after, before = (fmean(pair[side] for pair in pairs) for side in (0, 1))
    return f"{before:.1f}, {after:.1f}"


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
