"""What every nx-* command shares: options, one-line errors, exit status, the store, help with examples."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click

from nxtools import config
from nxtools.errors import InputError, NxError, UsageError
from nxtools.progress import Progress, warn
from nxtools.stream import Reader, ReaderLeft, Record, Writer

if TYPE_CHECKING:
    from nxtools.stage import Counts, Engine, Step
    from nxtools.store import Mode, Store

EXIT_SOME_FAILED = 1
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

EXIT_CODES = (
    "0 done; 1 some answers are errors; 2 usage; 3 the input cannot be read; "
    "4 a model cannot be used; 70 a bug; 130 interrupted"
)


class NxCommand(click.Command):
    """A command whose help ends with its records, examples and exit codes, all from its docstring."""

    def __init__(self, *args: Any, examples: str, takes: str, gives: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.takes = takes
        self.gives = gives

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Records"):
            formatter.write_dl([("in", self.takes), ("out", self.gives)])
        with formatter.section("Examples"):
            for line in self.examples.strip().splitlines():
                formatter.write(f"  {line.strip()}\n" if line.strip() else "\n")
        with formatter.section("Exit status"):
            formatter.write_text(EXIT_CODES)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        sys.exit(self._guarded(*args, **kwargs))

    def _guarded(self, *args: Any, **kwargs: Any) -> int:
        name = self.name or "nx"
        try:
            kwargs.setdefault("auto_envvar_prefix", config.PREFIX)
            defaults = config.defaults_for(name.removeprefix("nx-"))
            kwargs.setdefault("default_map", defaults)
            kwargs.setdefault("prog_name", name)
            status: Any = super().main(*args, **{**kwargs, "standalone_mode": False})
            return status if isinstance(status, int) else 0
        except ReaderLeft:
            return 0
        except click.exceptions.Abort:
            return EXIT_INTERRUPTED
        except click.ClickException as error:
            warn(f"{name}: {error.format_message()} (see {name} -h)")
            return error.exit_code
        except NxError as error:
            return self._report(error, str(error), error.exit_status)
        except KeyboardInterrupt:
            warn(f"{name}: interrupted; what was finished is in the store, run it again to go on")
            return EXIT_INTERRUPTED
        except BrokenPipeError as error:
            return self._report(error, f"a connection closed: {error}", EXIT_BUG)
        except Exception as error:
            where = f"{type(error).__name__}: {error}"
            return self._report(
                error, f"this is a bug: {where} (NXTOOLS_DEBUG=1 shows the traceback)", EXIT_BUG
            )

    def _report(self, error: Exception, line: str, status: int) -> int:
        if os.environ.get("NXTOOLS_DEBUG"):
            import traceback

            traceback.print_exception(error)
        warn(f"{self.name}: {line}")
        return status


def command(name: str, *, examples: str, takes: str, gives: str) -> Callable[[Callable[..., Any]], NxCommand]:
    """Turns a function into an nx-* command; its docstring is the manual's first paragraph."""

    def wrap(function: Callable[..., Any]) -> NxCommand:
        made = click.command(
            name,
            cls=NxCommand,
            examples=examples,
            takes=takes,
            gives=gives,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        )(function)
        assert isinstance(made, NxCommand)
        return made

    return wrap


def _stack(options: Iterable[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def wrap(function: Any) -> Any:
        for option in reversed(list(options)):
            function = option(function)
        return function

    return wrap


@dataclass(frozen=True)
class Shared:
    """The values of the options that every command has."""

    command: str
    inputs: tuple[str, ...]
    output: str
    cache: str | None
    cache_mode: Mode
    keep_going: bool
    allow_errors: str
    quiet: bool

    @classmethod
    def of(cls, name: str, options: dict[str, Any]) -> Shared:
        """Takes the shared options out of a command's keyword arguments."""
        flags: dict[str, Mode] = {"no_cache": "none", "refresh": "refresh", "offline": "offline"}
        modes = [mode for flag, mode in flags.items() if options.pop(flag)]
        if len(modes) > 1:
            raise UsageError("--no-cache, --refresh and --offline exclude each other")
        return cls(
            command=name,
            inputs=tuple(options.pop("inputs", ())),
            output=options.pop("output"),
            cache=options.pop("cache"),
            cache_mode=modes[0] if modes else "normal",
            keep_going=options.pop("keep_going"),
            allow_errors=options.pop("allow_errors"),
            quiet=options.pop("quiet"),
        )

    def open_store(self) -> Store:
        from nxtools.store import Store, default_path

        path = self.cache or default_path()
        return Store(path, mode=self.cache_mode, warn=lambda line: warn(f"{self.command}: {line}"))

    def on_bad(self, error: InputError) -> None:
        warn(f"{self.command}: {error}; skipped")

    def reader(self, check: Callable[[Record], None]) -> Reader:
        if not self.inputs and sys.stdin.isatty():
            click.echo(click.get_current_context().get_help(), err=True)
            sys.exit(2)
        return Reader(self.inputs, check, keep_going=self.keep_going, on_bad=self.on_bad)

    def status(self, counts: Counts) -> int:
        """0, or 1 when more answers failed than --allow-errors admits."""
        text = self.allow_errors.strip()
        try:
            if text.endswith("%"):
                allowed = float(text[:-1]) / 100 * max(1, counts.asked + counts.skipped)
            else:
                allowed = int(text)
        except ValueError as error:
            raise UsageError(f"--allow-errors takes a number or a percentage, not {text!r}") from error
        return EXIT_SOME_FAILED if counts.errors > allowed else 0


shared_options = _stack(
    [
        click.option(
            "-o",
            "--output",
            default="-",
            metavar="FILE",
            help="Write here instead of stdout; the file appears when it is complete.",
        ),
        click.option(
            "--cache", metavar="DIR", help="The store  [default: NXTOOLS_CACHE, or the user's cache folder]."
        ),
        click.option("--no-cache", is_flag=True, help="Neither read nor write the store."),
        click.option("--refresh", is_flag=True, help="Compute anew and replace what the store has."),
        click.option("--offline", is_flag=True, help="An answer that is not in the store is an error."),
        click.option("--keep-going", is_flag=True, help="Skip and count lines that cannot be read."),
        click.option(
            "--allow-errors", default="0", metavar="N|P%", help="Exit 0 in spite of so many failed answers."
        ),
        click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
        click.version_option(package_name="nxtools", message="%(prog)s, nxtools %(version)s"),
    ]
)

inputs_argument = click.argument("inputs", nargs=-1, metavar="[FILE]...")


class OfflineEngine:
    """Stands where an engine would be under --offline: whatever it is asked was not in the store."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def answer(self, pull: Callable[[int], list[Any]]) -> Iterator[list[tuple[Any, Any]]]:
        from nxtools.stage import Failure

        while asks := pull(64):
            failure = Failure(self.stage, "offline", "the answer is not in the store and --offline was given")
            yield [(ask, failure) for ask in asks]


def run_units(
    shared: Shared,
    begin: Callable[[Store], Callable[[Record], Step]],
    *,
    noun: str = "units",
    prepare: Callable[[Iterable[Record]], Iterable[Record]] = lambda units: units,
    each: Callable[[Record], None] = lambda unit: None,
    finish: Callable[[Progress, Counts], None] = lambda progress, counts: None,
) -> int:
    """Runs the step that `begin(store)` gives over the units that come in; returns the exit status."""
    from nxtools.records import check_unit
    from nxtools.stage import Loop

    reader = shared.reader(check_unit)
    skipped = 0

    def on_bad(error: InputError) -> None:
        nonlocal skipped
        skipped += 1
        shared.on_bad(error)

    reader.on_bad = on_bad
    progress = Progress(shared.command, noun, quiet=shared.quiet)
    with shared.open_store() as store, Writer(shared.output) as out:
        loop = Loop(
            prepare(reader),
            begin(store),
            store,
            where=lambda: reader.where,
            keep_going=shared.keep_going,
            on_bad=shared.on_bad,
        )
        for unit in loop:
            each(unit)
            out.write(unit)
            progress.step()
        loop.counts.skipped += skipped
        finish(progress, loop.counts)
        return shared.status(loop.counts)


def engine_or_offline(shared: Shared, stage: str, engine: Engine) -> Engine:
    return OfflineEngine(stage) if shared.cache_mode == "offline" else engine
