"""nx-convert: files of other tools as unit lines, and unit lines as their files."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import EXIT_SOME_FAILED, OF_ALL, allowed, family, inputs_argument
from nxtools.commands._base import command as nx_command
from nxtools.commands._reports import inputs_or_help, reading_options
from nxtools.errors import InputError, UsageError
from nxtools.progress import Progress, warn

if TYPE_CHECKING:
    from nxtools.stream import Record

EXAMPLES = """
nx-convert --from neuron-explainer --subject gpt2-xl collated-activations/5 explanations/5 > units.jsonl
nx-convert --from neuronpedia v1/gpt2-small/6-res-jb | nx-explain | nx-score > scored.jsonl
nx-convert --from delphi --tokenizer DIR latents/layers.5 > units.jsonl
nx-convert --to neuron-explainer -o public/ scored.jsonl
"""

READ = ("neuron-explainer", "neuronpedia", "delphi")
WRITTEN = ("neuron-explainer", "neuronpedia")


@nx_command(
    "nx-convert",
    examples=EXAMPLES,
    takes="files or folders of another tool, or unit lines",
    gives="unit lines, or files of another tool",
)
@inputs_argument
@click.option("--from", "source", type=click.Choice(READ), help="Read this format and write unit lines.")
@click.option(
    "--to",
    "target",
    type=click.Choice(WRITTEN),
    help="Read unit lines and write this format: into the folder -o, or as lines on stdout.",
)
@click.option(
    "--subject",
    default="imported",
    show_default=True,
    metavar="NAME",
    help="The model that files do not name.",
)
@click.option("--site", default="mlp", show_default=True, help="Where its values were read.")
@click.option("--tokenizer", metavar="DIR", help="Of delphi's folders: where tokenizer.json is.")
@family(OF_ALL, reading_options)
def main(**options: Any) -> int:
    """Convert the paper's NeuronRecord and NeuronSimulationResults, Neuronpedia's batches and Delphi's
    latents to unit lines, which all other commands read; and unit lines to the first two.
    """
    if (options["source"] is None) == (options["target"] is None):
        raise UsageError("either --from or --to says what the other format is")
    allowed(options["allow_errors"], 0)
    gc.set_threshold(200_000)  # lines are lists and dicts without a cycle among them
    return _import(options) if options["source"] else _export(options)


class Skipped:
    """Counts what could not be read, and says it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: InputError) -> None:
        self.count += 1
        warn(f"nx-convert: {error.where}: {error.message}; skipped")

    def status(self, options: dict[str, Any], units: int) -> int:
        return EXIT_SOME_FAILED if self.count > allowed(options["allow_errors"], units + self.count) else 0


def _import(options: dict[str, Any]) -> int:
    from nxtools.stream import Writer

    skipped = Skipped()
    progress = Progress("nx-convert", "units", quiet=options["quiet"])
    on_bad = skipped if options["keep_going"] else None
    names = inputs_or_help(options["inputs"])
    with Writer(options["output"]) as out:
        for unit in _units(options, names, on_bad, progress):
            out.write(unit)
            progress.step()
    progress.say(f"{progress.done:,} units from {options['source']}")
    return skipped.status(options, progress.done)


def _units(
    options: dict[str, Any], names: list[str], on_bad: Skipped | None, progress: Progress
) -> Iterator[Record]:
    from nxtools.interop import neuron_explainer, neuronpedia

    if options["source"] == "delphi":
        yield from _latents(options, names)
        return
    importer: Any
    if options["source"] == "neuronpedia":
        importer = neuronpedia.Importer(options["site"], on_bad)
    else:
        importer = neuron_explainer.Importer(options["subject"], options["site"], on_bad)
    yield from importer.units(names)
    for kind, count in sorted(importer.left_out.items()):
        progress.say(f"{count} of {kind} left out")


def _latents(options: dict[str, Any], names: list[str]) -> Iterator[Record]:
    folder = options["tokenizer"]
    if folder is None or names == ["-"]:
        raise UsageError("--from delphi takes folders and --tokenizer DIR, where the model's tokenizer is")

    from nxtools.interop import delphi
    from nxtools.subject.load import load_tokenizer
    from nxtools.subject.vocabulary import token_texts

    texts = token_texts(load_tokenizer(Path(folder)))
    yield from delphi.units(names, texts, options["subject"])


def _export(options: dict[str, Any]) -> int:
    from nxtools.records import check_unit
    from nxtools.stream import Reader, Writer

    skipped = Skipped()
    reader = Reader(
        inputs_or_help(options["inputs"]), check_unit, keep_going=options["keep_going"], on_bad=skipped
    )
    progress = Progress("nx-convert", "units", quiet=options["quiet"])
    add, finish = _exporter(options["target"], as_files=options["output"] != "-")
    written: set[str] = set()
    with Writer("-") as out:

        def write(found: Found) -> None:
            for name, data in found:
                if name in written:
                    hint = "convert one subject and site at a time"
                    raise InputError(f"another unit has become {name} already", hint=hint)
                if name:
                    _write(Path(options["output"], name), data)
                    written.add(name)
                else:
                    out.write_line(data)

        for unit in reader:
            try:
                write(add(unit))
            except InputError as error:
                error.where = error.where or reader.where
                if not options["keep_going"]:
                    raise
                skipped(error)
            else:
                progress.step()
        write(finish())
    progress.say(f"{progress.done:,} units to {options['target']}")
    return skipped.status(options, progress.done)


Found = Iterator[tuple[str, bytes]]  # names of files, or none for lines on stdout, and bytes


def _exporter(target: str, *, as_files: bool) -> tuple[Callable[[Record], Found], Callable[[], Found]]:
    """What a unit becomes, and what is left at the end."""
    from nxtools.interop import neuron_explainer, neuronpedia
    from nxtools.stream import dump

    def lines(unit: Record) -> Found:
        if target == "neuronpedia":
            found = [dump(one) for of_kind in neuronpedia.exported(unit).values() for one in of_kind]
        else:
            found = [data.rstrip(b"\n") + b"\n" for _, data in neuron_explainer.exported(unit)]
        return (("", line) for line in found)

    if not as_files:
        return lines, lambda: iter(())
    if target == "neuron-explainer":
        return neuron_explainer.exported, lambda: iter(())
    batches = neuronpedia.Exporter()
    return batches.add, batches.finish


def _write(path: Path, data: bytes) -> None:
    from nxtools.errors import OutputError
    from nxtools.stream import Writer

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
    with Writer(str(path)) as out:
        out.write_line(data)
