"""Judges of detection and fuzzing: a language model that is asked, or the explanation's own pattern."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nxtools.assistant.asking import Asking
from nxtools.assistant.prompts import read_prompt
from nxtools.judge.asked import (
    ALTERNATIVES,
    Answered,
    Form,
    Marked,
    read_on,
    read_slot,
    read_written,
    written,
)
from nxtools.judge.beyond import strengths_of
from nxtools.judge.choosing import Chosen, Item
from nxtools.stage import Failure, Question
from nxtools.stream import Record

PROMPTS = Path(__file__).parent / "prompts"

Asked = Generator[Sequence[Question], list[Any], Any]
Said = list[Answered | Failure]  # of each item


@dataclass(frozen=True)
class Judging:
    """Who judges, and how. method: of nxtools.simulate.assistant.METHODS, or "auto". kind: detection, fuzzing
    or intruder. prompt: a file in place of the kind's own. together: excerpts in one prompt."""

    asking: Asking
    kind: str
    method: str = "auto"
    prompt: Path | None = None
    examples: int | None = None
    together: int = 5


class Judge:
    """Judges many units; what the engine can do is asked once."""

    def __init__(self, judging: Judging) -> None:
        self.judging = judging
        self.asking = judging.asking
        self.unread = 0  # prompts that were answered, but not so that it could be read
        self._form: Form | None = None

    def form(self) -> Asked:
        """The way of asking, a failure where that cannot be known."""
        if self._form is not None:
            return self._form
        method, judging = self.judging.method, self.judging
        if method == "auto":
            (able,) = yield [self.asking.has("slots")]
            if isinstance(able, Failure) and able.kind != "dry-run":
                return able
            method = "all-at-once" if able is True else "generate"
        prompt = read_prompt(judging.prompt or PROMPTS / f"{judging.kind}.toml", examples=judging.examples)
        if method == "all-at-once":
            self._form = Form(method, prompt, 1)
            return self._form
        names = ("logprobs", "schema", "grammar")
        found = yield [self.asking.has(name) for name in names]
        if failed := [one for one in found if isinstance(one, Failure) and one.kind != "dry-run"]:
            return failed[0]
        able_to = {name for name, has in zip(names, found, strict=True) if has is True}
        grammar = "grammar" in able_to
        together = 1 if method == "one-at-a-time" else judging.together
        logprobs = ALTERNATIVES if "logprobs" in able_to else 0
        self._form = Form(method, prompt, together, grammar, "schema" in able_to and not grammar, logprobs)
        return self._form

    def by(self) -> Record:
        """What scores say of the judge."""
        by: Record = {"simulator": self.asking.name, "model": self.asking.identity}
        if self._form is not None:
            by |= {"method": self._form.method, "prompt": self._form.prompt.described()}
            if self.judging.examples is not None:
                by["examples"] = self.judging.examples
            if self._form.method != "all-at-once":
                by |= {"together": self._form.together, "logprobs": self._form.logprobs > 0}
        return by

    def judge(self, chosen: Chosen, explanation: Record, passes: Sequence[Sequence[Item]]) -> Asked:
        """What is said of each item of each pass, in their order."""
        form = yield from self.form()
        if isinstance(form, Failure):
            return [form for items in passes for _ in items]
        text = str(explanation["text"])
        groups = [
            items[start : start + form.together]
            for items in passes
            for start in range(0, len(items), form.together)
        ]
        answers = yield [self._question(form, chosen, text, group) for group in groups]
        said: Said = []
        for group, answer in zip(groups, answers, strict=True):
            said += self._read(form, answer, len(group))
        return said

    def _question(self, form: Form, chosen: Chosen, text: str, group: Sequence[Item]) -> Question:
        shown: list[Marked] = [(chosen.tokens(item.row), item.marks) for item in group]
        if form.method == "all-at-once":
            return self.asking.slots(read_on(form, text, shown[0]), "judgement")
        return self.asking.complete(written(form, text, shown), "judgement")

    def _read(self, form: Form, answer: Any, count: int) -> Said:
        if isinstance(answer, Failure):
            return [Failure("score", answer.kind, answer.message)] * count
        if form.method == "all-at-once":
            row = read_slot(answer, (0, 1))
            if row is not None:
                return [Answered(row[1] > 0.5, row[1])]
        elif (found := read_written(answer, count)) is not None:
            return list(found)
        self.unread += 1
        return [Failure("score", "unparseable", "the answer is not one 0 or 1 for each excerpt")] * count


def by_prediction(
    chosen: Chosen, items: Sequence[Item], expected: Sequence[Sequence[float | None]], scale: float
) -> Said:
    """What a predictor of activations says: its largest value on the excerpt, or on its marked tokens, and
    whether a unit with that value is active. expected: of each shown excerpt; scale: brings it to the unit's.
    """
    said: Said = []
    for item in items:
        row = expected[item.row]
        places = item.marks or range(len(row))
        values = [value * scale for place in places if (value := row[place]) is not None]
        highest = float(strengths_of(np.array(values, np.float32), chosen.sign).max(initial=0.0))
        said.append(Answered(highest > chosen.threshold, highest))
    return said
