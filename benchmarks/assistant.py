"""What sharing prompts is worth: simulating all at once against one full prompt per excerpt. JSON lines.

    python benchmarks/assistant.py                                      the shape that is promised about
    python benchmarks/assistant.py --explanations 4 --rounds 1          a quick look
    python benchmarks/assistant.py --engine llama --model FILE.gguf     a real file
    python benchmarks/assistant.py --rounds 1 --turn 2 >> parts.jsonl   the third of three rounds by itself …
    python benchmarks/assistant.py --join parts.jsonl                   … and what they say together

Without --model, a Llama shape of 30 M parameters with random weights is written for each engine. Three ways
take turns, in another order each round: `shared` is the assistant as it is; `alone` reads every excerpt
behind its whole prompt, through the same engine; `prefill` reads as many tokens as are not shared, one full
call after another behind the same prefix, as fast as the engine can. Then

    gain         seconds alone / seconds shared
    token_ratio  tokens alone / tokens shared; `share_of_ratio` is gain / token_ratio
    over_prefill seconds per token that is not shared / seconds per token of raw prefill at that depth
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from nxtools.assistant.open import open_assistant
from nxtools.assistant.protocol import Number, Slot, Slots
from nxtools.assistant.slots import Prompt, lay_out
from nxtools.stage import Ask, Question
from nxtools.store import Store

PLAIN_BATCH = 512  # tokens in one call where nothing is shared: llama.cpp's own choice
WORDS = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8").split()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=["llama", "hf", "both"], default="both")
    parser.add_argument("--model", help="a file or folder instead of random weights")
    parser.add_argument("--explanations", type=int, default=20)
    parser.add_argument("--excerpts", type=int, default=10, help="per explanation")
    parser.add_argument("--tokens", type=int, default=64, help="per excerpt")
    parser.add_argument("--prefix", type=int, default=1200, help="tokens of instructions and examples")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turn", type=int, default=0, help="which order the first round has")
    parser.add_argument("--join", metavar="FILE", help="lines of single rounds, to be put together")
    parser.add_argument("--threads", default=str(os.cpu_count()))
    parser.add_argument("--with-option", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.join:
        joined(Path(options.join))
        return
    engines = ["llama", "hf"] if options.engine == "both" else [options.engine]
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store") as store:
        for engine in engines:
            spec = f"{engine}:{options.model or made(engine, Path(folder))}"
            extra = dict(one.split("=", 1) for one in options.with_option)
            assistant = open_assistant(spec, store, options={"n_threads": options.threads} | extra)
            print(json.dumps(measure(assistant, options)), flush=True)


def made(engine: str, folder: Path) -> Path:
    from gguf_model import THIRTY_MILLION, write_folder, write_gguf

    if engine == "llama":
        return write_gguf(folder / "random.gguf", THIRTY_MILLION, half=True)
    return write_folder(folder / "random", THIRTY_MILLION)


def measure(assistant: Any, options: argparse.Namespace) -> dict[str, Any]:
    asked = list(prompts(assistant.tokenizer.tokens, options))
    laid_out = [lay_out(one, assistant.tokenizer.tokens) for one in asked]
    ways: dict[str, Callable[[], int]] = {
        "shared": lambda: shared(assistant, asked),
        "alone": lambda: alone(assistant, laid_out),
        "prefill": lambda: prefill(assistant, laid_out),
    }
    prefill(assistant, laid_out[:1])  # loads the model
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    busy: dict[str, list[float]] = {name: [] for name in names}
    tokens: dict[str, int] = {}
    for number in range(options.turn, options.turn + options.rounds):
        for name in names[number % 3 :] + names[: number % 3]:
            begun, busy_before = time.perf_counter(), time.process_time()
            tokens[name] = ways[name]()
            seconds[name].append(round(time.perf_counter() - begun, 2))
            busy[name].append(round(time.process_time() - busy_before, 2))
    own = sum(len(one.excerpt) for one in laid_out)
    once = len(laid_out[0].prefix) + sum(map(len, {one.explanation for one in laid_out})) + own
    return with_ratios(
        {
            "what": "simulating all at once",
            "engine": assistant.engine,
            "explanations": options.explanations,
            "excerpts": options.excerpts,
            "prefix": len(laid_out[0].prefix),
            "excerpt_tokens": round(own / len(laid_out)),
            "threads": options.threads,
            "tokens": tokens,
            "each_once": tokens["shared"] == once,
            "seconds": seconds,
            "cpu_seconds": busy,
        }
    )


def with_ratios(found: dict[str, Any]) -> dict[str, Any]:
    """What was measured, and what comes of it: of wall time, and of processor time, which a machine that
    others use as well disturbs less."""
    tokens = found["tokens"]
    ratio = tokens["alone"] / tokens["shared"]
    made = found | {"token_ratio": round(ratio, 2)}
    for prefix in ("", "cpu_"):
        times = {name: statistics.median(values) for name, values in found[f"{prefix}seconds"].items()}
        per_token = {name: times[name] / tokens[name] for name in times}
        gain = times["alone"] / times["shared"]
        made |= {
            f"{prefix}gain": round(gain, 2),
            f"{prefix}share_of_ratio": round(gain / ratio, 3),
            f"{prefix}over_prefill": round(per_token["shared"] / per_token["prefill"], 3),
        }
    return made


def joined(path: Path) -> None:
    """Prints a line for each engine: all rounds of like measurements together."""
    together: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        alike = {name: found[name] for name in list(found)[: list(found).index("seconds")]}
        empty: dict[str, Any] = {"seconds": {}, "cpu_seconds": {}}
        sums = together.setdefault(json.dumps(alike, sort_keys=True), alike | empty)
        for kind in empty:
            for name, values in found[kind].items():
                sums[kind].setdefault(name, []).extend(values)
    for found in together.values():
        print(json.dumps(with_ratios(found)))


def prompts(tokens: Any, options: argparse.Namespace) -> Iterator[Slots]:
    """Prompts in the paper's form, four tokens a row, about words of the README."""
    chance = random.Random(0)
    words = [word for word in WORDS if len(tokens.piece(f" {word}")) == 1]
    filler = next(word for word in ("unknown", "?") if len(tokens.piece(word)) == 1)
    prefix: list[str | Number] = ["Numbers from 0 to 10 for tokens.\n"]
    size = len(tokens.begin) + len(tokens.piece(str(prefix[0])))
    while size < options.prefix:
        row: list[str | Number] = [f" {chance.choice(words)}", "\t", Number(chance.randrange(11)), "\n"]
        prefix += row
        size += sum(len(tokens.piece(str(getattr(one, "value", one)))) for one in row)
    for number in range(options.explanations):
        explanation = (f"Neuron {number}: " + " ".join(chance.choices(words, k=24)) + "\n",)
        for _ in range(options.excerpts):
            excerpt: list[Any] = []
            for _ in range(options.tokens):
                excerpt += [f" {chance.choice(words)}", "\t", Slot(filler), "\n"]
            yield Slots(tuple(prefix), explanation, tuple(excerpt))


def shared(assistant: Any, asked: Sequence[Slots]) -> int:
    """As a run would; nothing is left from the round before. Tokens evaluated."""
    forget(assistant)
    before = assistant.effort.evaluated
    asks = [Ask(str(n), Question("simulate", 1, {}, assistant, one)) for n, one in enumerate(asked)]

    def pull(wanted: int) -> list[Ask]:
        taken = asks[:wanted]
        del asks[:wanted]
        return taken

    for _ in assistant.answer(pull):
        pass
    return int(assistant.effort.evaluated - before)


def forget(assistant: Any) -> None:
    if assistant.engine == "hf":
        assistant._kept.clear()
        return
    from nxtools.assistant import llama_prefix

    llama_prefix.WORTH = float("inf")  # the store would remember as well
    if assistant._memory is not None:
        assistant._planner.forget()
        assistant._memory.clear()


def alone(assistant: Any, laid_out: Sequence[Prompt]) -> int:
    """One full prompt per excerpt, its numbers read in the same way."""
    from nxtools.assistant.slots import read_numbers

    numbers = assistant.tokenizer.tokens.numbers
    for one in laid_out:
        start = len(one.ids) - len(one.excerpt)
        read_numbers(read_whole(assistant, one.ids, [start + place for place in one.reads]), numbers)
    return sum(len(one.ids) for one in laid_out)


def read_whole(assistant: Any, ids: tuple[int, ...], reads: list[int]) -> Any:
    if assistant.engine == "hf":
        model = assistant._model
        return model.read_rows(model.empty(), [ids], [(0, place) for place in reads])
    batch = PLAIN_BATCH
    memory = plain_memory(assistant)
    memory.clear()
    found = []
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        wanted = [place - start for place in reads if start <= place < start + batch]
        found.append(memory.read(part, range(start, start + len(part)), [0] * len(part), wanted).copy())
    return np.concatenate(found)


def plain_memory(assistant: Any) -> Any:
    """A memory for one prompt at a time, as one would make it without any sharing."""
    from nxtools.assistant.llama_library import Memory

    if not hasattr(assistant, "plain"):
        assistant.plain = Memory(
            assistant._model,
            cells=2048,
            sequences=1,
            batch=PLAIN_BATCH,
            settings=assistant._settings,
        )
    return assistant.plain


def prefill(assistant: Any, laid_out: Sequence[Prompt]) -> int:
    """As many tokens as are not shared, in full calls behind the prefix. Tokens evaluated."""
    prefix = laid_out[0].prefix
    count = sum(len(one.excerpt) for one in laid_out) + sum(map(len, {one.explanation for one in laid_out}))
    ids = [token for one in laid_out for token in one.excerpt]
    if assistant.engine == "hf":
        model = assistant._model
        state = model.read(model.empty(), prefix)
        size = min(PLAIN_BATCH, len(ids))
        for _ in range(0, count, size):
            model.read(state, ids[:size])
        return len(prefix) + -(-count // size) * size
    import llama_cpp

    size = PLAIN_BATCH
    memory = plain_memory(assistant)
    memory.clear()
    for start in range(0, len(prefix), size):
        part = prefix[start : start + size]
        memory.read(part, range(start, start + len(part)), [0] * len(part), [])
    for start in range(0, count, size):
        part = ids[start : start + size]
        memory.read(part, range(len(prefix), len(prefix) + len(part)), [0] * len(part), [])
        llama_cpp.llama_memory_seq_rm(memory._sequences, 0, len(prefix), -1)
    return len(prefix) + count


if __name__ == "__main__":
    main()
