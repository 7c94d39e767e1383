"""What every nx-* command shares: options, one-line errors, exit status, the store, help with examples."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click

from nxtools import commands, config
from nxtools.errors import InputError, NxError, UsageError
from nxtools.progress import warn, warn_once
from nxtools.stream import JSON_NAMES, Reader, ReaderLeft, Record, named, to_stdout

if TYPE_CHECKING:
    from nxtools.stage import Counts
    from nxtools.store import Mode, Store

EXIT_SOME_FAILED = 1
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

EXIT_CODES = (
    "0 done; 1 some answers are errors; 2 usage; 3 the input cannot be read or the output not written; "
    "4 a model cannot be used; 70 a bug; 130 interrupted"
)


OWN, OF_ALL = "Options", "Options of all commands"


class NxCommand(click.Command):
    """A command whose help ends with its records, examples and exit codes, all from its docstring."""

    def __init__(self, *args: Any, examples: str, takes: str, gives: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.takes = takes
        self.gives = gives
        for name, option in self.options().items():
            option.envvar = option.envvar or config.variable(name)

    def options(self) -> dict[str, click.Option]:
        """The options that have a value, by name as it is typed: `allow-errors`."""
        return {
            next((o for o in param.opts if o.startswith("--")), param.opts[0]).lstrip("-"): param
            for param in self.params
            if isinstance(param, click.Option) and param.expose_value
        }

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Families of options (see `family`) under their names, in the order of the first of each."""
        families: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and isinstance(param, click.Option):
                last = next(reversed(families), OWN)
                name = last if "--help" in param.opts else getattr(param, "family", OWN)
                families.setdefault(name, []).append(record)
        for name, records in families.items():
            with formatter.section(name):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Records"):
            formatter.write_dl([("in", self.takes), ("out", self.gives)])
        with formatter.section("Examples"):
            for line in self.examples.strip().splitlines():
                formatter.write(f"  {line.strip()}\n" if line.strip() else "\n")
        with formatter.section("Exit status"):
            formatter.write_text(EXIT_CODES)

    def main(self, args: Iterable[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        """Runs the command and exits. click's own `main` takes any broken pipe for a reader that left."""
        sys.exit(self._guarded(list(sys.argv[1:] if args is None else args)))

    def _guarded(self, args: list[str]) -> int:
        try:
            with self._parsed(args) as ctx:
                status: Any = self.invoke(ctx)
            return status if isinstance(status, int) else 0
        except ReaderLeft:
            return 0
        except click.exceptions.Exit as error:
            return error.exit_code
        except click.exceptions.Abort:  # a question was answered with no
            return EXIT_INTERRUPTED
        except KeyboardInterrupt:
            warn(f"{self.name}: interrupted (what was finished is in the store: run it again to go on)")
            return EXIT_INTERRUPTED
        except click.ClickException as error:
            return self._report(error, f"{_complaint(error)} (see {self.name} -h)", error.exit_code)
        except NxError as error:
            return self._report(error, str(error), error.exit_status)
        except BrokenPipeError as error:
            return self._report(error, f"a connection closed: {error}", EXIT_BUG)
        except Exception as error:
            what = ", ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
            return self._report(
                error, f"this is a bug: {what} (NXTOOLS_DEBUG=1 shows the traceback)", EXIT_BUG
            )

    def _parsed(self, args: list[str]) -> click.Context:
        """What was asked for; -h and --version print it and raise Exit."""
        defaults = self._defaults()
        with to_stdout():
            return self.make_context(self.name, args, default_map=defaults)

    def _defaults(self) -> dict[str, Any]:
        """What nxtools.toml sets, by parameter. UsageError for what fits no option."""
        options = self.options()
        others = [f"nx-{name}" for name in commands.names()]
        found = config.settings(self.name or "", options, others, options_of_all)
        defaults = {}
        for name, value in found.items():
            option = options[name]
            kinds: tuple[type, ...] = (str, int, float)
            if option.is_flag or option.multiple:
                kinds = (bool,) if option.is_flag else (list,)
            if type(value) not in kinds:
                wanted = " or ".join(JSON_NAMES[kind] for kind in kinds)
                raise UsageError(f"{name!r} is {named(value)}, not {wanted}", where=config.FILE)
            defaults[option.name or name] = value
        return defaults

    def _report(self, error: Exception, line: str, status: int) -> int:
        if os.environ.get("NXTOOLS_DEBUG"):
            import traceback

            traceback.print_exception(error)
        warn(f"{self.name}: {' '.join(part.strip() for part in line.splitlines())}")
        return status


def options_of_all() -> set[str]:
    """The options of all commands, which are loaded for it: only what nxtools.toml says makes us ask."""
    made = [importlib.import_module(f"nxtools.commands.{name}").main for name in commands.names()]
    return {option for command in made for option in command.options()}


def _complaint(error: click.ClickException) -> str:
    """What click says is wrong, and where the value stood when it was not typed."""
    message = error.format_message()
    if isinstance(error, click.BadParameter) and error.ctx and isinstance(error.param, click.Option):
        source = error.ctx.get_parameter_source(error.param.name or "")
        if source is click.core.ParameterSource.ENVIRONMENT:
            return f"{error.param.envvar}: {message}"
        if source is click.core.ParameterSource.DEFAULT_MAP:
            return f"{config.FILE}: {message}"
    return message


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


def family(name: str, options: Iterable[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Several options as one decorator; -h shows them together under the name."""

    def wrap(function: Any) -> Any:
        for option in reversed(list(options)):
            function = option(function)
            function.__click_params__[-1].family = name
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
        allowed(options["allow_errors"], 0)  # better to hear of it now than when all is done
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

    def open_store(self, mode: Mode | None = None) -> Store:
        from nxtools.store import Store, default_path

        path = self.cache or default_path()
        return Store(
            path, mode=mode or self.cache_mode, warn=lambda line: warn_once(f"{self.command}: {line}")
        )

    def on_bad(self, error: InputError) -> None:
        warn(f"{self.command}: {error.where}: {error.message}; skipped")

    def reader(
        self, check: Callable[[Record], None], parse: Callable[[bytes], Record] | None = None
    ) -> Reader:
        if not self.inputs and sys.stdin is not None and sys.stdin.isatty():
            click.echo(click.get_current_context().get_help(), err=True)
            sys.exit(2)
        return Reader(self.inputs, check, keep_going=self.keep_going, on_bad=self.on_bad, parse=parse)

    def status(self, counts: Counts) -> int:
        """0, or 1 when more answers failed than --allow-errors admits."""
        admitted = allowed(self.allow_errors, counts.asked + counts.skipped)
        return EXIT_SOME_FAILED if counts.errors > admitted else 0


def allowed(text: str, total: int) -> float:
    """How many errors `--allow-errors 3` or `--allow-errors 5%` admits among so many. UsageError."""
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", text.strip(), re.ASCII)
    if match is None:
        hint = "--allow-errors 3, --allow-errors 5%"
        raise UsageError(f"--allow-errors takes a number or a percentage, not {text!r}", hint=hint)
    return int(match[1]) if match[1] else float(match[2]) * total / 100


shared_options = family(
    OF_ALL,
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
    ],
)

inputs_argument = click.argument("inputs", nargs=-1, metavar="[FILE]...")
