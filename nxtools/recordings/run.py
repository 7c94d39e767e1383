"""All recordings that came in: checked for completeness, merged layer by layer, written as unit lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.recordings.deal import Counts, deal, pool_order
from nxtools.recordings.deal_paper import deal_paper
from nxtools.recordings.layer import Corpus, Layer, OpenBlob
from nxtools.recordings.lines import UnitLines
from nxtools.recordings.pool import pack_places, pack_tokens
from nxtools.recordings.statistics import statistics
from nxtools.records import SETS, VERSION
from nxtools.stream import Record, dump
from nxtools.subject.excerpts import Plan

PutBlob = Callable[[bytes], str]


class Run:
    """Recording lines of one subject and site. Raises InputError when they do not belong together.

    `layers`: numbers in order; `near_duplicates`: dropped between sets, counted while lines are written.
    """

    def __init__(self, lines: Sequence[Record], open_blob: OpenBlob, put_blob: PutBlob) -> None:
        self._open, self._put = open_blob, put_blob
        self.near_duplicates = 0
        first = lines[0]
        for line in lines:
            for name in ("subject", "site", "keep"):
                if line[name] != first[name]:
                    raise InputError(
                        f"recordings of different {name}s: {first[name]} and {line[name]}",
                        hint="merge only recordings made with the same subject and settings",
                    )
        self._first = first
        runs = {
            (line["layer"], line["run"], line["shard"]): line for line in lines
        }  # the same shard twice is once
        self._by_layer: dict[int, list[Record]] = {}
        for line in sorted(runs.values(), key=lambda line: (line["layer"], line["run"], line["shard"])):
            self._by_layer.setdefault(line["layer"], []).append(line)
        self.layers = sorted(self._by_layer)
        _check_whole(lines, self._by_layer)
        plans = list(dict.fromkeys(line["plan"] for line in runs.values()))
        self._plan_of = {digest: number for number, digest in enumerate(sorted(plans))}
        self._corpus = Corpus.of([Plan.from_bytes(open_blob(digest)) for digest in sorted(plans)])
        if len({plan.excerpt for plan in self._corpus.plans}) > 1:
            raise InputError("recordings of excerpts of different lengths", hint="use one --excerpt for all")
        self._vocabulary: list[str] = orjson.loads(bytes(open_blob(first["vocabulary"])))

    def units(self, wanted: dict[str, Counts], *, paper: bool) -> Iterator[bytes]:
        """Unit lines, by layer and index; one layer is in memory at a time."""
        for number in self.layers:
            lines = self._by_layer[number]
            layer = Layer(lines, self._corpus, self._plan_of, self._open)
            yield from self._layer(number, lines, layer, wanted, paper)

    def _layer(
        self, number: int, lines: list[Record], layer: Layer, wanted: dict[str, Counts], paper: bool
    ) -> Iterator[bytes]:
        order = pool_order(layer)
        hand = deal_paper(layer, order) if paper else deal(layer, wanted, order)
        self.near_duplicates += int(hand.dropped.sum())
        pool = None if paper or not len(order) else self._pool(layer, lines, order)
        stats = statistics(layer)
        for unit, excerpts in UnitLines(layer, self._vocabulary).excerpts(hand, self._asked(layer, lines)):
            yield dump(
                {
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
                    **_marks(layer, unit),
                    **({"protocol": "paper"} if paper else {}),
                    "stats": stats[unit],
                    **({"pool": {"blob": pool, "column": unit}} if pool else {}),
                    "excerpts": excerpts,
                }
            )

    def _asked(self, layer: Layer, lines: list[Record]) -> NDArray[np.int64]:
        """The units to write: all, unless --units named some in every run."""
        named = [line["units"] for line in lines]
        if any(units is None for units in named):
            return np.arange(layer.units)
        asked = np.unique(np.concatenate([np.array(units, np.int64) for units in named]))
        if len(asked) and asked[-1] >= layer.units:
            raise InputError(f"the layer has no unit {asked[-1]}", hint=f"it has {layer.units}")
        return asked

    def _pool(self, layer: Layer, lines: list[Record], order: NDArray[np.int64]) -> str:
        excerpt, source, place = layer.pool_places()
        where = np.argsort(excerpt)[np.searchsorted(np.sort(excerpt), order)]
        sizes = np.bincount(self._corpus.gather("set"), minlength=len(SETS)).tolist()
        tokens = self._put(pack_tokens(layer, order))
        blobs = [line["blob"] for line in lines]
        vocabulary = self._first["vocabulary"]
        embedding = self._first.get("embedding")
        places = pack_places(tokens, vocabulary, embedding, blobs, source[where], place[where], sizes)
        return self._put(places)


def _marks(layer: Layer, unit: int) -> Record:
    """What is unusual about a unit: `dead` (nothing above zero on its sides), `constant`, `failed`."""
    if layer.nonfinite[unit]:
        count = int(layer.nonfinite[unit])
        return {
            "error": {
                "stage": "record",
                "kind": "non-finite",
                "message": f"{count} activations are not finite",
            }
        }
    high = float(layer.maximum[:, unit].max())
    low = 0.0 if layer.minimum is None else float(layer.minimum[:, unit].min())
    fires = {"+": high > 0, "-": low < 0}.get(layer.sign, high > 0 or low < 0)
    mean = layer.powers[:2, :, unit].sum(axis=1) / max(int(layer.tokens.sum()), 1)
    constant = bool(mean[1] - mean[0] ** 2 <= 1e-12 * mean[1])
    return {**({} if fires else {"dead": True}), **({"constant": True} if constant else {})}


def _check_whole(lines: Sequence[Record], by_layer: dict[int, list[Record]]) -> None:
    """Every run must have come whole: its last line, and every shard of every layer."""
    shards = {line["run"]: line["shards"] for line in lines}
    for layer, of_layer in by_layer.items():
        for run, count in shards.items():
            there = {line["shard"] for line in of_layer if line["run"] == run}
            if there and len(there) < count:
                missing = sorted(set(range(count)) - there)
                raise InputError(
                    f"shard {missing[0] + 1} of {count} of layer {layer} is missing: the stream was cut",
                    hint="run nx-record again; finished shards are in the store",
                )
    if not any(line.get("last") for line in lines):
        raise InputError(
            "the last recording line is missing: the stream was cut",
            hint="run nx-record again; finished shards are in the store",
        )
