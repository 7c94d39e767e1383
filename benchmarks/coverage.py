"""How often the 95% intervals of single units hold the truth, on real units.

    python benchmarks/coverage.py --every 32

Units of the sample subject get 20 top and 80 random held-out excerpts. These are all there is, so the score
of all of them is the truth. Excerpts are drawn from them again and again, each draw gets its interval by the
project's own functions, and those that hold the truth are counted. Prints, by method, figure and number of
excerpts of each kind, the mean over units and the 5% quantile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from nxtools.commands._ablating import Ablation
from nxtools.commands._ablation import _Ablator
from nxtools.commands._pools import Pools
from nxtools.judge.figures import Verdict, figures, measure
from nxtools.score.ablation import FIGURES, Ablated, score
from nxtools.stage import Loop
from nxtools.store import Store, default_path

SUBJECT, TEXT = "samples/pydoc-1m", "python-docs:held-out"
HELD_OUT = "top=20,random=80"
SERIES = ("explanation", "token-table")
ACTIVE = 0.5  # of the maximum, so that GELU units have silent excerpts as well

Held = dict[tuple[str, str, int], list[float]]  # by method, figure and excerpts: shares by unit


class Collected:
    """In place of a run's summary: what replacing each unit did."""

    series = SERIES

    def __init__(self) -> None:
        self.ablated: list[Ablated] = []

    def add(self, series: str, layer: int, ablated: Ablated, figures: Any, correlation: float) -> None:
        self.ablated.append(ablated)

    def fail(self, series: str) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=32, help="one unit in so many")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--excerpts", type=int, nargs="*", default=[5, 20])
    options = parser.parse_args()
    chance, held = np.random.default_rng(0), defaultdict[Any, list[float]](list)
    with tempfile.TemporaryDirectory() as folder:
        judged = explained(Path(folder), options.every)
        for ablated in ablations(judged):
            for count in options.excerpts:
                of_ablation(ablated, count, options.draws, chance, held)
        for line in judged.open("rb"):
            for count in options.excerpts:
                of_judge(orjson.loads(line), count, options.draws // 5, chance, held)
    print("| method | figure | excerpts of each kind | units | held | in 5% of the units at most |")
    print("|---|---|---|---|---|---|")
    for (method, figure, count), shares in sorted(held.items()):
        mean, low = 100 * np.mean(shares), 100 * np.quantile(shares, 0.05)
        print(f"| {method} | {figure} | {count} | {len(shares)} | {mean:.1f}% | {low:.0f}% |")


def explained(folder: Path, every: int) -> Path:
    """Units with patterns, and with what patterns judge of their excerpts."""
    recorded, units, told, judged = (folder / name for name in ("recorded", "units", "told", "judged"))
    nx("nx-record", "--subject", SUBJECT, TEXT, "-o", recorded)
    nx("nx-top", "--held-out", HELD_OUT, recorded, "-o", units)
    told.write_bytes(b"".join(line for place, line in enumerate(units.open("rb")) if place % every == 1))
    nx("nx-explain", "-j", "1", told, "-o", units)
    judge = ["--method", "detection", "--baselines", "none", "--active", ACTIVE, "--each", "100"]
    nx("nx-score", "--allow-errors", "100%", *judge, units, "-o", judged)
    return judged


def nx(name: str, *arguments: Any) -> None:
    subprocess.run([str(Path(sys.executable).with_name(name)), "-q", *map(str, arguments)], check=True)


def ablations(units: Path) -> list[Ablated]:
    """What simulations in a unit's place do, excerpt by excerpt."""
    collected = Collected()
    options = {"subject": SUBJECT, "device": "cpu", "allow_pickle": False, "trust_remote_code": False}
    with Store(default_path()) as store:
        pools = Pools("coverage", None, "normal", None)
        summary: Any = collected
        one = Ablation(_Ablator(options, store), pools, SERIES, 30, "linear", (), None, summary)
        for _ in Loop(map(orjson.loads, units.open("rb")), one.step, store):
            pass
    return collected.ablated


def of_ablation(all_of_it: Ablated, count: int, draws: int, chance: np.random.Generator, held: Held) -> None:
    picks = np.array(all_of_it.picks)
    for figure in ("top_and_random", "random_only"):
        there = ~np.isnan(all_of_it.simulation[figure])
        kinds = [np.flatnonzero((picks == pick) & there) for pick in FIGURES[figure]]
        if min(map(len, kinds)) < 10:
            continue
        lost, of_mean = (
            sum(values[rows].mean() for rows in kinds)
            for values in (all_of_it.simulation[figure], all_of_it.mean)
        )
        inside = 0
        for draw in range(draws):
            rows = np.concatenate([chance.choice(kind, count) for kind in kinds])
            one = Ablated(
                f"{all_of_it.name} {draw}",
                picks[rows].tolist(),
                [str(row) for row in rows],
                all_of_it.tokens[rows],
                all_of_it.mean[rows],
                {figure: all_of_it.simulation[figure][rows]},
                {},
            )
            interval = score(one)[figure].interval
            assert interval is not None
            inside += interval[0] <= 1 - lost / of_mean <= interval[1]
        held["ablation", figure, count].append(inside / draws)


def of_judge(unit: dict[str, Any], count: int, draws: int, chance: np.random.Generator, held: Held) -> None:
    for made in unit["explanations"][0]["scores"]:
        kinds = [[one for one in made.get("judged", []) if one["truth"] == truth] for truth in (1, 0)]
        if min(map(len, kinds)) < 10:
            continue
        every = [verdict for kind in kinds for verdict in verdicts(kind, kind)]
        weights = np.repeat([1 / len(kind) for kind in kinds], [len(kind) for kind in kinds])[:, None]
        columns = (np.array([getattr(one, name) for one in every]) for name in ("truth", "said", "score"))
        truth = {name: float(value[0]) for name, value in figures(*columns, weights).items()}
        inside = dict.fromkeys(truth, 0)
        for draw in range(draws):
            drawn = [
                verdict
                for kind in kinds
                for verdict in verdicts(kind, [kind[n] for n in chance.integers(len(kind), size=count)])
            ]
            for name, (low, high) in measure(drawn, f"{unit['unit']['index']} {draw}").intervals.items():
                inside[name] += low - 1e-9 <= truth[name] <= high + 1e-9
        for name, share in inside.items():
            held["detection", name, count].append(share / draws)


def verdicts(kind: list[dict[str, Any]], chosen: list[dict[str, Any]]) -> Iterator[Verdict]:
    for place, one in enumerate(chosen):
        name = f"{kind[0]['truth']} {place}"
        yield Verdict(name, name, bool(one["truth"]), bool(one["said"]), one["score"])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    main()
