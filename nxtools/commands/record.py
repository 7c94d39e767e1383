"""nx-record: run a subject over text and keep where each of its units fires."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._amounts import BYTES
from nxtools.commands._base import Shared, command, inputs_argument, shared_options
from nxtools.commands._recording import described, needs, settings, texts
from nxtools.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from nxtools.store import Store

EXAMPLES = """
nx-record --subject samples/pydoc-1m python-docs > recorded.jsonl
nx-record --subject EleutherAI/pythia-70m --layers 0-3 text/*.txt.zst | nx-top | nx-explain | nx-score
nx-record --subject DIR --separator '<|endoftext|>' --units 2:41,2:42 stories.txt | nx-top
"""


@command(
    "nx-record",
    examples=EXAMPLES,
    takes="text: .txt, .jsonl with a text field, .zst of both, folders, - for stdin, python-docs",
    gives="recording lines, one per shard and layer, that name blobs in the store",
)
@inputs_argument
@click.option("--subject", required=True, metavar="DIR|HUB_ID", help="The model under study.")
@click.option(
    "--twin",
    type=click.Choice(["permuted", "random"]),
    help="Record a twin of it that has learned nothing: weights permuted within each matrix, or drawn anew.",
)
@click.option("--layers", metavar="0-3,7", help="Layers to record  [default: all].")
@click.option("--units", metavar="2:41,…", help="Only these units, as LAYER:INDEX.")
@click.option(
    "--sign", type=click.Choice(["+", "-", "+-"]), help="Sides of a unit  [default: both if gated]."
)
@click.option("--module", metavar="PATH", help="Read the inputs of this module, {layer} for the number.")
@click.option(
    "--context", type=click.IntRange(1), default=64, show_default=True, help="Tokens that the subject sees."
)
@click.option(
    "--excerpt",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Tokens that are kept; divides the context.",
)
@click.option(
    "--windows",
    type=click.Choice(["all", "one"]),
    default="all",
    show_default=True,
    help="All contexts of a document, or a single random one.",
)
@click.option(
    "--excerpts", "draw", type=click.IntRange(1), help="Keep so many, drawn by hash  [default: all]."
)
@click.option("--separator", metavar="LINE", help="Such lines part the documents of a text file.")
@click.option(
    "--documents",
    type=click.Choice(["paragraphs", "file"]),
    default="paragraphs",
    show_default=True,
    help="Cut text files at blank lines, or keep each whole.",
)
@click.option(
    "--document-tokens",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Join paragraphs up to so many tokens.",
)
@click.option(
    "--field", default="text", show_default=True, help="The field of a JSON line that holds the text."
)
@click.option(
    "--encoding-errors",
    type=click.Choice(["strict", "replace"]),
    default="strict",
    show_default=True,
    help="What to do with bytes that are not UTF-8.",
)
@click.option(
    "--bos",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="A BOS token in front of each context; auto: as the tokenizer does.",
)
@click.option("--keep-first", is_flag=True, help="Count the first position of a context, too.")
@click.option("--seed", default=0, show_default=True, help="Deals documents into sets, draws, makes twins.")
@click.option(
    "--top", type=click.IntRange(1), default=20, show_default=True, help="Excerpts per list, set and unit."
)
@click.option(
    "--spread",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Excerpts per bin of the maximum, set and unit.",
)
@click.option(
    "--pool",
    default="400,200,200",
    show_default=True,
    help="Random excerpts of evidence, validation and held-out that all units share.",
)
@click.option(
    "--tables",
    metavar="NAMES",
    help="Also values by token: corpus, means over all the evidence; weights, what they alone say.",
)
@click.option(
    "--memory",
    type=BYTES,
    default="2G",
    show_default=True,
    metavar="SIZE",
    help="For the sums of tables; layers that do not fit take passes of their own.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=64, show_default=True, help="Contexts per forward pass."
)
@click.option(
    "--shard", type=click.IntRange(1), help="Excerpts per shard  [default: 8192, more for much text]."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Numbers that the subject computes with.",
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")
@click.option("--allow-pickle", is_flag=True, help="Load weights from .bin files (tensors only).")
@click.option(
    "--bulk",
    metavar="DIR",
    help="Keep the recordings, and all that their lines name, here and not in the store.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be recorded and how many bytes it takes.")
@shared_options
def main(**options: Any) -> int:
    """Run a subject over text once and keep, for every unit, where it fires: top excerpts, a spread over all
    levels, a random pool shared by all units, and statistics. Shards that are finished are never computed
    again, whatever ended the run.
    """
    from nxtools.progress import Progress
    from nxtools.stage import Counts
    from nxtools.stream import Writer
    from nxtools.subject.planning import plan_recording
    from nxtools.subject.recording import Job, Made

    shared = Shared.of("nx-record", options)
    if not shared.inputs:
        raise UsageError("no text is named", hint="name files or folders, - for stdin, or python-docs")
    if shared.cache_mode == "none" and not options["bulk"] and not options["dry_run"]:
        raise UsageError(
            "with --no-cache the recordings would be gone before anything reads them",
            hint="--bulk DIR keeps them there",
        )
    cut, model, want = settings(options)
    made, counts = Made(), Counts()
    with shared.open_store() as store, _bulk(options["bulk"], store, shared) as bulk:
        planned = plan_recording(
            store,
            bulk,
            model.resolved,
            texts(shared, options, counts),
            cut,
            options["bos"],
            trust_remote_code=model.trust_remote_code,
        )
        progress = Progress(shared.command, "excerpts", quiet=shared.quiet, total=planned.plan.size)
        progress.say(described(planned))
        job = Job(store, bulk, model, planned, want)
        if options["dry_run"]:
            progress.say(needs(job))
            return shared.status(counts)
        typed = shlex.join(["nx-record", *sys.argv[1:]])
        with Writer(shared.output) as out:
            for line in job.lines(command=typed, made=made, progress=progress.step):
                out.write(line)
                out.flush()
        tabled = f", {made.tables} parts of tables made" if want.tables else ""
        progress.say(
            f"{made.recorded} layers of shards recorded in {made.passes} passes, "
            f"{made.from_store} taken from the store{tabled}"
        )
    return shared.status(counts)


def _bulk(folder: str | None, store: Store, shared: Shared) -> AbstractContextManager[Store]:
    from nxtools.progress import warn
    from nxtools.store import Store

    if folder is None:
        return nullcontext(store)
    return Store(folder, warn=lambda line: warn(f"{shared.command}: {line}"))
