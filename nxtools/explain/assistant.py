"""Explanations by a language model: it is shown evidence, and says what the unit reacts to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nxtools.assistant.asking import Asking
from nxtools.assistant.prompts import Prompt
from nxtools.assistant.protocol import Completion
from nxtools.explain.asked import LISTED, messages, read
from nxtools.explain.drawing import Asked, drawn, suiting
from nxtools.explain.pattern import identify
from nxtools.explain.showing import Evidence, evidence, sides
from nxtools.explain.table import no_table
from nxtools.score.correlation import correlation, excerpt_sums
from nxtools.score.figures import short
from nxtools.stage import Failure, Question, Step
from nxtools.stream import Record
from nxtools.unit import Unit

if TYPE_CHECKING:
    from nxtools.pool import Shared
    from nxtools.recordings.table import Column

FORMS = ("paper", "marked")
PROMPTS = Path(__file__).parent / "prompts"

Simulate = Callable[[Unit, Record, str], Asked]  # unit, explanation, set -> simulations for its record


@dataclass(frozen=True)
class Explaining:
    """Who explains, and how.

    form: "paper", "marked", or "auto": marked where the model has a chat template. prompt: a file in place of
    the form's own. excerpts: how many are shown. candidates: how many explanations each side of a unit gets.
    diverse: candidates come in lists, and under other examples. best: who simulates the candidates on the
    validation set, to keep the one with the best correlation. source: a table that the view of
    tokens shows in place of the evidence. pool_of, table_of: for that view.
    """

    asking: Asking
    view: str = "activations"
    source: str = "evidence"
    form: str = "auto"
    prompt: Path | None = None
    excerpts: int = 5
    examples: int | None = None
    candidates: int = 1
    diverse: bool = False
    best: Simulate | None = None
    pool_of: Callable[[Unit], Shared | None] = lambda unit: None
    table_of: Callable[[Unit, str], Column | None] = lambda unit, name: None


class Explainer:
    """Explains many units; the prompt is chosen and read once."""

    def __init__(self, explaining: Explaining) -> None:
        self.explaining = explaining
        self.asking = explaining.asking
        self._prompt: Prompt | None = None
        self.unread = 0  # sides of units whose answers could not be read, units without the table

    def step(self, record: Record) -> Step:
        """The unit with its explanations, or errors in their place; each sign is explained on its own."""
        if record.get("dead") or record.get("error"):
            return record
        how = self.explaining
        unit = Unit(record)
        prompt = yield from self._chosen()
        if isinstance(prompt, Failure):
            return with_entries(record, [{"by": self._by(None), "error": staged(prompt)}])
        table = None if how.source == "evidence" else how.table_of(unit, how.source)
        if how.source != "evidence" and table is None:
            self.unread += 1
            return with_entries(record, [{"by": self._by(prompt), "error": no_table(how.source).record()}])
        shown = {
            sign: evidence(unit, sign, how.view, how.excerpts, how.pool_of, table) for sign in sides(unit)
        }
        found: list[Record] = []
        for sign, seen in shown.items():
            if seen is not None:
                found += yield from self._explained(unit, sign, seen, prompt)
        if not any(shown.values()):
            failure = Failure("explain", "no-evidence", "no excerpt of the evidence has an activation")
            found = [{"by": self._by(prompt), "error": failure.record()}]
        return with_entries(record, found)

    def _chosen(self) -> Asked:
        """The prompt; a failure when it cannot be known which one suits the model."""
        how = self.explaining
        if self._prompt is None:
            found = yield from suiting(self.asking, PROMPTS, how.form, how.prompt, how.examples)
            if isinstance(found, Failure):
                return found
            self._prompt = found
        return self._prompt

    def _by(self, prompt: Prompt | None) -> Record:
        how = self.explaining
        by: Record = {"explainer": self.asking.name, "model": self.asking.identity, "view": how.view}
        by |= {} if how.source == "evidence" else {"from": how.source}
        if prompt is not None:
            by |= {"prompt": prompt.described(), "temperature": prompt.temperature}
        by |= {"excerpts": how.excerpts, "candidates": how.candidates}
        if how.examples is not None:
            by["examples"] = how.examples
        if how.diverse:
            by["diverse"] = True
        return by

    def _explained(self, unit: Unit, sign: str, seen: Evidence, prompt: Prompt) -> Asked:
        """The entries for one sign: its candidates, or the best of them."""
        how = self.explaining
        each = min(how.candidates, LISTED) if how.diverse else 1
        found = yield from drawn(
            lambda draw: self._question(seen, prompt, draw, each),
            lambda answer: read(prompt, answer, wanted=each),
            -(-how.candidates // each),
            chance=prompt.temperature > 0,
        )
        side = {"sign": sign} if unit.sign == "+-" else {}
        by = self._by(prompt)
        if not found.texts:
            self.unread += found.unread
            return [{**side, "by": by, "error": staged(found.failure)}]
        more: Record = {**side, "scale": float(f"{seen.scale:.4g}"), "usage": found.usage}
        if how.view == "next-token":
            more["view"] = how.view
        entries: list[Record] = []
        for text in found.texts[: how.candidates]:
            seed = identify({"text": text, "by": {**by, **side}})["id"]
            entries.append({"id": seed, "text": text, "by": by, **more})
        if how.best is None:
            return entries
        return [(yield from self._best(unit, entries, how.best))]

    def _question(self, seen: Evidence, prompt: Prompt, draw: int, wanted: int) -> Question:
        how = self.explaining
        turn = draw % max(1, len(prompt.examples)) if how.diverse else 0
        payload = Completion(
            messages(prompt, seen, how.view, wanted=wanted, turn=turn),
            prompt.temperature,
            prompt.max_tokens * wanted,
            draw=draw,
            stop=prompt.stop if wanted == 1 else (),
        )
        return self.asking.complete(payload, "explanation")

    def _best(self, unit: Unit, entries: list[Record], simulate: Simulate) -> Asked:
        """The entry that is best on the validation set; the first one, and why, where none has a score."""
        values: list[float | None] = []
        for entry in entries:
            simulations = yield from simulate(unit, entry, "validation")
            values.append(_correlation(unit, simulations))
        scored = [(value, -place) for place, value in enumerate(values) if value is not None]
        chosen = dict(entries[-max(scored)[1]] if scored else entries[0])
        chosen["validation"] = short(max(scored)[0]) if scored else None
        chosen["candidates"] = len(entries)
        if not scored:
            chosen["absent"] = {"validation": "no candidate has a correlation there"}
        return chosen


def _correlation(unit: Unit, simulations: Sequence[Record]) -> float | None:
    """Of simulated and true activations over the validation excerpts."""
    shown = unit.shown("validation")
    truth = shown.table.activations
    predicted = np.full(truth.shape, np.nan, np.float32)
    by_excerpt = {s["excerpt"]: s["expected"] for s in simulations if "expected" in s}
    for row, name in enumerate(shown.excerpts):
        if name in by_excerpt:
            expected = by_excerpt[name]
            predicted[row, : len(expected)] = np.array(expected, np.float32)
    if not truth.size:
        return None
    value = float(correlation(excerpt_sums(truth, predicted).sum(0)))
    return None if np.isnan(value) else value


def staged(failure: Failure) -> Record:
    return {**failure.record(), "stage": "explain"}


def with_entries(record: Record, entries: list[Record]) -> Record:
    """The unit with more explanations; the same ones again, and errors by the same, give way to them."""
    new = {entry["id"] for entry in entries if "id" in entry}
    authors = [entry["by"] for entry in entries]
    kept = [
        e
        for e in record.get("explanations") or []
        if e.get("id") not in new and not ("error" in e and e.get("by") in authors)
    ]
    record["explanations"] = [*kept, *entries]
    return record
