"""nx-cache: where the store is, what it holds, whether it is whole, and what may go."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._amounts import BYTES, amount
from nxtools.commands._base import EXIT_SOME_FAILED, NxCommand
from nxtools.errors import UsageError
from nxtools.progress import warn

if TYPE_CHECKING:
    from nxtools.store import Store
    from nxtools.store.upkeep import Collected, Verified

EXAMPLES = """
nx-cache
nx-cache verify --mend
nx-cache gc --older-than 30d
nx-cache gc --kind recording --max-size 5G --dry-run
"""


class Group(NxCommand, click.Group):
    """A command that has commands of its own, and reports errors as all do."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


DAYS = amount({"h": 1 / 24, "d": 1, "w": 7})

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")


@click.group(
    "nx-cache",
    cls=Group,
    invoke_without_command=True,
    examples=EXAMPLES,
    takes="none",
    gives="none: text for people, or one JSON object with --json",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--cache", metavar="DIR", help="The store  [default: NXTOOLS_CACHE, or the user's cache folder]."
)
@json_option
@click.version_option(package_name="nxtools", message="%(prog)s, nxtools %(version)s")
@click.pass_context
def main(ctx: click.Context, cache: str | None, as_json: bool) -> int:
    """Say where the store is and what it holds, by kind. Its commands look after it."""
    ctx.obj = cache
    return 0 if ctx.invoked_subcommand else show(cache, as_json)


def show(cache: str | None, as_json: bool) -> int:
    from nxtools.store.upkeep import count_answers, sizes

    with open_store(cache) as store:
        there = store.path.is_dir()
        kinds = sizes(store) if there else {}
        answers = count_answers(store) if there else 0
        free = store.free_bytes()
    lines = [f"{store.path}{'' if there else ' (nothing there yet)'}"]
    lines += [f"  {kind:<16}{blobs(size.blobs):>16}{human(size.stored):>12}" for kind, size in kinds.items()]
    lines.append(f"answers to {answers:,} questions; {human(free)} free on this disk")
    sizes_by_kind = {kind: dataclasses.asdict(size) for kind, size in kinds.items()}
    record = {"path": str(store.path), "kinds": sizes_by_kind, "answers": answers, "free_bytes": free}
    say(record if as_json else lines)
    return 0


@main.command("verify")
@click.option("--mend", is_flag=True, help="Forget what is damaged; rebuild a damaged database.")
@json_option
@click.pass_obj
def verify_command(cache: str | None, mend: bool, as_json: bool) -> int:
    """Read everything and say what is wrong. Exit 1 when something is, and was not mended."""
    from nxtools.store.upkeep import verify

    with open_store(cache) as store:
        found = verify(store, mend=mend)
    if as_json:
        say({**dataclasses.asdict(found), "mended": mend})
    else:
        faults = list(findings(found))
        verdict = "mended" if mend else "nx-cache verify --mend mends this"
        whole = (
            f"read {blobs(found.blobs)} ({human(found.bytes)}), the answers to {found.answers:,} questions"
        )
        say([whole, *faults, verdict if faults else "all is well"])
    return 0 if mend or found.is_whole else EXIT_SOME_FAILED


def findings(found: Verified) -> list[str]:
    """What is wrong, a line for each sort of fault."""
    counted = {
        "damaged": len(found.damaged),
        "whose file is gone": len(found.missing),
        "whole, but not listed": len(found.unlisted),
        "named by an answer, but gone": found.dangling,
        "left half written by a command that was killed": found.abandoned,
    }
    lines = [f"  {blobs(count)} {what}" for what, count in counted.items() if count]
    return lines if found.database == "ok" else [f"  the database is damaged: {found.database}", *lines]


@main.command("gc")
@click.option("--older-than", type=DAYS, metavar="AGE", help="Remove what was not used for so long: 30d, 4w.")
@click.option(
    "--max-size", type=BYTES, metavar="SIZE", help="Remove the longest unused until it fits: 5G, 500M."
)
@click.option("--kind", "kinds", multiple=True, help="Look at blobs of this kind only; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_obj
def collect_command(
    cache: str | None,
    older_than: float | None,
    max_size: float | None,
    kinds: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Collect garbage: remove blobs that nobody used, and the answers that they are."""
    from nxtools.store.upkeep import collect

    if older_than is None and max_size is None:
        raise UsageError("gc needs to know what may go", hint="--older-than 30d, --max-size 5G")
    limit = None if max_size is None else int(max_size)
    with open_store(cache) as store:
        gone = collect(store, older_than=older_than, kinds=kinds, max_bytes=limit, dry_run=dry_run)
    report(gone, "would go" if dry_run else "removed", as_json)
    return 0


@main.command("clear")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def clear_command(cache: str | None, yes: bool, as_json: bool) -> int:
    """Remove everything from the store, after asking."""
    from nxtools.store.upkeep import clear

    with open_store(cache) as store:
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("clear removes everything, and there is nobody to ask", hint="--yes")
            click.confirm(f"Remove everything from {store.path}?", abort=True, err=True)
        gone = clear(store)
    report(gone, "removed", as_json)
    return 0


def open_store(cache: str | None) -> Store:
    from nxtools.store import Store

    return Store(cache, warn=lambda line: warn(f"nx-cache: {line}"))


def report(gone: Collected, verb: str, as_json: bool) -> None:
    kinds = [f"  {kind:<16}{blobs(count):>16}" for kind, count in sorted(gone.kinds.items())]
    lines = [*kinds, f"{blobs(gone.blobs)} {verb}, {human(gone.stored)}"]
    say(dataclasses.asdict(gone) if as_json else lines)


def say(what: dict[str, Any] | list[str]) -> None:
    import orjson

    from nxtools.stream import to_stdout

    with to_stdout():
        click.echo(orjson.dumps(what) if isinstance(what, dict) else "\n".join(what))


def blobs(count: int) -> str:
    return f"{count:,} blob{'' if count == 1 else 's'}"


def human(count: float) -> str:
    """A number of bytes with three digits and a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
