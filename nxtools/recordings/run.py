"""All recordings that came in: checked for completeness, merged layer by layer, written as unit lines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property

import numpy as np
import orjson
from numpy.typing import NDArray

from nxtools.errors import InputError, UsageError
from nxtools.recordings.deal import Counts, deal
from nxtools.recordings.deal_paper import TOP as PAPER_TOP
from nxtools.recordings.deal_paper import deal_paper
from nxtools.recordings.layer import Corpus, Layer, OpenBlob
from nxtools.recordings.lines import Printed, UnitLines
from nxtools.recordings.pool import pack_places, pack_tokens
from nxtools.recordings.statistics import is_constant, statistics, values
from nxtools.recordings.table import pack_table
from nxtools.records import VERSION, Failure, check_recording, field
from nxtools.stream import Record, dump
from nxtools.subject.excerpts import Plan

PutBlob = Callable[[bytes], str]
Place = tuple[int, int]  # layer and index of a unit

AGAIN = "run nx-record again; finished shards are in the store"


def check_line(line: Record) -> None:
    """Whether a recording line has what merging needs. Raises InputError naming the field."""
    check_recording(line)
    for path, kind in {
        "dtype": str,
        "sign": str,
        "width": int,
        "keep": list,
        "pool": list,
        "vocabulary": str,
        "command": str,
    }.items():
        field(line, path, kind)


class Run:
    """Recording lines of one subject and site, from one run or from several over different text.

    Raises InputError when they do not belong together, are not complete, or name a blob that is gone.
    `layers`: numbers in order; `near_duplicates`: dropped between sets, and `repeated`: excerpts that several
    runs have, both counted while lines are written, as are the names of `partial` tables, which not all
    recordings of a layer have.
    """

    def __init__(self, lines: Sequence[Record], open_blob: OpenBlob, put_blob: PutBlob) -> None:
        self._open_blob, self._put = open_blob, put_blob
        self.near_duplicates = self.repeated = 0
        self.partial: set[str] = set()
        _check_alike(lines)
        self._first = lines[0]
        self._command_of = {
            blob: line["command"]
            for line in lines
            for blob in (
                line["blob"],
                *line["pool"],
                line["plan"],
                line["vocabulary"],
                *_tables(line).values(),
            )
        }
        by_place = {(line["layer"], line["run"], line["shard"]): line for line in lines}  # twice is once
        self._by_layer: dict[int, list[Record]] = {}
        for place in sorted(by_place):
            self._by_layer.setdefault(place[0], []).append(by_place[place])
        self.layers = sorted(self._by_layer)
        for layer, of_layer in self._by_layer.items():
            _check_whole(layer, of_layer)
        for run in {line["run"]: None for line in lines}:
            if not any(line.get("last") for line in lines if line["run"] == run):
                raise InputError("the last recording line is missing: the stream was cut", hint=AGAIN)
        self._plans: dict[str, Plan] = {}
        self._printed: tuple[list[str], Printed] | None = None

    def _open(self, digest: str) -> memoryview:
        try:
            return self._open_blob(digest)
        except InputError as error:
            command = self._command_of.get(digest, self._first["command"])
            raise InputError(
                f"{error.message}, which the recording needs", hint=f"bring it back with: {command}"
            ) from error

    @cached_property
    def _vocabulary(self) -> list[str]:
        names: list[str] = orjson.loads(bytes(self._open(self._first["vocabulary"])))
        return names

    def values(self, name: str) -> Iterator[tuple[Place, float | None]]:
        """One of the statistics' NAMES for every unit that would be written: (layer, index) and number."""
        for number, lines in sorted(self._by_layer.items()):
            layer = self._layer(lines)[0]
            of_all = values(layer, name)
            yield from (((number, unit), of_all[unit]) for unit in _asked(layer, lines).tolist())

    def units(
        self, wanted: dict[str, Counts], *, paper: bool, only: Collection[Place] | None = None
    ) -> Iterator[bytes]:
        """Unit lines, by layer and index; one layer is in memory at a time.

        only: these and no others. Raises UsageError when more top excerpts are wanted than were recorded.
        """
        kept = self._first["keep"][0]
        most = max(max(counts.top, counts.bottom or 0) for counts in wanted.values())
        if (needed := PAPER_TOP if paper else most) > kept:
            raise UsageError(
                f"{needed} top excerpts are wanted and recordings keep {kept}",
                hint=f"nx-record --top {needed}",
            )
        for number, lines in sorted(self._by_layer.items()):
            mine = None if only is None else [unit for layer, unit in only if layer == number]
            if mine != []:
                yield from self._units_of(number, lines, wanted, paper, mine)

    def _layer(self, lines: list[Record]) -> tuple[Layer, Printed]:
        plans = list(dict.fromkeys(line["plan"] for line in lines))
        for digest in plans:
            if digest not in self._plans:
                self._plans[digest] = Plan.from_bytes(self._open(digest))
        if self._printed is None or self._printed[0] != plans:  # layers mostly have the same
            corpus = Corpus([self._plans[digest] for digest in plans])
            self._printed = plans, Printed(corpus, self._vocabulary)
        printed = self._printed[1]
        places = {digest: place for place, digest in enumerate(plans)}
        return Layer(lines, printed.corpus, places, self._open), printed

    def _units_of(
        self,
        number: int,
        lines: list[Record],
        wanted: dict[str, Counts],
        paper: bool,
        only: list[int] | None,
    ) -> Iterator[bytes]:
        layer, printed = self._layer(lines)
        corpus = printed.corpus
        hand = deal_paper(layer) if paper else deal(layer, wanted)
        self.near_duplicates += int(hand.dropped.sum())
        self.repeated = max(self.repeated, int((~corpus.alive).sum()))
        tables = {} if paper else self._tables(lines)
        pool = None if paper or not len(layer.pool.excerpt) else self._pool(layer)
        stats, constant = statistics(layer), is_constant(layer)
        recorded = _recorded(lines)
        asked = _asked(layer, lines)
        asked = asked if only is None else np.intersect1d(asked, only)
        for unit, excerpts in UnitLines(layer, printed).excerpts(hand, asked):
            record = {
                "kind": "unit",
                "v": VERSION,
                "unit": {
                    "subject": self._first["subject"]["name"],
                    "fingerprint": self._first["subject"]["fingerprint"],
                    "site": self._first["site"],
                    "layer": number,
                    "index": unit,
                    "sign": layer.sign,
                },
                **_marks(layer, unit, constant=bool(constant[unit])),
                **({"protocol": "paper"} if paper else {}),
                **({"recorded": recorded} if recorded else {}),
                "stats": stats[unit],
                **({"pool": {"blob": pool, "column": unit}} if pool else {}),
                **({"tables": _in_column(tables, unit)} if tables else {}),
                "excerpts": excerpts,
            }
            yield dump(record)

    def _tables(self, lines: list[Record]) -> dict[str, str]:
        """Blobs by name: those tables of a layer that all of its recordings have a part of."""
        names = [name for name in _tables(lines[0]) if all(name in _tables(line) for line in lines)]
        self.partial.update(name for line in lines for name in _tables(line) if name not in names)
        return {
            name: self._put(
                pack_table(list(dict.fromkeys(_tables(line)[name] for line in lines)), self._open)
            )
            for name in names
        }

    def _pool(self, layer: Layer) -> str:
        tokens = self._put(pack_tokens(layer))
        embedding = self._first.get("embedding")
        return self._put(pack_places(tokens, self._first["vocabulary"], embedding, layer))


def _tables(line: Record) -> Record:
    tables: Record = line.get("tables") or {}
    return tables


def _in_column(tables: dict[str, str], unit: int) -> Record:
    return {name: {"blob": blob, "column": unit} for name, blob in tables.items()}


def _recorded(lines: Sequence[Record]) -> Record | None:
    """How a layer's subject was run, for those that run it again; None where that is not said, or differs."""
    runs = [{name: line.get(name) for name in ("dtype", "context", "bos")} for line in lines]
    if any("context" not in line for line in lines) or any(run != runs[0] for run in runs):
        return None
    return {**runs[0], "plans": list(dict.fromkeys(line["plan"] for line in lines))}


def _asked(layer: Layer, lines: list[Record]) -> NDArray[np.int64]:
    """The units to write: all, unless --units named some in every run."""
    named = [line.get("units") for line in lines]
    if any(units is None for units in named):
        return np.arange(layer.units)
    asked = np.unique(np.concatenate([np.array(units, np.int64) for units in named]))
    if len(asked) and not 0 <= asked[0] <= asked[-1] < layer.units:
        raise InputError(f"the layer has no unit {asked[-1]}", hint=f"it has {layer.units}")
    return asked


def _marks(layer: Layer, unit: int, *, constant: bool) -> Record:
    """What is unusual about a unit: `dead` (nothing above zero on its sides), `constant`, an error."""
    if layer.nonfinite[unit]:
        count = int(layer.nonfinite[unit])
        message = f"{count} activations are not finite"
        return {"error": Failure("record", "non-finite", message).record()}
    high = float(layer.maximum[:, unit].max())
    low = 0.0 if layer.minimum is None else float(layer.minimum[:, unit].min())
    fires = {"+": high > 0, "-": low < 0}.get(layer.sign, high > 0 or low < 0)
    return {**({} if fires else {"dead": True}), **({"constant": True} if constant else {})}


def _check_alike(lines: Sequence[Record]) -> None:
    """What must be the same on all lines, and on all of a layer or a run."""
    for what, path, within in (
        ("subjects", ("subject", "fingerprint"), ()),
        ("dtypes", ("dtype",), ()),
        ("sites", ("site",), ()),
        ("vocabularies", ("vocabulary",), ()),
        ("numbers of excerpts to keep", ("keep",), ()),
        ("signs", ("sign",), ("layer",)),
        ("widths", ("width",), ("layer",)),
        ("plans", ("plan",), ("run",)),
        ("numbers of shards", ("shards",), ("run",)),
    ):
        seen: dict[tuple[object, ...], object] = {}
        for line in lines:
            value: object = line
            for name in path:
                value = value[name]  # type: ignore[index]
            other = seen.setdefault(tuple(line[name] for name in within), value)
            if other != value:
                raise InputError(
                    f"recordings with different {what}: {other} and {value}",
                    hint="merge only recordings made with the same subject and settings",
                )


def _check_whole(layer: int, lines: Sequence[Record]) -> None:
    """Every run over a layer must have come with all shards, and no text was recorded twice."""
    run_of: dict[str, str] = {}
    for line in lines:
        if run_of.setdefault(line["plan"], line["run"]) != line["run"]:
            raise InputError(
                f"layer {layer} was recorded twice over the same text, with different settings",
                hint="leave one of the two out",
            )
    for run, shards in {line["run"]: line["shards"] for line in lines}.items():
        missing = set(range(shards)) - {line["shard"] for line in lines if line["run"] == run}
        if missing:
            raise InputError(
                f"shard {min(missing) + 1} of {shards} of layer {layer} is missing: the stream was cut",
                hint=AGAIN,
            )
