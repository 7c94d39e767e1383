"""The options by which commands ask language models, and a run of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from nxtools.commands._base import Shared, family
from nxtools.commands._running import OfflineEngine, run_units
from nxtools.errors import UsageError
from nxtools.progress import Progress, warn
from nxtools.stream import Writer, dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nxtools.assistant.asking import Asking, DryRun
    from nxtools.stage import Counts, Engine, Loop, Step
    from nxtools.store import Store
    from nxtools.stream import Record

MODELS = "llama:FILE.gguf, hf:MODEL or openai:MODEL"

assistant_options = family(
    "Language models",
    [
        click.option(
            "--base-url", metavar="URL", help="The API behind openai:MODEL, such as a local server's."
        ),
        click.option(
            "--with-option",
            metavar="KEY=VALUE",
            multiple=True,
            help="For the engine: n_ctx=8192 for llama, a field of the request for openai.",
        ),
        click.option("--prompt", metavar="FILE", help="A prompt file in place of the one that comes along."),
        click.option("--examples", type=click.IntRange(0), help="Worked examples shown  [default: all]."),
        click.option("--max-calls", type=click.IntRange(1), help="Calls of an API at most."),
        click.option(
            "--identity", metavar="NAME", help="Store answers of an API under this name, not its URL."
        ),
        click.option("--price", metavar="IN,OUT", help="Of a million tokens, to be told what a run cost."),
        click.option("--dry-run", is_flag=True, help="Only say how many calls would be made."),
    ],
)

# What nx-explain and nx-revise show an explainer, and how language models simulate, under the name that a
# command has for it.
showing_options = family(
    "Language models",
    [
        click.option(
            "--form",
            type=click.Choice(["auto", "paper", "marked"]),
            default="auto",
            show_default=True,
            help="Tables of tokens and numbers, or text with marks; auto: marks where the model can chat.",
        ),
        click.option(
            "--excerpts", type=click.IntRange(1), default=5, show_default=True, help="Excerpts shown."
        ),
        click.option(
            "-n",
            "--candidates",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Explanations asked for.",
        ),
    ],
)


def simulation_option(name: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(
        name,
        type=click.Choice(["auto", "all-at-once", "one-at-a-time", "generate"]),
        default="auto",
        show_default=True,
        **more,
    )


def typed(*names: str) -> list[str]:
    """Which of these options stand on the command line; variables and nxtools.toml are for all commands."""
    source = click.get_current_context().get_parameter_source
    return [name for name in names if source(name) is click.core.ParameterSource.COMMANDLINE]


def check_unused(who: str, *also: str) -> None:
    """UsageError when an option was typed that only language models have. also: further ones."""
    ours = ["base_url", "with_option", "prompt", "examples", "max_calls", "identity", "price", "dry_run"]
    for name in typed(*ours, *also):
        raise UsageError(f"--{name.replace('_', '-')} is for {MODELS}, not for {who}")


class Assisted:
    """The assistants of a run: opened with the store, one for each name."""

    def __init__(self, shared: Shared, options: dict[str, Any], stage: str, main: str) -> None:
        """main: the assistant that `--with-option` is for; others get it if their engine is the same."""
        from nxtools.assistant.open import split_options

        self.shared = shared
        self.stage = stage
        self._engine = main.partition(":")[0]
        self._given = split_options(options["with_option"])
        self._base_url = options["base_url"]
        self._of_apis = {
            name: options[option]
            for name, option in (("jobs", "jobs"), ("max-calls", "max_calls"), ("identity", "identity"))
            if options.get(option)
        }
        self._price = _prices(options["price"])
        self._open: dict[str, Asking] = {}
        self._dry: DryRun | None = None
        if options["dry_run"]:
            from nxtools.assistant.asking import DryRun

            self._dry = DryRun()

    def asking(self, name: str, store: Store) -> Asking:
        """What `llama:…`, `hf:…` or `openai:…` is asked through."""
        if name not in self._open:
            from nxtools.assistant.asking import Asking
            from nxtools.assistant.open import open_assistant

            engine = name.partition(":")[0]
            given: dict[str, Any] = self._given if engine == self._engine else {}
            if engine == "openai":
                given = given | self._of_apis
            elif engine == self._engine and (wrong := typed("identity", "max_calls", "base_url")):
                raise UsageError(f"--{wrong[0].replace('_', '-')} is for openai:MODEL, not for {engine}:")
            texts = {key: str(value) for key, value in given.items()}
            base_url = self._base_url if engine == "openai" else None
            assistant = open_assistant(name, store, base_url=base_url, options=texts)
            offline = OfflineEngine(self.stage) if self.shared.cache_mode == "offline" else None
            instead: Engine | None = self._dry or offline
            self._open[name] = Asking(assistant, instead)
        return self._open[name]

    def instead_of(self, engine: Engine) -> Engine:
        """Who answers in the place of another engine: in a dry run nobody does anything."""
        return self._dry or engine

    def run(
        self,
        begin: Callable[[Store], Callable[[Record], Step]],
        unread: Callable[[], int],
        told: Callable[[], str] = lambda: "",
        prepare: Callable[[Iterable[Record]], Iterable[Record]] = lambda units: units,
        each: Callable[[Record], None] = lambda unit: None,
        also: Callable[[Progress, Counts], None] = lambda progress, counts: None,
    ) -> int:
        """Runs a command's step over its units. unread: answers that came and could not be used, so far;
        told: what else there is to say at the end, and also: said after it; each: sees units that go out."""
        if self._dry is not None:
            return self._count_units(begin, self._dry, prepare)

        def finish(progress: Progress, counts: Counts) -> None:
            counts.failed += unread()
            said = [f"{counts.units:,} units: {counts.described()}", told(), self._spent()]
            progress.say("; ".join(filter(None, said)))
            also(progress, counts)

        return run_units(self.shared, begin, prepare=prepare, each=each, finish=finish)

    def check(self, begin: Callable[[Store], Callable[[Record], Step]]) -> int:
        """Measures a simulator, writes one line about it and keeps that in the store, where nx-score finds
        it. Status 1 when it could not be asked."""
        from nxtools.simulate.check import described, measured, question, units
        from nxtools.stage import Loop
        from nxtools.store import question_digest

        if self._dry is not None:
            with self.shared.open_store() as store:
                return self._count(Loop(iter(units()), begin(store), store), self._dry)
        with self.shared.open_store() as store, Writer(self.shared.output) as out:
            loop = Loop(iter(units()), begin(store), store)
            found = measured(loop)
            if not loop.counts.failed:
                digest = question_digest(*question(found["by"]))
                store.put_many([(digest, dump(found))], kind="check")
            out.write(found)
        progress = Progress(self.shared.command, "units", quiet=self.shared.quiet)
        progress.say("; ".join(filter(None, [described(found["by"], found), self._spent()])))
        return self.shared.status(loop.counts)

    def _count_units(
        self,
        begin: Callable[[Store], Callable[[Record], Step]],
        dry: DryRun,
        prepare: Callable[[Iterable[Record]], Iterable[Record]],
    ) -> int:
        from nxtools.records import check_unit
        from nxtools.stage import Loop

        reader = self.shared.reader(check_unit)
        with self.shared.open_store() as store:
            loop = Loop(prepare(reader), begin(store), store, where=lambda: reader.where, ready=reader.ready)
            return self._count(loop, dry)

    def _count(self, loop: Loop, dry: DryRun) -> int:
        """Says what a run would ask."""
        with contextlib.closing(iter(loop)) as units:
            for _ in units:
                pass
        cost = self._cost(dry.tokens_in, dry.tokens_out)
        warn(
            f"{self.shared.command}: {loop.counts.units:,} units: {dry.calls:,} calls to make, of about "
            f"{dry.tokens_in:,} tokens in and at most {dry.tokens_out:,} out{cost}; the store has "
            f"{loop.counts.from_store:,} answers. What depends on those answers is not counted"
        )
        return 0

    def _spent(self) -> str:
        tokens = [
            (asking.assistant.tokens_in, asking.assistant.tokens_out)
            for asking in self._open.values()
            if hasattr(asking.assistant, "tokens_in") and hasattr(asking.assistant, "tokens_out")
        ]
        into, out = (sum(pair[side] for pair in tokens) for side in (0, 1))
        return f"{into:,} tokens in, {out:,} out{self._cost(into, out)}" if into or out else ""

    def _cost(self, tokens_in: int, tokens_out: int) -> str:
        if self._price is None:
            return ""
        return f" ({(tokens_in * self._price[0] + tokens_out * self._price[1]) / 1e6:.4f} at --price)"


class Ceilings:
    """What the simulators whose simulations were scored can reach, as far as they were measured.

    seen: how each of them signs, by the question of its check.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.seen: dict[str, Record] = {}

    def note(self, by: Record) -> None:
        """A simulator that signs its simulations so."""
        if "model" in by:
            from nxtools.simulate.check import question
            from nxtools.store import question_digest

            self.seen.setdefault(question_digest(*question(by)), by)

    def lines(self) -> list[str]:
        """For people: a line for each simulator."""
        if not self.seen or self._shared.cache_mode == "none":
            return []
        import orjson

        from nxtools.simulate.check import described

        with self._shared.open_store("normal") as store:
            found = store.get_many(self.seen)
        return [
            described(by, orjson.loads(found[digest]) if digest in found else None)
            for digest, by in self.seen.items()
        ]


def _prices(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        into, out = map(float, text.split(","))
    except ValueError:
        hint = "--price 0.15,0.60"
        raise UsageError(
            f"--price takes the prices of a million tokens in and out, not {text!r}", hint=hint
        ) from None
    return into, out
