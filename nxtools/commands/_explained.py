"""What unit lines carry that is scored: explanations, who has simulated them; and where scores go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nxtools.records import Failure
    from nxtools.stream import Record

HUMAN = "human"  # the explainer of what people wrote
PREVIOUS = "\0previous"  # where a unit carries what it is to be compared with; never written


class Previous(NamedTuple):
    """The unit before in the layer: its name, and its first explanation where that is a pattern, or else as
    the record, for models to simulate; `simulations`, once they have.
    """

    name: str
    pattern: str | None
    words: Record | None = None
    simulations: Sequence[Record] = ()


def with_previous(units: Iterable[Record], most: int = 0) -> Iterator[Record]:
    """Gives each unit the explanation of the unit before it in its layer, for the null; one in words to the
    first `most` units of a layer that have one themselves.
    """
    before: tuple[Record, Record | None] | None = None
    given: Counter[object] = Counter()  # by layer
    for unit in units:
        own = None if unit.get("dead") or unit.get("error") else _first(unit)
        if before is not None and before[0]["layer"] == unit["unit"]["layer"]:
            place, other = before
            pattern = None if other is None else _pattern_of(other)
            words = other if pattern is None and own is not None and given[place["layer"]] < most else None
            given[place["layer"]] += words is not None
            unit[PREVIOUS] = Previous(f"{place['layer']}:{place['index']}", pattern, words)
        before = unit["unit"], own
        yield unit


def _first(unit: Record) -> Record | None:
    """A unit's first explanation, without what others made of it."""
    for explanation in unit.get("explanations") or ():
        if not isinstance(explanation, dict) or "candidate" in explanation:
            continue
        if isinstance(explanation.get("text"), str):
            return {key: value for key, value in explanation.items() if key not in ("scores", "simulations")}
    return None


def told(record: Record, method: str) -> list[tuple[str | None, Record]]:
    """A unit's explanations, to be scored anew by a method, each with the column of the summary that follows
    it; none for the false ones of a puzzle.
    """
    found = [e for e in record.get("explanations") or () if isinstance(e.get("text"), str)]
    for explanation in found:
        start_anew(explanation, method)
    return [(_series_of(explanation, first=explanation is found[0]), explanation) for explanation in found]


def _series_of(explanation: Record, first: bool) -> str | None:
    if "candidate" in explanation:
        return "truth" if explanation["candidate"] == "truth" else None
    if "revised" in explanation:
        return "unrevised"
    who = _explainer(explanation)
    if who == HUMAN or (who == "person" and not first):
        return HUMAN
    return "paraphrase" if "paraphrase_of" in explanation else "explanation"


def _pattern_of(explanation: Record) -> str | None:
    who = _explainer(explanation)
    if who == HUMAN:
        found = explanation.get("pattern")
        return found if isinstance(found, str) else None
    return str(explanation["text"]) if who in ("pattern", "person") else None


def _explainer(explanation: Record) -> object:
    by = explanation.get("by")
    return by.get("explainer") if isinstance(by, dict) else None


def only_words(explanation: Record) -> Failure | None:
    """Why an explanation that a person wrote cannot be run: it is no pattern."""
    if _explainer(explanation) != HUMAN or "pattern" in explanation:
        return None
    from nxtools.records import Failure

    message = (
        "a person's words, which are no pattern: --simulator llama:FILE.gguf and others can simulate them"
    )
    return Failure("score", "no-pattern", message)


def predictions(explanation: Record) -> list[tuple[str, Record, str | Record | Failure]]:
    """Who predicts with an explanation: every simulator that it was simulated by, or else its pattern.

    Of each the name, how (`by`), and what is expected, by excerpt, or the sentence to run: patterns are run
    even where somebody did so before, since running says what they expect of any text.
    """
    from nxtools.explain.pattern import to_run
    from nxtools.records import Failure

    pattern = to_run(explanation)
    none = Failure("score", "no-simulation", "every simulation of the held-out excerpts is an error")
    found: list[tuple[str, Record, str | Record | Failure]] = []
    for simulator, by, expected in _simulated(explanation):
        run = pattern if simulator == "pattern" else None
        found.append((simulator, by, run or expected or none))
    if not found and pattern is not None:  # words that no pattern says wait for somebody who simulates them
        found.append(("pattern", {}, only_words(explanation) or pattern))
    return found


def _simulated(explanation: Record) -> list[tuple[str, Record, Record]]:
    """Who has simulated an explanation: the name, how (`by`), and the expected activations by excerpt."""
    by_simulator: dict[str, list[Record]] = {}
    for simulation in explanation.get("simulations") or ():
        by_simulator.setdefault(repr(simulation.get("by")), []).append(simulation)
    found = []
    for simulations in by_simulator.values():
        by = simulations[0].get("by") or {}
        expected = {s["excerpt"]: s["expected"] for s in simulations if "excerpt" in s and "expected" in s}
        found.append((str(by.get("simulator", "unknown")), by, expected))
    return found


def start_anew(entry: Record, method: str) -> None:
    """An explanation's or a baseline's scores by one method go; those by others stay."""
    entry["scores"] = [one for one in entry.get("scores") or () if one.get("method") != method]


def with_baselines(record: Record, entries: Iterable[Record], method: str) -> None:
    """Puts baselines scored by one method on a unit. Those of the same name go; scores by others stay."""
    entries = list(entries)
    names = {entry["name"] for entry in entries}
    before = {one.get("name"): one for one in record.get("baselines") or ()}
    for entry in entries:
        if (old := before.get(entry["name"])) and _same(old, entry):
            start_anew(old, method)
            entry["scores"] = old["scores"] + entry["scores"]
    record["baselines"] = entries + [one for name, one in before.items() if name not in names]


def _same(one: Record, other: Record) -> bool:
    """Whether two baselines are the same but for their scores."""
    return {**one, "scores": None} == {**other, "scores": None}


def with_explanation(record: Record, explanation: Record) -> Record:
    """The unit with one more explanation, in place of the same one, or of an error by the same author."""
    others = [
        e
        for e in record.get("explanations") or []
        if e.get("id") != explanation.get("id", "")
        and not ("error" in e and e.get("by") == explanation["by"])
    ]
    record["explanations"] = [*others, explanation]
    return record
