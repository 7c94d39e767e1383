"""nx-view --text and --try: what units do on texts that somebody gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, family
from nxtools.commands._running import engine_or_offline
from nxtools.commands._viewing import lexicons
from nxtools.errors import InputError, NxError, UsageError
from nxtools.progress import warn

if TYPE_CHECKING:
    from nxtools.stage import Counts, Step
    from nxtools.store import Store
    from nxtools.stream import Record
    from nxtools.view.texts import Watch

EACH = 4

text_options = family(
    "Texts of your own",
    [
        click.option(
            "--text",
            "texts",
            multiple=True,
            metavar="TEXT",
            help="Show the units that fire most at each token of this text; may be repeated.",
        ),
        click.option(
            "--try",
            "tried",
            metavar="LAYER:INDEX",
            help="Run this unit on sentences from stdin, one a line, beside what its explanation says.",
        ),
        click.option(
            "--each", type=click.IntRange(1), metavar="N", help=f"Units under a token  [default: {EACH}]."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print --text and --try as JSON lines."),
        click.option("--subject", metavar="DIR|HUB_ID", help="What is run  [default: by its name]."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
        click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model."),
        click.option("--allow-pickle", is_flag=True, help="Load weights from .bin files (tensors only)."),
    ],
)


def asked_about_texts(options: dict[str, Any]) -> bool:
    """Whether texts are to be shown here, and in no report. UsageError for what does not go together."""
    if options["texts"] and options["tried"]:
        raise UsageError("--text and --try exclude each other")
    if options["as_json"] and not (options["texts"] or options["tried"]):
        raise UsageError("--json goes with --text or --try")
    if options["each"] and not (options["texts"] or options["serve"]):
        raise UsageError("--each goes with --text")
    for text in options["texts"]:
        if not text.strip():
            raise UsageError("--text takes a text, not nothing")
    in_report = options["output"] != "-" and not options["as_json"]
    return bool(options["tried"]) or (bool(options["texts"]) and not in_report and not options["serve"])


class Asking:
    """Answers questions about texts. The subject is loaded once, if something is not in the store."""

    def __init__(self, shared: Shared, options: dict[str, Any], store: Store) -> None:
        from nxtools.commands._subjects import reader, speller

        self._store = store
        self._speller = engine_or_offline(shared, "view", speller(options, store, "view"))
        self._reader = engine_or_offline(shared, "view", reader(options, store, "view"))
        self._lexicon = lexicons(shared)

    def texts(self, watch: Watch, texts: Sequence[str]) -> Iterator[Record]:
        """What each does to the units, in order."""
        records = ({"text": text} for text in texts)
        yield from self._run(records, lambda record: watch.step(record, self._speller, self._reader))

    def tried(self, record: Record, address: str, sentences: Sequence[str]) -> Record:
        """What a unit does on sentences."""
        from nxtools.view.trying import trying

        (found,) = self._run(
            [record],
            lambda unit: trying(unit, address, sentences, self._lexicon, self._speller, self._reader),
        )
        return found

    def _run(self, records: Iterable[Record], step: Callable[[Record], Step]) -> Iterable[Record]:
        from nxtools.stage import Loop

        return Loop(records, step, self._store)


@contextmanager
def asking(shared: Shared, options: dict[str, Any]) -> Iterator[Asking]:
    with shared.open_store() as store:
        yield Asking(shared, options, store)


def show_texts(shared: Shared, names: Sequence[str], options: dict[str, Any]) -> int:
    """Draws, or prints as JSON, what units do on texts. Returns the exit status."""
    from nxtools.stage import Counts
    from nxtools.stream import Writer, dump
    from nxtools.view.text_sheet import drawn

    counts = Counts()
    with asking(shared, options) as asked, Writer(shared.output) as out:
        look = _tried if options["tried"] else _texts
        for found in look(shared, names, asked, options, counts):
            counts.failed += "error" in found
            if options["as_json"]:
                out.write_line(dump(found))
            else:
                text = drawn(found, to_file=shared.output != "-", light=options["light"])
                out.write_line(text.encode("utf-8", "replace"))
            out.flush()
    return shared.status(counts)


def _texts(
    shared: Shared, names: Sequence[str], asked: Asking, options: dict[str, Any], counts: Counts
) -> Iterator[Record]:
    from nxtools.folded import folded
    from nxtools.records import check_unit
    from nxtools.view.report import Addresses

    watch, addresses = watching(options), Addresses()
    reader = shared.reader(check_unit, folded)
    for record in reader:
        watch.add(addresses.of(record), record)
    counts.skipped += reader.skipped
    tell_left_out(shared, watch)
    yield from asked.texts(watch, options["texts"])


def watching(options: dict[str, Any]) -> Watch:
    from nxtools.view.texts import Watch

    return Watch(options["each"] or EACH)


def tell_left_out(shared: Shared, watch: Watch) -> None:
    if watch.left_out:
        warn(f"{shared.command}: {watch.left_out:,} units of another subject or run are left out of texts")


def texts_for_report(shared: Shared, watch: Watch, options: dict[str, Any]) -> list[Record]:
    """What stands on the page of texts."""
    tell_left_out(shared, watch)
    with asking(shared, options) as asked:
        return list(asked.texts(watch, options["texts"]))


class Answers:
    """What a server says to texts that somebody types; the subject is loaded at the first one."""

    def __init__(self, asked: Asking, watch: Watch, unit: Callable[[str], Record]) -> None:
        """unit: the line at an address, or KeyError."""
        self._asked, self._watch, self._unit = asked, watch, unit

    def by_name(self) -> dict[str, Callable[[Any], Record]]:
        return {"text": self._text, "try": self._try}

    def _text(self, question: Any) -> Record:
        (text,) = _strings(question, "text")
        try:
            (found,) = self._asked.texts(self._watch, [text])
        except NxError as error:
            return {"text": text, **_failed(error)}
        return found

    def _try(self, question: Any) -> Record:
        address, text = _strings(question, "address", "text")
        sentences = [line for line in text.splitlines() if line.strip()]
        try:
            return self._asked.tried(self._unit(address), address, sentences)
        except KeyError:
            return _failed(InputError(f"there is no unit {address}"))
        except NxError as error:
            return _failed(error)


def _strings(question: Any, *names: str) -> list[str]:
    """InputError where one is not there, or empty."""
    given = question if isinstance(question, dict) else {}
    found = [value for name in names if isinstance(value := given.get(name), str) and value.strip()]
    if len(found) < len(names):
        raise InputError(f"a question has {' and '.join(names)}")
    return found


def _failed(error: NxError) -> Record:
    return {"error": {"stage": "view", "kind": "failed", "message": str(error)}}


def _tried(
    shared: Shared, names: Sequence[str], asked: Asking, options: dict[str, Any], counts: Counts
) -> Iterator[Record]:
    from nxtools.view.finding import Search, Wanted, record

    if "-" in names or not shared.inputs:
        raise UsageError("--try reads sentences from stdin", hint="name the file with the units")
    try:
        wanted = Wanted.parse(options["tried"])
    except ValueError as error:
        hint = "--try 2:41 is layer 2, unit 41"
        raise UsageError(f"--try takes LAYER:INDEX, not {options['tried']!r}", hint=hint) from error
    lines = Search(names).named([wanted])[wanted]
    if not lines:
        raise InputError(f"there is no unit {wanted}")
    sentences = _sentences()
    for line in lines:
        yield asked.tried(record(line), str(wanted), sentences)


def _sentences() -> list[str]:
    """What stands on stdin, a sentence a line. InputError for nothing."""
    from nxtools.stream import opened

    with opened("-") as file:
        text = file.read().decode("utf-8", "replace")
    found = [line for line in text.splitlines() if line.strip()]
    if not found:
        raise InputError("there are no sentences on stdin", hint="--try reads one a line")
    return found
