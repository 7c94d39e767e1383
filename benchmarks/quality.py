r"""How good explanations are: the real pipe at several budgets, beside the baselines and untrained twins.

    python benchmarks/quality.py --subject DIR --text FILE [--separator LINE] [--excerpts N]
    python benchmarks/quality.py --subject DIR --text FILE --excerpts 20000 --pool 1000,400,200 \
        --evidence top=20,random=10 --every 8 --literals 30 --no-twin

Prints a Markdown table of mean scores, absent ones counted as 0, by number of literals; then the token
baselines, the null, what a corpus table adds, and twins of the subject, permuted and drawn anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

BUDGETS = (3, 10, 30, 100)
FIGURES = ("top_and_random", "random_only", "bottom_and_random", "pool")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", default="samples/pydoc-1m")
    parser.add_argument("--text", default="python-docs:held-out")
    parser.add_argument("--separator")
    parser.add_argument("--excerpts", type=int)
    parser.add_argument("--pool", default="400,200,200")
    parser.add_argument("--evidence", default="top=10,random=10")
    parser.add_argument("--every", type=int, default=1, help="score one unit in so many")
    parser.add_argument("--no-twin", action="store_true")
    parser.add_argument("--literals", type=int, nargs="*", default=BUDGETS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        units = Path(folder, "units.jsonl")
        record(options, units)
        print(f"| predictor | {' | '.join(FIGURES)} | units, absent |")
        print("|---|" + "---|" * (len(FIGURES) + 1))
        for literals in options.literals:
            explained = Path(folder, "explained.jsonl")
            run(
                [
                    "nx-explain",
                    "--literals",
                    str(literals),
                    "--characters",
                    "0",
                    str(units),
                    "-o",
                    str(explained),
                ]
            )
            arguments = ["--literals", str(literals), str(explained)]
            show(
                folder,
                f"pattern, {literals} literals, of any length",
                arguments,
                ["explanation", "token-list"],
            )
        explained = Path(folder, "explained.jsonl")
        run(["nx-explain", str(units), "-o", str(explained)])
        series = ["explanation", "token-list", "token-table", "null"]
        show(folder, "pattern, default options", [str(explained)], series)
        record(options, units, "--tables", "corpus")
        run(["nx-explain", str(units), "-o", str(explained)])
        show(folder, "pattern, with a corpus table", [str(explained)], ["explanation", "corpus-table"])
        for twin in () if options.no_twin else ("permuted", "random"):
            record(options, units, "--twin", twin)
            run(["nx-explain", str(units), "-o", str(explained)])
            show(folder, f"{twin} twin: pattern, default options", [str(explained)], series)


def record(options: argparse.Namespace, units: Path, *more: str) -> None:
    recorded, every = units.with_name("recorded.jsonl"), units.with_name("every.jsonl")
    extra = ["--separator", options.separator] if options.separator else []
    extra += ["--excerpts", str(options.excerpts)] if options.excerpts else []
    extra += ["--pool", options.pool, *more]
    run(["nx-record", "--subject", options.subject, *extra, options.text, "-o", str(recorded)])
    run(["nx-top", "--evidence", options.evidence, str(recorded), "-o", str(every)])
    with every.open("rb") as lines, units.open("wb") as kept:
        kept.writelines(line for number, line in enumerate(lines) if number % options.every == 0)


def run(command: list[str]) -> None:
    program = Path(sys.executable).with_name(command[0])
    subprocess.run([str(program), "-q", "--allow-errors", "1%", *command[1:]], check=True)


def show(folder: str, name: str, arguments: list[str], series: list[str]) -> None:
    scored = Path(folder, "scored.jsonl")
    run(["nx-score", *arguments, "-o", str(scored)])
    for one in series:
        label = name if one == "explanation" else f"… {one}"
        found = list(scores(scored, one))
        means = [mean([score.get(figure) for score in found if figure in score]) for figure in FIGURES]
        absent = sum(score["top_and_random"] is None for score in found)
        print(f"| {label} | {' | '.join(means)} | {len(found)}, {absent} |", flush=True)


def mean(values: list[float | None]) -> str:
    """Absent scores count as 0 here, so that a method cannot gain by not answering."""
    return f"{sum(value or 0.0 for value in values) / len(values):.3f}" if values else ""


def scores(path: Path, series: str) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            unit = orjson.loads(line)
            places = unit.get("explanations") if series == "explanation" else unit.get("baselines")
            for place in places or []:
                if series in ("explanation", place.get("name")):
                    yield from place.get("scores", [])[:1]
                    break


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    main()
