"""Intruder: of some excerpts all but one are active, and a judge picks the one that is not.

No explanation is shown, so it says whether what a unit reacts to can be seen at all. Each silent excerpt
intrudes once, on active ones that are drawn for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nxtools.assistant.protocol import Completion, Message, Slot, Slots
from nxtools.judge.asked import Form, numbered, read_slot, unfenced
from nxtools.judge.beyond import drawn
from nxtools.judge.choosing import Chosen
from nxtools.judge.figures import Floats, resampled
from nxtools.judge.judge import Asked, Judge
from nxtools.records import Failure
from nxtools.score.figures import short
from nxtools.score.replicates import packed
from nxtools.score.summary import drawn_weights
from nxtools.stream import Record

MOST = 9  # excerpts shown together: numbers of one digit


@dataclass(frozen=True)
class Trial:
    """rows: as they are shown; place: of the intruder among them."""

    rows: tuple[int, ...]
    place: int


def trials(chosen: Chosen, together: int) -> list[Trial] | Failure:
    if len(chosen.active) < together - 1:
        message = f"{len(chosen.active)} active excerpts, of {together - 1}: nx-top --held-out spread=20"
        return Failure("score", "no-active", message)
    found = []
    for intruder in chosen.silent:
        name = chosen.name(intruder)
        others = chosen.order(chosen.active, f"beside {name}")[: together - 1]
        place = int.from_bytes(drawn(chosen.unit.name, name, "place"), "little") % together
        found.append(Trial((*others[:place], intruder, *others[place:]), place))
    return found


def ask(judge: Judge, chosen: Chosen, tried: Sequence[Trial]) -> Asked:
    """The place that is picked in each trial and how likely it was, None where nobody says; or a failure."""
    form = yield from judge.form()
    if isinstance(form, Failure):
        return [form for _ in tried]
    asking, whole = judge.asking, form.method == "all-at-once"
    answers = yield [
        asking.slots(_slots(form, chosen, trial), "judgement")
        if whole
        else asking.complete(_written(form, chosen, trial), "judgement")
        for trial in tried
    ]
    said: list[tuple[int, float | None] | Failure] = []
    for trial, answer in zip(tried, answers, strict=True):
        if isinstance(answer, Failure):
            said.append(Failure("score", answer.kind, answer.message))
            continue
        picked = _read_slot(answer, len(trial.rows)) if whole else _read(answer, len(trial.rows))
        if picked is not None:
            said.append(picked)
            continue
        judge.unread += 1
        said.append(Failure("score", "unparseable", "the answer is not the number of an excerpt"))
    return said


def _excerpts(form: Form, chosen: Chosen, trial: Trial) -> str:
    return numbered(form.prompt, [(chosen.tokens(row), frozenset()) for row in trial.rows])


def _written(form: Form, chosen: Chosen, trial: Trial) -> Completion:
    prompt, count = form.prompt, len(trial.rows)
    numbers = {"type": "integer", "enum": list(range(1, count + 1))}
    schema = {"type": "object", "properties": {"number": numbers}, "required": ["number"]}
    return Completion(
        (
            Message("system", prompt.fill("instructions", count=count)),
            Message("user", prompt.fill("unit", excerpts=_excerpts(form, chosen, trial))),
        ),
        prompt.temperature,
        prompt.max_tokens,
        grammar=f"root ::= [1-{count}]\n" if form.grammar else None,
        schema=schema | {"additionalProperties": False} if form.schema else None,
    )


def _slots(form: Form, chosen: Chosen, trial: Trial) -> Slots:
    prompt = form.prompt
    group = prompt.fill("read.group", excerpts=_excerpts(form, chosen, trial))
    return Slots((prompt.fill("read.instructions"),), (), (group, Slot("1")))


def _read(answer: Mapping[str, Any], count: int) -> tuple[int, float | None] | None:
    """A number and nothing else, or the object that a schema asks for."""
    try:
        found = json.loads(unfenced(answer["text"]))
    except json.JSONDecodeError:
        return None
    if isinstance(found, dict) and list(found) == ["number"]:
        found = found["number"]
    return (found - 1, None) if type(found) is int and 1 <= found <= count else None


def _read_slot(answer: Mapping[str, Any], count: int) -> tuple[int, float | None] | None:
    row = read_slot(answer, range(1, count + 1))
    return None if row is None else (int(np.argmax(row)), max(row))


@dataclass(frozen=True)
class Picked:
    """record: what goes on the line; accuracy, and what it is with documents reweighted."""

    record: Record
    accuracy: float
    replicates: Floats
    documents: tuple[str, ...]


def scored(chosen: Chosen, tried: Sequence[Trial], said: Sequence[Any]) -> Picked | Failure:
    """How often the intruder was found; the first failure where nothing was answered at all."""
    answered = [(t, one) for t, one in zip(tried, said, strict=True) if not isinstance(one, Failure)]
    if not answered:
        failure: Failure = next(one for one in said if isinstance(one, Failure))
        return failure
    right = np.array([picked == trial.place for trial, (picked, _) in answered], np.float64)
    documents = tuple(chosen.shown.documents[trial.rows[trial.place]] for trial, _ in answered)
    weights = drawn_weights(documents, "document")
    replicates = right @ weights / weights.sum(0)
    accuracy = float(right.mean())
    # Two more that are right and two that are wrong: Agresti and Coull 1998, for one proportion.
    low, high = np.quantile(resampled(np.r_[right, 1, 1, 0, 0], chosen.unit.name), [0.025, 0.975])
    record: Record = {
        "accuracy": short(accuracy),
        "intervals": {"accuracy": [short(min(low, accuracy)), short(max(high, accuracy))]},
        "chance": short(1 / len(tried[0].rows)),
        "trials": len(answered),
    }
    if len(said) > len(answered):
        record["failed"] = len(said) - len(answered)
    record["judged"] = [_told(chosen, trial, *one) for trial, one in answered]
    record["replicates"] = packed({"accuracy": replicates})
    return Picked(record, accuracy, replicates, documents)


def _told(chosen: Chosen, trial: Trial, picked: int, probability: float | None) -> Record:
    told: Record = {"intruder": chosen.name(trial.rows[trial.place])}
    told["said"] = chosen.name(trial.rows[picked])
    return told | ({} if probability is None else {"score": short(probability)})
