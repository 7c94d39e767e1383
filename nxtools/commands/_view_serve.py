"""nx-view --serve: the report from this machine to a browser on it, until Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, family
from nxtools.commands._view_texts import Answers, asking, tell_left_out, watching
from nxtools.errors import UsageError
from nxtools.progress import Progress, warn

if TYPE_CHECKING:
    from nxtools.stream import Record
    from nxtools.view.serve import Server, Site

PORT = 8428

serve_options = family(
    "From a server, for large runs",
    [
        click.option(
            "--serve",
            is_flag=True,
            help="Read units when somebody looks at them, from a server on this machine.",
        ),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            metavar="N",
            help=f"Where it listens; 0 takes any that is free  [default: {PORT}].",
        ),
    ],
)


def asked_to_serve(options: dict[str, Any]) -> bool:
    """UsageError for a port without a server."""
    if options["port"] is not None and not options["serve"]:
        raise UsageError("--port goes with --serve")
    return bool(options["serve"])


def serve(shared: Shared, names: Sequence[str], options: dict[str, Any]) -> int:
    """Indexes the units, prints the address, and answers until Ctrl-C. Returns the exit status."""
    import gc

    from nxtools.commands._viewing import completing
    from nxtools.stage import Counts
    from nxtools.view.index import Index
    from nxtools.view.serve import Site

    if shared.output != "-":
        raise UsageError("--serve writes no file", hint="leave --serve out to write one that opens anywhere")
    gc.set_threshold(200_000)  # lines are lists and dicts without a cycle among them
    progress = Progress(shared.command, "units", quiet=shared.quiet)

    watch = watching(options)

    def each(address: str, record: Record) -> None:
        watch.add(address, record)
        progress.step()

    index = Index(names, keep_going=shared.keep_going, on_bad=shared.on_bad, each=each)
    tell_left_out(shared, watch)
    with asking(shared, options) as asked:
        answers = Answers(asked, watch, index.__getitem__).by_name()
        given = list(asked.texts(watch, options["texts"]))
        site = Site(
            index,
            options["title"],
            complete=completing(shared),
            parts={"texts": lambda: given},
            answers=answers,
        )
        site.warm_up()
        gc.freeze()  # nothing of the index is ever garbage
        progress.say(f"{len(index.rows):,} units; Ctrl-C ends it")
        _serve(shared, site, options)
        progress.say("ended")
    return shared.status(Counts(skipped=index.skipped))


def _serve(shared: Shared, site: Site, options: dict[str, Any]) -> None:
    """Until Ctrl-C."""
    port = PORT if options["port"] is None else options["port"]
    with suppress(KeyboardInterrupt), _listening(site, port, shared.command) as server:
        _announce(server.url)
        server.serve_forever()


def _listening(site: Site, port: int, command: str) -> Server:
    from nxtools.view.serve import Server

    try:
        return Server(site, port, lambda line: warn(f"{command}: {line}"))
    except OSError as error:
        message = f"--port: {port} cannot be had: {error.strerror}"
        raise UsageError(message, hint="--port 0 takes any that is free") from error


def _announce(url: str) -> None:
    """The address on stdout, so that programs can read it too."""
    from nxtools.stream import to_stdout

    with to_stdout():
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
