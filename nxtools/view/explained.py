"""Explanations as a viewer shows them, with the history of their revisions."""

from __future__ import annotations

from typing import Any

from nxtools.records import objects
from nxtools.score.ratings import text_digest
from nxtools.stream import Record
from nxtools.view.scores import author, number, plain, reason, scores


def current(record: Record) -> Record | None:
    """The explanation that stands for the unit: the first one, the first without an error if there is one."""
    told = objects(record, "explanations", optional=True)
    return next((one for one in told if "error" not in one), told[0] if told else None)


def explanations(record: Record) -> list[Record]:
    """All of them, as they stand on the line.

    Each has `id`, `digest` (by which people judge it), `by` (`name` and `settings`), `sign`, `scale`,
    `coverage`, `scores`, and either `text` or `error`; `notes`, sentences about where it comes from; and,
    where it was revised, `revision`.
    """
    return [_explanation(one) for one in objects(record, "explanations", optional=True)]


def _explanation(one: Record) -> Record:
    found: Record = {
        "id": str(one.get("id", "")),
        "text": None if "error" in one else str(one.get("text", "")),
        "digest": text_digest(str(one.get("text", ""))),
        "pattern": one["pattern"] if isinstance(one.get("pattern"), str) else None,
        "by": author(one.get("by")),
        "sign": one.get("sign"),
        "scale": one.get("scale"),
        "coverage": one.get("coverage"),
        "notes": _notes(one),
        "scores": scores(one),
    }
    if "error" in one:
        found["error"] = reason(one["error"])
    if "versions" in one:
        found["revision"] = _revision(one)
    return found


def _notes(one: Record) -> list[str]:
    found = []
    if one.get("revised"):
        found.append("A revision stands in its place.")
    if "paraphrase_of" in one:
        found.append(f"Another wording of {one['paraphrase_of']}.")
    if "explains" in one:
        found.append(f"Made for another unit: {one['explains']}.")
    if "candidate" in one:
        found.append(f"A candidate of a puzzle: {one['candidate']}.")
    if type(one.get("candidates")) is int:
        found.append(f"The best of {one['candidates']} on validation.")
    return found


def _revision(one: Record) -> Record:
    """`revises`, `why`, `versions` and the place of the `current` one, `counterexamples`, the `sentences`
    that a model wrote, `scores`.
    """
    figures = one.get("revision")
    return {
        "revises": one.get("revises"),
        "why": str(one.get("why", "")),
        "current": one.get("current", 0),
        "versions": [_version(version) for version in objects(one, "versions")],
        "counterexamples": [
            {
                "round": example.get("round"),
                "from": str(example.get("from", "")),
                "sort": str(example.get("sort", "")),
                "for": str(example.get("for", "")),
                "tokens": [str(token) for token in _list(example.get("tokens"))],
                "activation": number(example.get("activation")),
                "expected": number(example.get("expected")),
            }
            for example in objects(one, "counterexamples", optional=True)
        ],
        "sentences": [
            {
                "round": sentence.get("round"),
                "text": str(sentence.get("text", "")),
                "for": str(sentence.get("for", "")),
                "activation": number(sentence.get("activation")),
                "fires": sentence.get("fires") is True,
            }
            for sentence in objects(one, "sentences", optional=True)
        ],
        "scores": figures if isinstance(figures, dict) else {},
    }


def _version(version: Record) -> Record:
    validation = version.get("validation")
    return {
        "text": str(version.get("text", "")),
        "round": version.get("round", 0),
        "made": plain(version.get("made", "")),
        "literals": version.get("literals"),
        "validation": validation if isinstance(validation, dict) else None,
    }


def gain(record: Record) -> float | None:
    """By how much revision raised the held-out score of the current explanation, if it was revised."""
    told = current(record) or {}
    revision = told.get("revision")
    pair = revision.get("top_and_random") if isinstance(revision, dict) else None
    if not isinstance(pair, dict):
        return None
    before, after = number(pair.get("before")), number(pair.get("after"))
    return None if before is None or after is None else after - before


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
