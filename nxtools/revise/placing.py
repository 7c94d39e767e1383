"""Where revisions stand on a unit line, and what is the same about all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nxtools.stage import Failure
from nxtools.stream import Record

Pair = tuple[float | None, float | None]  # before and after


@dataclass
class Compared:
    """Held-out scores of one revised explanation: on the line's excerpts, and on the widened set.

    unit: its name; sentences: how many were written for the old explanation, and how many of them do not make
    the unit fire.
    """

    changed: bool
    held_out: Pair
    widened: Pair
    unit: str = ""
    sentences: tuple[int, int] = (0, 0)

    def figures(self, name: str) -> Record:
        """name: of the figure on the line's excerpts."""
        return {
            name: {"before": self.held_out[0], "after": self.held_out[1]},
            "widened": {"before": self.widened[0], "after": self.widened[1]},
        }


def is_original(explanation: Record) -> bool:
    """An explainer's own: no candidate of a puzzle, paraphrase, error or revision."""
    others = ("candidate", "paraphrase_of", "revises", "error")
    return isinstance(explanation.get("text"), str) and not any(name in explanation for name in others)


def failed(explanation: Record, how: Record, failure: Failure) -> Record:
    """What stands in a revision's place. how: what `by` says of it."""
    by = {**(explanation.get("by") or {}), "revised": how}
    return {"by": by, "revises": explanation["id"], "error": {**failure.record(), "stage": "revise"}}


def placed(explanations: Sequence[Record], made: Mapping[str, Record], how: Record) -> list[Record]:
    """Each revision right before what it revises, which is marked; an earlier one like it gives way."""
    found: list[Record] = []
    for explanation in explanations:
        revised = (explanation.get("by") or {}).get("revised")
        if explanation.get("revises") in made and ("error" in explanation or revised == how):
            continue
        new = made.get(explanation.get("id", ""))
        if new is not None:
            found.append(new)
            if "error" not in new:
                explanation["revised"] = True
        found.append(explanation)
    return found
