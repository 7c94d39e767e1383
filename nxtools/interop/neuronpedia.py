"""Neuronpedia's batches: lines about features, their activations and their explanations, in any order.

What unit lines have no place for stays in fields called `neuronpedia` and is written again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nxtools.errors import InputError
from nxtools.interop import sources
from nxtools.interop.dealing import Dealer, Values, digest, peak_of
from nxtools.interop.fields import OPTIONAL_NUMBER, Fields
from nxtools.interop.neuron_records import ById, checked
from nxtools.records import SETS
from nxtools.score.figures import short
from nxtools.stream import Record, dump, parsed
from nxtools.subject.excerpts import set_of

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
KEPT = "neuronpedia"
BATCH = 1024  # features in a file
NAMED = ("modelId", "layer", "index")
FEATURES, ACTIVATIONS, EXPLANATIONS = KINDS = ("features", "activations", "explanations")

Feature = tuple[str, str, int]  # model, source, index
Line = tuple[str, str, bytes]  # where, its kind, its bytes
Activation = tuple[list[str], Values, Record]  # tokens, values, the whole line


class Importer:
    """Unit lines from batches, by source and index. Memory is that of their text."""

    def __init__(self, site: str, on_bad: Callable[[InputError], None] | None = None) -> None:
        """on_bad: told of what cannot be read, which is then skipped; None raises it."""
        self.left_out: Counter[str] = Counter()
        self._site = site
        self._on_bad = on_bad

    def units(self, names: Iterable[str]) -> Iterator[Record]:
        found: dict[Feature, list[Line]] = {}
        for path in sources.files(names, SUFFIXES):
            for where, line in sources.lines(path):
                try:
                    record = Fields(parsed(line))
                    if "explanationScoreTypeName" in record.value or "explanations" in record.value:
                        self.left_out["scores of explanations"] += 1
                        continue
                    feature = record.get("modelId", str), record.get("layer", str), record.index("index")
                    found.setdefault(feature, []).append((where, _kind(record.value), line))
                except InputError as error:
                    self._report(error, where)
        for feature in sorted(found, key=lambda f: (f[0], sources.natural(f[1]), f[2])):
            yield self._unit(feature, found[feature])

    def _unit(self, feature: Feature, lines: list[Line]) -> Record:
        unit = self._bare(feature)
        activations: list[Activation] = []
        for where, kind, line in lines:
            record = Fields(parsed(line))
            try:
                if kind == FEATURES:
                    _read_feature(record, unit)
                elif kind == EXPLANATIONS:
                    unit.setdefault("explanations", []).append(_explanation(record))
                else:
                    tokens, values = record.texts("tokens"), record.numbers("values")
                    record.same_length("tokens", "values")
                    activations.append((tokens, values, record.value))
            except InputError as error:
                self._report(error, where)
        _deal(activations, unit)
        return unit

    def _bare(self, feature: Feature) -> Record:
        """A source is called by its layer and what is read there, such as `6-res-jb`."""
        model, source, index = feature
        layer = re.match(r"(\d{1,6})-?(.*)", source, re.ASCII)
        where = {
            "site": (layer[2] if layer else source) or self._site,
            "layer": int(layer[1]) if layer else 0,
        }
        return {
            "kind": "unit",
            "v": 1,
            "unit": {
                "subject": model,
                "fingerprint": f"imported:{model}",
                **where,
                "index": index,
                "sign": "+",
            },
            "stats": {},
            "excerpts": [],
            KEPT: {"source": source},
        }

    def _report(self, error: InputError, where: str) -> None:
        error.where = error.where or where
        if self._on_bad is None:
            raise error
        self._on_bad(error)


def _kind(record: Record) -> str:
    return EXPLANATIONS if "description" in record else ACTIVATIONS if "values" in record else FEATURES


def _without(record: Record, *names: str) -> Record:
    return {key: value for key, value in record.items() if key not in names}


def _read_feature(record: Fields, unit: Record) -> None:
    if "feature" in unit[KEPT]:
        raise InputError("this feature was there before", hint="give the batches of one source once")
    highest = record.get("maxActApprox", *OPTIONAL_NUMBER, optional=True)
    if highest is not None:
        unit["stats"]["max"] = highest
    unit[KEPT]["feature"] = record.value


def _explanation(record: Fields) -> Record:
    text = record.get("description", str)
    by: Record = {"explainer": record.get("explanationModelName", str, type(None), optional=True) or KEPT}
    kind = record.get("typeName", str, type(None), optional=True)
    if kind is not None:
        by["type"] = kind
    return {"id": digest(text, by), "text": text, "by": by, KEPT: _without(record.value, "description")}


def _deal(activations: list[Activation], unit: Record) -> None:
    """Texts to sets by hash. Excerpts of the highest interval, or all where there are none, are top ones."""
    highest = max((_bin(record) for _, _, record in activations), default=0.0)
    order = sorted(range(len(activations)), key=lambda at: -_peak(activations[at][1]))
    dealer, names = Dealer(), {}
    for at in order:
        tokens, values, record = activations[at]
        home = SETS[set_of(digest(tokens), 0)]
        names[at] = dealer.place(tokens, values, home, "top" if _bin(record) == highest else "spread")
    unit["excerpts"] = dealer.excerpts()
    if activations:
        unit[KEPT]["activations"] = [
            {"excerpt": names[at], **_without(record, "tokens", "values")}
            for at, (_, _, record) in enumerate(activations)
        ]


def _bin(record: Record) -> float:
    bound = record.get("binMin")
    return float(bound) if isinstance(bound, float | int) else 0.0


def _peak(values: Values) -> float:
    return values[peak_of(values)] or 0.0 if values else 0.0


# And back


class Exporter:
    """Batches of what unit lines become: (path, bytes) when one is full, when another source comes, and at
    the end.
    """

    def __init__(self) -> None:
        self._source: tuple[str, str] | None = None
        self._batches: Counter[tuple[str, str]] = Counter()  # written of each source
        self._features = 0
        self._lines: dict[str, list[bytes]] = {kind: [] for kind in KINDS}

    def add(self, unit: Record) -> Iterator[tuple[str, bytes]]:
        if unit.get("error"):
            return
        found = exported(unit)
        source = _plain(found[FEATURES][0]["modelId"]), _plain(found[FEATURES][0]["layer"])
        if source != self._source or self._features == BATCH:
            yield from self.finish()
            self._source = source
        self._features += 1
        for kind in KINDS:
            self._lines[kind] += map(dump, found[kind])

    def finish(self) -> Iterator[tuple[str, bytes]]:
        if self._source is None:
            return
        for kind in KINDS:
            if self._lines[kind]:
                name = f"v1/{'/'.join(self._source)}/{kind}/batch-{self._batches[self._source]}.jsonl.gz"
                yield name, sources.gzipped(b"".join(self._lines[kind]))
                self._lines[kind] = []
        self._batches[self._source] += 1
        self._features = 0


def _plain(name: str) -> str:
    """A name that is one folder, whatever it was."""
    return re.sub(r"[^\w.-]", "-", name).lstrip(".") or "unnamed"


def exported(unit: Record) -> dict[str, list[Record]]:
    """The lines of each kind, of which one is the feature's. InputError for what the format cannot hold."""
    where = unit["unit"]
    kept = unit.get(KEPT)
    excerpts = checked(unit["excerpts"])
    if isinstance(kept, dict):
        named: Record = {"modelId": where["subject"], "layer": kept["source"], "index": str(where["index"])}
        shown = ById(excerpts)
        activations = [
            {
                **_without(one, "excerpt"),
                "tokens": shown[one["excerpt"]]["tokens"],
                "values": shown[one["excerpt"]]["activations"],
            }
            for one in kept.get("activations", ())
        ]
        feature = kept.get("feature", named)
    else:
        source = f"{where['layer']}-{where.get('site', 'mlp')}"
        named = {
            "modelId": str(where.get("subject", "unnamed")),
            "layer": source,
            "index": str(where["index"]),
        }
        activations = [named | _activation(excerpt) for excerpt in excerpts]
        highest = (unit.get("stats") or {}).get("max")
        feature = named | ({} if highest is None else {"maxActApprox": highest})
    explanations = [
        _exported_explanation(entry, named)
        for entry in unit.get("explanations") or ()
        if isinstance(entry.get("text"), str)
    ]
    return {FEATURES: [feature], ACTIVATIONS: activations, EXPLANATIONS: explanations}


def _activation(excerpt: Record) -> Record:
    """Positions that were left out stand in front, and stay out: the format has numbers only."""
    tokens, values = excerpt["tokens"], excerpt["activations"]
    first = next((at for at, value in enumerate(values) if value is not None), len(values))
    values = values[first:]
    if None in values:
        raise InputError(f"excerpt {excerpt['id']} has no activation at token {first + values.index(None)}")
    peak = peak_of(values)
    return {
        "tokens": tokens[first:],
        "values": values,
        "maxValue": values[peak] if values else 0,
        "maxValueTokenIndex": peak,
        "minValue": min(values, default=0),
    }


def _exported_explanation(entry: Record, named: Record) -> Record:
    if KEPT in entry:
        return {**entry[KEPT], "description": entry["text"]}
    by = entry.get("by") or {}
    explainer = str(by.get("explainer", "unknown"))
    return {
        **named,
        "description": entry["text"],
        "typeName": "nxtools",
        "explanationModelName": explainer,
        "scores": [_score(one) for one in entry.get("scores") or () if one.get("top_and_random") is not None],
    }


def _score(score: Record) -> Record:
    details: Any = _without(score, "replicates")
    return {
        "value": short(score["top_and_random"]),
        "explanationScoreTypeName": f"nxtools_{score.get('method', 'unknown')}",
        "explanationScoreModelName": str(score.get("simulator", "unknown")),
        "jsonDetails": dump(details).decode().rstrip("\n"),
    }
