"""Simulation by a language model: told what a unit reacts to, it predicts how strongly, token by token.

Three methods (the first two from Bills et al. 2023):

* all-at-once: one text per excerpt in which every number is unknown; the model only reads it, and the
  distribution over the numbers is taken at each unknown;
* one-at-a-time: a prompt per token, that ends where its number goes;
* generate: the model writes down the numbers of an excerpt, held to the format where the engine can.

A prediction is the expected level, brought to the unit's scale and sign.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nxtools.assistant.asking import Asking
from nxtools.assistant.prompts import Prompt, read_prompt
from nxtools.records import NO_TOKEN
from nxtools.simulate.asked import Form, one_by_one, slots, written
from nxtools.simulate.numbers import Predicted, entries, of_row, single
from nxtools.stage import Failure, Question, Step
from nxtools.stream import Record
from nxtools.unit import Shown, Unit

METHODS = ("all-at-once", "one-at-a-time", "generate")
NEGLIGIBLE = 0.01  # mass on numbers below which a token has no prediction
ALTERNATIVES = 20
PROMPTS = Path(__file__).parent / "prompts"

Asked = Generator[Sequence[Question], list[Any], Any]


@dataclass(frozen=True)
class Simulating:
    """Who simulates, and how. method: one of METHODS, or "auto". prompt: a file in place of the method's own.
    examples: how many of its examples are shown, None for all."""

    asking: Asking
    method: str = "auto"
    prompt: Path | None = None
    examples: int | None = None

    def prompt_of(self, method: str) -> Prompt:
        return read_prompt(self.prompt or PROMPTS / f"{method}.toml", examples=self.examples)


class Simulator:
    """Simulates explanations of many units; what the engine can do is asked once."""

    def __init__(self, simulating: Simulating) -> None:
        self.simulating = simulating
        self.asking = simulating.asking
        self._form: Form | None = None
        self.tokens = self.failed = self.excerpts_failed = 0  # predicted, without a number; without any

    def step(self, record: Record, sets: Sequence[str]) -> Step:
        """The unit with simulations of all its explanations on the excerpts of some sets."""
        told = [e for e in record.get("explanations") or [] if isinstance(e.get("text"), str)]
        if not told or record.get("error") or record.get("dead"):
            return record
        unit = Unit(record)
        shown = [unit.shown(name) for name in sets]
        form = yield from self._chosen()
        asked = [[] if isinstance(form, Failure) else self._questions(form, e, shown) for e in told]
        answers = iter((yield [question for questions in asked for question in questions]))
        for explanation, questions in zip(told, asked, strict=True):
            mine = [next(answers) for _ in questions]
            made = self._read(form, unit, explanation, shown, mine)
            by = self._by(form)
            kept = [s for s in explanation.get("simulations") or [] if not _same(s.get("by"), by)]
            explanation["simulations"] = kept + made
        return record

    def described(self) -> str:
        """How it went, for people: the method, and how many tokens had no number."""
        if self._form is None:
            return ""
        share = f", {self.failed:,} of {self.tokens:,} tokens without a number" if self.failed else ""
        return f"simulated {self._form.method.replace('-', ' ')}{share}"

    def simulations(self, unit: Unit, explanation: Record, which: str) -> Asked:
        """Simulations of one explanation on one set, as they would stand in its record."""
        return (yield from self.on(unit, explanation, unit.shown(which)))

    def on(self, unit: Unit, explanation: Record, shown: Shown) -> Asked:
        """The same on any excerpts."""
        form = yield from self._chosen()
        answers = yield [] if isinstance(form, Failure) else self._questions(form, explanation, [shown])
        return self._read(form, unit, explanation, [shown], answers)

    def _chosen(self) -> Asked:
        """The method, and what the engine can do for it; a failure when that cannot be known."""
        if self._form is not None:
            return self._form
        method = self.simulating.method
        if method == "auto":
            (able,) = yield [self.asking.has("slots")]
            if isinstance(able, Failure) and able.kind != "dry-run":
                return able
            method = "all-at-once" if able is True else "generate"
        prompt = self.simulating.prompt_of(method)
        if method == "all-at-once":
            self._form = Form(method, prompt)
            return self._form
        names = ("logprobs", "schema", "grammar") if method == "generate" else ("logprobs",)
        found = yield [self.asking.has(name) for name in names]
        if failed := [one for one in found if isinstance(one, Failure) and one.kind != "dry-run"]:
            return failed[0]
        able_to = {name for name, has in zip(names, found, strict=True) if has is True}
        logprobs = ALTERNATIVES if "logprobs" in able_to else 0
        grammar = "grammar" in able_to
        self._form = Form(method, prompt, grammar, "schema" in able_to and not grammar, logprobs)
        return self._form

    def _by(self, form: Form | Failure) -> Record:
        by: Record = {"simulator": self.asking.name, "model": self.asking.identity}
        if isinstance(form, Form):
            by |= {"method": form.method, "prompt": form.prompt.described()}
            if self.simulating.examples is not None:
                by["examples"] = self.simulating.examples
            if form.method != "all-at-once":
                by |= {"logprobs": form.logprobs > 0, "numbers": "0-10"}
            if form.method == "generate":
                by["held_by"] = "grammar" if form.grammar else "schema" if form.schema else None
        return by

    # Asking

    def _questions(self, form: Form, explanation: Record, shown: Sequence[Shown]) -> list[Question]:
        view = _view(explanation)
        text = str(explanation["text"])
        seen = [tokens for one in shown for all in _texts(one) if (tokens := _seen(all, view))]
        if form.method == "all-at-once":
            return [self.asking.slots(slots(form, text, tokens, view), "simulation") for tokens in seen]
        asked = one_by_one if form.method == "one-at-a-time" else written
        return [
            self.asking.complete(payload, "simulation")
            for tokens in seen
            for payload in asked(form, text, tokens, view)
        ]

    # Reading

    def _read(
        self,
        form: Form | Failure,
        unit: Unit,
        explanation: Record,
        shown: Sequence[Shown],
        answers: Sequence[Any],
    ) -> list[Record]:
        by = self._by(form)
        if isinstance(form, Failure):
            return [{"by": by, "error": _staged(form)}]
        rest = iter(answers)
        view = _view(explanation)
        factor = float(explanation.get("scale") or 1.0) * (-1 if _sign(unit, explanation) == "-" else 1)
        made: list[Record] = []
        for one in shown:
            for row, (name, tokens) in enumerate(zip(one.excerpts, _texts(one), strict=True)):
                count = len(_seen(tokens, view))
                asked = [
                    next(rest) for _ in range(count if form.method == "one-at-a-time" else min(count, 1))
                ]
                predicted = _predicted(form, asked, count)
                if isinstance(predicted, Failure):
                    self.excerpts_failed += predicted.kind == "no-numbers"
                    made.append({"excerpt": name, "error": _staged(predicted)})
                    continue
                if form.method == "all-at-once" and asked:
                    by = {**by, "numbers": f"0-{asked[0].get('top', 10)}"}
                out = np.isnan(one.table.activations[row, : len(tokens)]).tolist()
                recorded = _recorded(predicted, out, factor)
                self.tokens += len(predicted)
                self.failed += recorded.get("failed", 0)
                made.append({"excerpt": name, **recorded})
        return [{"by": by, **one} for one in made]


def _view(explanation: Record) -> str:
    """The view in which an explanation is simulated: that of next tokens only if it was made in it."""
    return "next-token" if explanation.get("view") == "next-token" else "activations"


def _sign(unit: Unit, explanation: Record) -> str:
    return str(explanation.get("sign") or ("+" if unit.sign == "+-" else unit.sign))


def _same(by: Any, other: Record) -> bool:
    """Whether two simulations are by the same; which numbers were read is known only afterwards."""
    return isinstance(by, dict) and {**by, "numbers": None} == {**other, "numbers": None}


def _staged(failure: Failure) -> Record:
    return {**failure.record(), "stage": "simulate"}


def _texts(shown: Shown) -> list[list[str]]:
    """The tokens of each excerpt."""
    vocabulary = shown.table.vocabulary
    return [[vocabulary[id] for id in row if id != NO_TOKEN] for row in shown.table.ids.tolist()]


def _seen(tokens: list[str], view: str) -> list[str]:
    """The tokens beside which the numbers stand: in the view of next tokens, those that follow."""
    return tokens[1:] if view == "next-token" else tokens


def _predicted(form: Form, answers: Sequence[Any], count: int) -> list[Predicted | None] | Failure:
    """One prediction per token; a failure where the excerpt has none at all."""
    if not count:
        return []
    failed = [one for one in answers if isinstance(one, Failure)]
    if len(failed) == len(answers):
        return failed[0]
    if form.method == "all-at-once":
        answer = answers[0]
        rows = zip(answer["probabilities"], answer["mass"], strict=True)
        found: list[Predicted | None] = [of_row(row, mass) for row, mass in rows]
    elif form.method == "generate":
        found = entries(answers[0], count)
    else:
        found = [None if isinstance(one, Failure) else single(one) for one in answers]
    if not any(map(_usable, found)):
        return Failure("simulate", "no-numbers", "no token has a number that is likely at all")
    return found


def _usable(predicted: Predicted | None) -> bool:
    return predicted is not None and (predicted.mass is None or predicted.mass >= NEGLIGIBLE)


def _recorded(predicted: Sequence[Predicted | None], left_out: Sequence[bool], factor: float) -> Record:
    """Expected activations; None where a position is left out, failed, or has no token behind it to see."""
    digits = 3 - math.floor(math.log10(abs(factor))) if factor else 3
    expected: list[float | None] = [None] * len(left_out)
    mass: list[float | None] = [None] * len(left_out)
    failed = 0
    for place, one in enumerate(predicted):
        if left_out[place]:
            continue
        mass[place] = None if one is None or one.mass is None else float(f"{one.mass:.3g}")
        if one is not None and _usable(one):
            expected[place] = round(one.level / 10 * factor, digits) + 0.0
        else:
            failed += 1
    record: Record = {"expected": expected}
    if any(one is not None for one in mass):
        record["mass"] = mass
    if failed:
        record["failed"] = failed
    return record
