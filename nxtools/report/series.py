"""Which scores of a run belong together, and what they are called.

A series is what one explainer, simulator and method made over all units of a run, or one baseline. Where a
unit has several of one kind, the first belong together, then the second, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from nxtools.records import objects
from nxtools.score.replicates import Drawn, drawn
from nxtools.stream import Record

# The figure that stands for a method: the first of these that a score has.
MAIN = ("top_and_random", "balanced_accuracy", "accuracy", "auroc")
_ACTIVATIONS = ("above", "fires_above")  # of the unit: from where on it counts as firing


@dataclass(frozen=True, slots=True)
class Series:
    """name: of the explainer or the baseline; settings: canonical JSON of who explained, and how."""

    name: str
    settings: bytes
    method: str
    simulator: str
    baseline: bool = False
    place: int = 1

    def parts(self) -> dict[str, str]:
        """What may tell it from others of the same name."""
        found = {"method": self.method, "simulator": self.simulator}
        for key, value in orjson.loads(self.settings).items():
            if key != "explainer":
                found[key] = _plain(value)
        return found if self.place == 1 else {**found, "#": str(self.place)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One score of one unit: the record under `scores`, or None where the explanation itself failed."""

    series: Series
    score: Record | None


def entries(record: Record) -> Iterator[Entry]:
    """All scores of a unit line, explanations first."""
    seen: dict[Series, int] = {}
    for baseline in (False, True):
        for each in objects(record, "baselines" if baseline else "explanations", optional=True):
            name, settings = _made_by(each, baseline)
            if "error" in each:
                yield Entry(Series(name, settings, "", "", baseline), None)
            for score in objects(each, "scores", optional=True):
                method, simulator = str(score.get("method", "")), str(score.get("simulator", ""))
                series = Series(name, settings, method, simulator, baseline)
                place = seen[series] = seen.get(series, 0) + 1
                if place > 1:
                    series = Series(name, settings, method, simulator, baseline, place)
                yield Entry(series, score)


def _made_by(entry: Record, baseline: bool) -> tuple[str, bytes]:
    if baseline:
        return str(entry.get("name", "unknown")), b"{}"
    by = entry.get("by")
    by = dict(by) if isinstance(by, dict) else {}
    name = str(by.get("explainer", "unknown"))
    if "paraphrase_of" in entry:
        name = f"paraphrase by {name}"
    if "sign" in entry:  # the side of a signed unit that was explained
        by["sign"] = entry["sign"]
    return name, orjson.dumps(by, option=orjson.OPT_SORT_KEYS)


def labels(series: Iterable[Series]) -> dict[Series, str]:
    """A name for each, with no more said than tells it from the others: `pattern literals=10`."""
    found: dict[Series, str] = {}
    by_name: dict[str, list[Series]] = {}
    for one in series:
        by_name.setdefault(one.name, []).append(one)
    for name, same in by_name.items():
        parts = [one.parts() for one in same]
        keys = dict.fromkeys(key for each in parts for key in each)
        telling = [key for key in keys if _differs(key, parts)]
        for one, each in zip(same, parts, strict=True):
            told = [_part(key, each[key]) for key in telling if key in each]
            found[one] = " ".join([name, *(part for part in told if part != f"by {name}")])
    return found


def _differs(key: str, parts: list[dict[str, str]]) -> bool:
    return len({each.get(key) for each in parts}) > 1


def _part(key: str, value: str) -> str:
    if key in ("method", "#"):
        return f"({value})" if key == "method" else f"#{value}"
    return f"by {value}" if key == "simulator" else f"{key}={value}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def figures(score: Record) -> Iterator[tuple[str, float | None]]:
    """The numbers of a score by name, None where one is absent. Counts are among them, as integers.

    `recall` by decile is `recall_decile_1` and so on, as far as there is one.
    """
    for name, value in score.items():
        if name in _ACTIVATIONS:
            continue
        if name == "recall" and isinstance(value, list):
            for decile, share in enumerate(value, start=1):
                if type(share) is float:
                    yield f"recall_decile_{decile}", share
        if type(value) in (float, int) or (value is None and name != "interval"):
            yield name, value


def why_absent(score: Record, figure: str) -> str:
    absent = score.get("absent")
    return str(absent.get(figure, "no reason given")) if isinstance(absent, dict) else "no reason given"


def replicates(score: Record, figure: str) -> Drawn | None:
    """The figure in the draws of reweighted documents, where the score has them. InputError when they are
    damaged."""
    packed = score.get("replicates")
    found = packed.get(figure) if isinstance(packed, dict) else None
    return None if found is None else drawn(found)
