r"""What an explanation is worth beside everything that explains less, on one subject, in one table.

    python benchmarks/baselines.py
    python benchmarks/baselines.py --subject DIR --text FILE --separator '<|endoftext|>' --every 4

The real commands, in the user's store (what was computed stays there): the subject is recorded with tables
of tokens, and so are its twins, permuted and drawn anew. Prints two Markdown tables: means with their 95%
intervals over units and documents and, in parentheses, the units; and the paired differences that matter.
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

FIGURES = ("top_and_random", "random_only", "all")
HELD_OUT = "top=5,random=5,spread=20"  # spread ones make `all` more certain

# By what nx-summary calls them in the run on the subject itself.
ROWS = {
    "pattern": "pattern, from excerpts and pool",
    "pattern table=corpus": "pattern, with the corpus table as well",
    "pattern from=corpus": "pattern of the corpus table alone",
    "pattern from=weights": "pattern of the weights' table alone",
    "token-list": "token list of as many literals",
    "token-table": "token table, from excerpts and pool",
    "corpus-table": "corpus table",
    "weights": "weights",
    "weights-position": "weights and position",
    "mean": "mean",
    "null": "null",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", default="samples/pydoc-1m")
    parser.add_argument("--text", default="python-docs:held-out")
    parser.add_argument("--separator")
    parser.add_argument("--every", type=int, default=1, help="score one unit in so many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own = scored(options, Path(folder), "own")
        twins = {kind: scored(options, Path(folder), kind) for kind in ("permuted", "random")}
        print(f"| predictor | {' | '.join(name.replace('_', ' ') for name in FIGURES)} |")
        print("|---|" + "---|" * len(FIGURES))
        told = means(own)
        for series, label in ROWS.items():
            show(label, constant(told) if series == "mean" else told.get(series, {}))
        for kind, run in twins.items():
            of_twin = means(run)
            for series in ("pattern", "token-table", "corpus-table", "null"):
                show(f"{kind} twin: {ROWS[series]}", of_twin[series])
        print("\n| difference, top and random | over units | wins, losses |\n|---|---|---|")
        first = ["--series", told["pattern"]["all"]["series"], "--series"]
        for other in ("pattern table=corpus", "pattern from=corpus", "token-list", "token-table", "null"):
            difference(f"pattern - {ROWS[other]}", own, *first, told[other]["all"]["series"])
        for kind, run in twins.items():
            difference(f"pattern - pattern of the {kind} twin", own, run, "--match", "place")


def scored(options: argparse.Namespace, folder: Path, kind: str) -> Path:
    """The units of the subject or of a twin with all that is scored."""
    recorded, units, bare, run = (
        folder / f"{kind}.{what}" for what in ("recorded", "units", "bare", "scored")
    )
    twin = [] if kind == "own" else ["--twin", kind]
    text = (["--separator", options.separator] if options.separator else []) + [options.text]
    record = ["--subject", options.subject, "--tables", "corpus,weights", *twin, *text]
    nx("nx-record", *record, "-o", recorded)
    nx("nx-top", "--held-out", HELD_OUT, recorded, "-o", units)
    lines = [line for place, line in enumerate(units.open("rb")) if place % options.every == 0]
    bare.write_bytes(b"".join(orjson.dumps(orjson.loads(line) | {"tables": {}}) + b"\n" for line in lines))
    explain = ["nx-explain", "-j", str(options.jobs)]
    nx(*explain, bare, "-o", run)
    with_tables(run, lines)
    if kind == "own":
        for more in ([], ["--view", "tokens", "--from", "corpus"], ["--view", "tokens", "--from", "weights"]):
            nx(*explain, *more, run, "-o", bare)
            bare.replace(run)
    nx("nx-score", run, "-o", bare)
    return bare.replace(run)


def with_tables(explained: Path, lines: list[bytes]) -> None:
    """Give explained units the tables back that they were explained without."""
    tables = [orjson.loads(line).get("tables", {}) for line in lines]
    units = [orjson.loads(line) for line in explained.open("rb")]
    explained.write_bytes(
        b"".join(orjson.dumps(u | {"tables": t}) + b"\n" for u, t in zip(units, tables, strict=True))
    )


def means(run: Path) -> dict[str, dict[str, Any]]:
    """What nx-summary says of a run, by series and figure."""
    figures = [part for name in FIGURES for part in ("--figure", name)]
    found: dict[str, dict[str, Any]] = {}
    for row in rows("nx-summary", "--by", "run", *figures, run):
        found.setdefault(short(row["series"]), {})[row["figure"]] = row
    return found


def short(series: str) -> str:
    """The name in ROWS: nx-summary says all that tells the explanations of a run apart."""
    for said in ("from=corpus", "from=weights", "table=corpus"):
        if said in series:
            return f"pattern {said}"
    return series.partition(" ")[0]


def constant(told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The mean: a constant has no correlation, whatever the unit."""
    nothing = {"mean": None, "units": 0}
    return {figure: nothing | {"absent": row["units"]} for figure, row in told["token-table"].items()}


def show(label: str, of_series: dict[str, Any]) -> None:
    print(f"| {label} | {' | '.join(cell(of_series.get(figure)) for figure in FIGURES)} |", flush=True)


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    absent = f", {row['absent']} absent" if row["absent"] else ""
    if row["mean"] is None:
        return f"none{absent}"
    return f"{row['mean']:.3f} ± {(row['high'] - row['low']) / 2:.3f} ({row['units']}{absent})"


def difference(label: str, *arguments: Any) -> None:
    (row,) = rows("nx-compare", "--by", "run", *arguments)
    found = f"{row['difference']:.3f} ± {(row['high'] - row['low']) / 2:.3f} ({row['units']})"
    print(f"| {label} | {found} | {row['wins']}, {row['losses']} |", flush=True)


def rows(*command: Any) -> Iterator[dict[str, Any]]:
    for line in nx(*command, "--format", "json").splitlines():
        yield orjson.loads(line)


def nx(name: str, *arguments: Any) -> bytes:
    program = Path(sys.executable).with_name(name)
    command = [str(program), "-q", "--allow-errors", "1%", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    main()
