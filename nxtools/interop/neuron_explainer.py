"""The paper's public data set, neuron by neuron: records and explanations as unit lines, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from nxtools.errors import InputError, located
from nxtools.interop import neuron_records, simulation_results, sources
from nxtools.interop.dealing import Dealer
from nxtools.interop.fields import Fields
from nxtools.interop.neuron_records import Neuron
from nxtools.records import unit_name
from nxtools.stream import Record, dump, parsed

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".json.zst", ".jsonl.zst")
RECORD, RESULTS = "NeuronRecord", "NeuronSimulationResults"
OTHERS = ("TokenLookupTableSummaryOfNeuron", "WeightBasedSummaryOfNeuron", "NeuronId")

Found = tuple[str, str, Fields]  # where, the name of its type, the object


class Importer:
    """Unit lines from files and folders. `left_out` counts objects of other kinds."""

    def __init__(self, subject: str, site: str, on_bad: Callable[[InputError], None] | None = None) -> None:
        """on_bad: told of what cannot be read, which is then skipped; None raises it."""
        self.subject = subject
        self.site = site
        self.left_out: Counter[str] = Counter()
        self._on_bad = on_bad

    def units(self, names: Iterable[str]) -> Iterator[Record]:
        """Files of one number in folders of one name belong together: `…/5/12.json`, `…/5/12.jsonl`. So do
        neighbouring lines of one file, and all lines of several files without such names, which are kept.
        """
        paths = sources.files(names, SUFFIXES)
        together: dict[tuple[str, str], list[str]] = {}
        for path in paths:
            name = Path(path).name.split(".")[0]
            of_one = (Path(path).parent.name, name) if name.isdigit() else ("", "")
            together.setdefault(of_one, []).append(path)
        for group in together.values():
            objects = (found for path in group for found in self._objects(path))
            for neuron, members in self._by_neuron(objects, streamed=len(group) == 1):
                try:
                    yield self._unit(neuron, members)
                except InputError as error:
                    self._report(error)

    def _objects(self, path: str) -> Iterator[Found]:
        for where, line in sources.lines(path):
            try:
                record = Fields(parsed(line))
                kind = record.get("dataclass_name", str)
                if kind in (RECORD, RESULTS):
                    yield where, kind, record
                elif kind in OTHERS:
                    self.left_out[kind] += 1
                else:
                    raise InputError(f"this is a {kind!r}, neither a {RECORD} nor {RESULTS}")
            except InputError as error:
                self._report(error, where)

    def _by_neuron(self, objects: Iterator[Found], streamed: bool) -> Iterator[tuple[Neuron, list[Found]]]:
        """streamed: only neighbours belong together, so that a long stream is not kept."""
        known = ((self._neuron(found), found) for found in objects)
        named = [] if streamed else [(neuron, found) for neuron, found in known if neuron is not None]
        pairs = ((n, f) for n, f in known if n is not None) if streamed else iter(sorted(named, key=_by_name))
        for neuron, members in groupby(pairs, key=_by_name):
            yield neuron, [found for _, found in members]

    def _neuron(self, found: Found) -> Neuron | None:
        try:
            return neuron_records.neuron_of(found[2])
        except InputError as error:
            self._report(error, found[0])
            return None

    def _unit(self, neuron: Neuron, members: list[Found]) -> Record:
        unit = neuron_records.unit_line(neuron, self.subject, self.site)
        dealer = Dealer()
        records = [found for found in members if found[1] == RECORD]
        if len(records) > 1:
            raise InputError("this neuron has a record already", where=records[1][0])
        results = [found for found in members if found[1] == RESULTS]
        scored = 0
        for where, _, result in results:
            with located(where):
                scored += simulation_results.simulated(result, dealer)
        for where, _, record in records:
            with located(where):
                neuron_records.read(record, unit, dealer, scored=bool(scored))
        if results:
            unit["explanations"] = []
        for where, _, result in results:
            with located(where):
                unit["explanations"] += simulation_results.explanations(result, dealer)
        unit["excerpts"] = dealer.excerpts()
        return unit

    def _report(self, error: InputError, where: str = "") -> None:
        error.where = error.where or where
        if self._on_bad is None:
            raise error
        self._on_bad(error)


def _by_name(pair: tuple[Neuron, Found]) -> Neuron:
    return pair[0]


def exported(unit: Record) -> Iterator[tuple[str, bytes]]:
    """What a unit line becomes: paths as in the public data set, and bytes. Nothing for an error."""
    if unit.get("error"):
        return
    excerpts = neuron_records.checked(unit["excerpts"])
    layer, _, index = unit_name(unit).partition(":")
    record = neuron_records.written(unit, excerpts)
    yield f"collated-activations/{layer}/{index}.json", dump(record).rstrip(b"\n")
    results = simulation_results.written(unit, excerpts)
    if results is not None:
        yield f"explanations/{layer}/{index}.jsonl", dump(results)
