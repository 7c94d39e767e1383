"""What recording costs over the bare forward pass, and how much memory it takes. Prints JSON lines.

    python benchmarks/recording.py --subject DIR [--separator LINE] TEXT…      a real subject on real text
    python benchmarks/recording.py --subject gpt2-small --excerpts 2048        random weights, random tokens

After every few recorded batches the bare model runs over the same ones, so that whatever else the machine
does slows both alike: the ratio is what counts, not the seconds. Recording is everything (the pass, lists,
statistics, pool, blobs written to a store of its own) but for loading the model and planning.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RANDOM_SHAPE = "gpt2-small"
BATCHES_IN_TURN = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subject", required=True, help=f"a folder, or {RANDOM_SHAPE} for random weights")
    parser.add_argument("--separator", help="as for nx-record")
    parser.add_argument("--excerpts", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1, help="recordings to take the median of")
    parser.add_argument("--threads", type=int, help="of torch  [default: as it chooses]")
    parser.add_argument("--memory", metavar="N,N", help="peak memory at so many excerpts, a process for each")
    parser.add_argument("--alone", action="store_true", help="no bare passes: for the peak memory")
    parser.add_argument("text", nargs="*", help="files, folders or python-docs")
    options = parser.parse_args()
    if options.memory:
        measure_memory(options)
    else:
        print(json.dumps(measure(options)), flush=True)


def measure_memory(options: argparse.Namespace) -> None:
    peaks = {}
    for excerpts in map(int, options.memory.split(",")):
        arguments = ["--subject", options.subject, "--excerpts", str(excerpts), "--alone", *options.text]
        arguments += ["--separator", options.separator] if options.separator else []
        done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE)
        line = json.loads(done.stdout)
        peaks[line["excerpts"]] = line["peak_mb"]
        print(json.dumps(line), flush=True)
    growth = max(peaks.values()) / min(peaks.values())
    print(json.dumps({"what": "peak memory", "peak_mb": peaks, "growth": round(growth, 3)}), flush=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        subject, planned, model = prepare(options, Path(folder))
        rounds = [one_round(options, Path(folder), subject, planned, model) for _ in range(options.rounds)]
    line = {
        "what": "recording over bare forward",
        "subject": Path(options.subject).name,
        "excerpts": planned.plan.size,
        "tokens": planned.plan.excerpt,
        "units": sum(site.width for site in subject.sites),
        "batch": options.batch,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        **{name: round(statistics.median(r[name] for r in rounds), 4) for name in rounds[0]},
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    if not options.alone:
        line["ratios"] = sorted(round(r["ratio"], 3) for r in rounds)
    return line


def prepare(options: argparse.Namespace, folder: Path) -> tuple[Any, Any, Any]:
    from nxtools.store import Store
    from nxtools.subject.excerpts import Cut
    from nxtools.subject.identity import resolve
    from nxtools.subject.planning import Texts, plan_recording
    from nxtools.subject.recording import Model
    from nxtools.subject.text import Cutting

    path, text = options.subject, options.text
    if options.subject == RANDOM_SHAPE:
        path, text = make_random_subject(folder / RANDOM_SHAPE, options.excerpts)
    model = Model(resolve(str(path)), "float32", "cpu", None, False, False)
    texts = Texts(text, Cutting(separator=options.separator))
    with Store(folder / "plan") as store:
        planned = plan_recording(store, store, model.resolved, texts, Cut(draw=options.excerpts), "auto")
    return model.load(), planned, model


def make_random_subject(folder: Path, excerpts: int) -> tuple[Path, list[str]]:
    """GPT-2 small's shape with random weights, a byte vocabulary, and random text for it."""
    import random

    import tokenizers
    import torch
    import transformers

    torch.manual_seed(0)
    transformers.GPT2Model(transformers.GPT2Config()).save_pretrained(folder)
    pieces = tokenizers.models.WordLevel({f"{number}": number for number in range(5000)}, unk_token="0")
    backend = tokenizers.Tokenizer(pieces)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    chance = random.Random(0)
    text = folder / "random.jsonl"
    with text.open("w") as out:
        for _ in range(-(-excerpts // 16)):
            words = " ".join(str(chance.randrange(5000)) for _ in range(16 * 64))
            out.write(json.dumps({"text": words}) + "\n")
    return folder, [str(text)]


def one_round(
    options: argparse.Namespace, folder: Path, subject: Any, planned: Any, model: Any
) -> dict[str, float]:
    """Seconds and processor seconds of a recording and of the bare passes between its batches."""
    import torch

    from nxtools.store import Store
    from nxtools.subject import recorder
    from nxtools.subject.behind import Behind
    from nxtools.subject.recording import Job, Made, Want

    contexts = torch.from_numpy(planned.plan.contexts).long()
    if planned.bos is not None:
        contexts = torch.nn.functional.pad(contexts, (1, 0), value=planned.bos)
    parameters = {id(parameter): parameter for parameter in subject.model.parameters()}
    model_without_hooks = copy.deepcopy(subject.model, parameters)  # the weights stay where they are
    bare = {"wall": 0.0, "cpu": 0.0}
    begins = range(0, len(contexts), options.batch)
    recorded = done = 0

    def run_bare(_: int) -> None:
        nonlocal recorded, done
        recorded += 1
        if recorded % BATCHES_IN_TURN and recorded < len(begins):
            return
        recorders[-1].wait()  # for what is still recorded behind the pass
        begun = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for first in begins[done:recorded]:
                ids = torch.zeros((options.batch, contexts.shape[1]), dtype=torch.long)
                ids[: len(contexts) - first] = contexts[first : first + options.batch]
                model_without_hooks(input_ids=ids, use_cache=False)
        done = recorded
        bare["wall"] += time.perf_counter() - begun[0]
        bare["cpu"] += time.process_time() - begun[1]

    recorders: list[Any] = []
    recorder.Behind = lambda: recorders.append(Behind()) or recorders[-1]  # type: ignore[assignment, misc]
    progress = (lambda _: None) if options.alone else run_bare
    loaded = Loaded(model, subject)
    with tempfile.TemporaryDirectory(dir=folder) as cache, Store(cache) as store:
        begun = time.perf_counter(), time.process_time()
        job = Job(store, store, loaded, planned, Want(batch=options.batch))  # type: ignore[arg-type]
        for _ in job.lines(command="", made=Made(), progress=progress):
            pass
        wall = time.perf_counter() - begun[0] - bare["wall"]
        cpu = time.process_time() - begun[1] - bare["cpu"]
        stored = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
    found = {"recording_s": wall, "recording_cpu_s": cpu, "stored_mb": stored / 1e6}
    if options.alone:
        return found
    ratios = {"ratio": wall / bare["wall"], "cpu_ratio": cpu / bare["cpu"]}
    return {**ratios, "bare_s": bare["wall"], "bare_cpu_s": bare["cpu"], **found}


class Loaded:
    """A subject's settings with the subject already in memory."""

    def __init__(self, model: Any, subject: Any) -> None:
        self._model, self._subject = model, subject

    def load(self) -> Any:
        return self._subject

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


if __name__ == "__main__":
    main()
