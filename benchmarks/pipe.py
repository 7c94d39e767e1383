"""How fast the light commands are: units per second, start-up, and a second run that finds everything stored.

    python benchmarks/pipe.py [--subject DIR] [--text SOURCE] [--excerpts N]

Every figure is the median of several runs of the whole command, start-up included, with nothing in the store
that the command itself would put there.
"""

from __future__ import annotations

import argparse
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RUNS = 3
TIMES = 4
COMMANDS = ("cache", "explain", "record", "score", "simulate", "top")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", default="samples/pydoc-1m")
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--excerpts", type=int, default=4000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NXTOOLS_CACHE"] = str(Path(folder, "cache"))
        os.environ["OMP_NUM_THREADS"] = "1"
        files = {
            name: str(Path(folder, f"{name}.jsonl"))
            for name in ("recorded", "units", "explained", "simulated", "scored")
        }
        source = ["--subject", options.subject, "--excerpts", str(options.excerpts), options.text]
        run(["nx-record", *source, "-o", files["recorded"]])
        # Lines of 40 excerpts: 20 to learn from, 10 to choose by, 10 to score on.
        top = ["nx-top", files["recorded"], "-o", files["units"]]
        run(top)
        units = Path(files["units"]).read_bytes().count(b"\n")
        explain = ["nx-explain", "-j1", files["units"], "-o", files["explained"]]
        alone = ["nx-score", "-j1", "--baselines", "none", files["explained"], "-o", files["scored"]]
        simulated = ["nx-score", "--baselines", "none", files["simulated"], "-o", files["scored"]]
        score = ["nx-score", files["explained"], "-o", files["scored"]]
        print(f"{units} units, {Path(files['units']).stat().st_size / units / 1000:.0f} kB a line\n")
        print("| what | units/s, wall | units/s, CPU |\n|---|---|---|")
        show("nx-top", units, [top])
        new = without(Path(folder, "cache"), "excerpts", "explanation", "score")
        unscored = without(Path(folder, "cache"), "score")
        show("nx-explain -j1", units, [explain], new)
        show("nx-score -j1 --baselines none", units, [alone], unscored)
        show("nx-explain -j1 and nx-score -j1 --baselines none", units, [explain, alone], new)
        show("the same, all cores", units, [all_cores(explain), all_cores(alone)], new)
        run(["nx-simulate", files["explained"], "-o", files["simulated"]])
        # Patterns are run again, on the random pool too: here somebody else has simulated.
        lines = Path(files["simulated"]).read_bytes().replace(b'"simulator":"pattern"', b'"simulator":"else"')
        Path(files["simulated"]).write_bytes(lines)
        for what, command in (
            ("nx-score --baselines none of simulated units", simulated),
            ("nx-score with baselines and null", score),
        ):
            show(f"{what}, -j1", units, [[*command, "-j1"]], unscored)
            show(f"{what}, all cores", units, [command], unscored)
        # The same units of more subjects: start-up counts for less.
        many = Path(folder, "many.jsonl")
        with many.open("wb") as file:
            for number in range(TIMES):
                file.write(lines.replace(b'"fingerprint":"', b'"fingerprint":"%d' % number))
        simulated[-3] = str(many)
        run(simulated)  # excerpts are looked at once
        for jobs in ("-j1", "-j0"):
            show(
                f"simulated units, {TIMES} times as many, {jobs}",
                TIMES * units,
                [[*simulated, jobs]],
                unscored,
            )
        seconds = [second_run(source, files["scored"]) for _ in range(RUNS)]
        print(f"\nSecond run of the whole pipe: {statistics.median(seconds):.2f} s for {units} units")
        print("\n| nx-… -h | ms |\n|---|---|")
        for name in COMMANDS:
            taken = [timed([[f"nx-{name}", "-h"]])[0] for _ in range(7)]
            print(f"| {name} | {1000 * statistics.median(taken):.0f} |")


def all_cores(command: list[str]) -> list[str]:
    return [word for word in command if word != "-j1"]


def path_of(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def run(command: list[str]) -> None:
    subprocess.run(
        [path_of(command[0]), *command[1:]], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def timed(commands: list[list[str]]) -> tuple[float, float]:
    """Wall seconds and CPU seconds of commands one after another."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for command in commands:
        run(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, cpu


def without(cache: Path, *kinds: str) -> Callable[[], None]:
    """Takes answers of some kinds out of a store, and leaves what the commands before in a pipe have made."""

    def forget() -> None:
        with sqlite3.connect(cache / "index.sqlite") as index:
            for kind in kinds:
                of_kind = "(SELECT digest FROM blobs WHERE kind = ?)"
                index.execute(f"DELETE FROM memo WHERE answer IN {of_kind}", (kind,))
                index.execute("DELETE FROM blobs WHERE kind = ?", (kind,))
        index.close()

    return forget


def show(name: str, units: int, commands: list[list[str]], before: Callable[[], None] = lambda: None) -> None:
    taken = []
    for _ in range(RUNS):
        before()
        taken.append(timed(commands))
    walls, cpus = zip(*taken, strict=True)
    print(
        f"| {name} | {units / statistics.median(walls):.0f} | {units / statistics.median(cpus):.0f} |",
        flush=True,
    )


def second_run(source: list[str], scored: str) -> float:
    pipe = " | ".join(
        [
            f"{path_of('nx-record')} -q {' '.join(source)}",
            *(f"{path_of(f'nx-{n}')} -q" for n in ("top", "explain", "score")),
        ]
    )
    begun = time.perf_counter()
    subprocess.run(["bash", "-o", "pipefail", "-c", f"{pipe} > {scored}"], check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
