"""The NeuronRecord of the paper's public data set: one neuron's excerpts and moments, and back.

Field names are those of the format. Its second dialect, with other orders and layer indices as strings, is
read as well; the first one is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxtools.errors import InputError
from nxtools.interop.dealing import Dealer, digest, peak_of
from nxtools.interop.fields import OPTIONAL_NUMBER, Fields
from nxtools.records import SETS
from nxtools.stream import Record

FORMAT = "neuron_record"  # the field of a unit line that keeps what unit lines have no place for
MOMENTS = ("mean", "variance", "skewness", "kurtosis")
TOP, RANDOM, QUANTILE = "most_positive_activation_records", "random_sample", "random_sample_by_quantile"
FIELDS = ("neuron_id", RANDOM, QUANTILE, "quantile_boundaries", *MOMENTS, TOP, "dataclass_name")

# The paper deals ranks in turn to explaining, calibrating, validating and testing, random excerpts to the
# last three; places in SETS, as under nx-top --protocol paper.
TOP_TURNS = (0, 1, 1, 2)
RANDOM_TURNS = (1, 1, 2)
QUANTILE_TURNS = (0, 1, 2)

Neuron = tuple[int, int]  # layer, index
Excerpt = tuple[list[str], list[float | None]]


def neuron_of(record: Fields) -> Neuron:
    name = record.inner("neuron_id")
    return name.index("layer_index"), name.index("neuron_index")


def read_excerpt(record: Fields, values: str = "activations") -> Excerpt:
    tokens, found = record.texts("tokens"), record.numbers(values)
    record.same_length("tokens", values)
    return tokens, found


def unit_line(neuron: Neuron, subject: str, site: str) -> Record:
    return {
        "kind": "unit",
        "v": 1,
        "unit": {
            "subject": subject,
            "fingerprint": f"imported:{subject}",
            "site": site,
            "layer": neuron[0],
            "index": neuron[1],
            "sign": "+",
        },
        "stats": {},
        "excerpts": [],
    }


def read(record: Fields, unit: Record, dealer: Dealer, scored: bool) -> None:
    """Puts a NeuronRecord's moments on a unit line and deals its excerpts.

    scored: some excerpts are held out already, since results score them; no further ones then are.
    """

    def home(turns: Sequence[int], place: int) -> str:
        turn = turns[place % len(turns)]
        return SETS[min(turn, 1) if scored else turn]

    def dealt(records: Any, turns: Sequence[int], pick: str) -> list[str]:
        return [
            dealer.place(*read_excerpt(one), home(turns, place), pick) for place, one in enumerate(records)
        ]

    lists: Record = {TOP: dealt(record.each(TOP), TOP_TURNS, "top")}
    lists[RANDOM] = dealt(record.each(RANDOM), RANDOM_TURNS, "random")
    quantiles = record.get(QUANTILE, list, type(None), optional=True)
    if quantiles is not None:
        groups = (
            Fields({"records": group}, f"{record.at(QUANTILE)}[{place}]")
            for place, group in enumerate(quantiles)
        )
        quantiles = [dealt(group.each("records"), QUANTILE_TURNS, "spread") for group in groups]
    lists[QUANTILE] = quantiles
    boundaries = record.get("quantile_boundaries", list, type(None), optional=True)
    if boundaries is not None:
        boundaries = record.numbers("quantile_boundaries")
    for name in MOMENTS:
        moment = record.get(name, *OPTIONAL_NUMBER, optional=True)
        if moment is not None:
            unit["stats"][name] = moment
    unit[FORMAT] = {"lists": lists, "quantile_boundaries": boundaries}


def written(unit: Record, excerpts: Sequence[Record]) -> Record:
    """A unit line as a NeuronRecord, fields in the order of the first dialect."""
    kept = unit.get(FORMAT)
    if isinstance(kept, dict):
        lists, boundaries = kept["lists"], kept["quantile_boundaries"]
    else:
        lists, boundaries = _lists_of(excerpts), None
    by_id = ById(excerpts)

    def records(names: Sequence[str]) -> list[Record]:
        return [activation_record(by_id[name]["tokens"], by_id[name]["activations"]) for name in names]

    stats = unit.get("stats") or {}
    quantiles = lists[QUANTILE]
    return {
        "neuron_id": neuron_id(unit),
        RANDOM: records(lists[RANDOM]),
        QUANTILE: None if quantiles is None else [records(names) for names in quantiles],
        "quantile_boundaries": boundaries,
        **{name: stats.get(name) for name in MOMENTS},
        TOP: records(lists[TOP]),
        "dataclass_name": "NeuronRecord",
    }


def _lists_of(excerpts: Sequence[Record]) -> Record:
    """Of a unit that nx-top made: its top excerpts of all sets by height, and its random ones."""
    tops = [e for e in excerpts if e["pick"] == "top"]
    tops.sort(key=lambda e: -(e["activations"][peak_of(e["activations"])] or 0.0))
    randoms = [e["id"] for e in excerpts if e["pick"] == "random"]
    return {TOP: [e["id"] for e in tops], RANDOM: randoms, QUANTILE: None}


def neuron_id(unit: Record) -> Record:
    where = unit["unit"]
    return {"layer_index": where["layer"], "neuron_index": where["index"], "dataclass_name": "NeuronId"}


def activation_record(tokens: Any, activations: Any) -> Record:
    return {"tokens": tokens, "activations": activations, "dataclass_name": "ActivationRecord"}


class ById(dict[str, Record]):
    """The excerpts of a unit line by their ids. InputError for one that is not among them."""

    def __init__(self, excerpts: Sequence[Record]) -> None:
        super().__init__({excerpt["id"]: excerpt for excerpt in excerpts})

    def __missing__(self, name: str) -> Record:
        raise InputError(f"there is no excerpt {name!r}, which other fields of the line name")


def checked(excerpts: Sequence[Record]) -> list[Record]:
    """Excerpts that have tokens, as many activations, a set, a pick and an id, those made by hand too."""
    found = []
    for place, excerpt in enumerate(excerpts):
        fields = Fields(excerpt, f"excerpts[{place}]")
        tokens, values = read_excerpt(fields)
        fields.get("set", str), fields.get("pick", str)
        found.append({**excerpt, "id": excerpt.get("id") or digest(tokens, values)})
    return found
