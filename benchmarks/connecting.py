"""nx-connect and nx-view --text: how long weights take to be looked at, and texts to be run.

    python benchmarks/connecting.py [--subject DIR] [--scored FILE] [--units N]

With --scored, the commands run on those units, with a store of their own. N units, spread over the layers of
GPT-2 small's shape with its 50,257 tokens and random weights, are looked at by the engine alone.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from pipe import timed

TEXT = "If the file cannot be opened, an OSError is raised and nothing is written to it."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", default="samples/pydoc-1m")
    parser.add_argument("--scored", help="unit lines of that subject")
    parser.add_argument("--units", type=int, default=768)
    options = parser.parse_args()
    print("| what | s, wall | s, CPU |\n|---|---|---|")
    if options.scored:
        commands(options.subject, options.scored)
    shape(options.units)


def commands(subject: str, scored: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NXTOOLS_CACHE"] = str(Path(folder, "cache"))
        connect = ["nx-connect", "--subject", subject, scored, "-o", str(Path(folder, "connected.jsonl"))]
        text = ["nx-view", "--json", "--text", TEXT, "--subject", subject, scored, "-o", os.devnull]
        for command in (connect, text):
            for run in ("first", "second"):
                show(f"{command[0]}, {run} run", *timed([command]))


def shape(count: int) -> None:
    """Of GPT-2 small, loading left out."""
    import torch
    import transformers

    from nxtools.stage import Ask, Question
    from nxtools.subject.connecting import Connector
    from nxtools.subject.load import Subject
    from nxtools.subject.sites import mlp_sites
    from nxtools.subject.wiring import Wiring

    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    trunk = model.base_model
    wiring = Wiring(Subject(trunk, torch.device("cpu"), "float32", mlp_sites(trunk), model))
    engine = Connector(lambda asked: (wiring, [f"t{token}" for token in range(wiring.vocabulary)]))
    every = [(layer, index) for layer, of in wiring.layers.items() for index in range(of.width)]
    each = count // len(wiring.layers)
    some = [(layer, index) for layer in wiring.layers for index in range(each)]
    asks = iter([Ask(f"{unit}", Question("connect", 1, {}, engine, asked(*unit))) for unit in some])

    def pull(wanted: int) -> list[Any]:
        return list(itertools.islice(asks, wanted))

    begun, cpu = time.perf_counter(), time.process_time()
    answered = sum(len(batch) for batch in engine.answer(pull))
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    show(f"{answered:,} units of GPT-2 small's shape", wall, cpu)
    show(f"all {len(every):,} at that speed", *(part * len(every) / answered for part in (wall, cpu)))


def asked(layer: int, index: int) -> Any:
    from nxtools.subject.connections import Connecting

    return Connecting("gpt2", "sha256:0", "mlp", "float32", layer, index, tokens=10, units=10)


def show(what: str, wall: float, cpu: float) -> None:
    print(f"| {what} | {wall:.1f} | {cpu:.1f} |", flush=True)


if __name__ == "__main__":
    main()
