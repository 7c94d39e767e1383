"""How a judge is asked about excerpts, and how its answer is read.

* generate: some excerpts in one prompt; the model writes one 0 or 1 for each, held to that where the engine
  can;
* one-at-a-time: the same with one excerpt;
* all-at-once: the model only reads an excerpt, and how likely 1 is against 0 is taken where the answer would
  stand.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nxtools.assistant.prompts import Leveled, Prompt, visible
from nxtools.assistant.protocol import Completion, Message, Number, Slot, Slots

NEGLIGIBLE = 0.01  # mass on the numbers that are possible, below which nothing was answered
ALTERNATIVES = 20

_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_DIGITS = re.compile(r"[01](?:[\s,]*[01])*")


@dataclass(frozen=True)
class Form:
    """How a judge is asked. together: excerpts in one prompt."""

    method: str
    prompt: Prompt
    together: int
    grammar: bool = False
    schema: bool = False
    logprobs: int = 0


@dataclass(frozen=True)
class Answered:
    """What was said of one excerpt. score: how sure of it, such as the probability of 1 against 0; None where
    nobody said."""

    said: bool
    score: float | None


Marked = tuple[Sequence[str], frozenset[int]]  # tokens, and the places of those that are marked


def text_of(prompt: Prompt, marked: Marked) -> str:
    tokens, marks = marked
    shown = map(visible, tokens)
    return "".join(prompt.fill("mark", token=t) if place in marks else t for place, t in enumerate(shown))


def _of_example(excerpt: Leveled) -> Marked:
    return excerpt.tokens, frozenset(place for place, level in enumerate(excerpt.levels) if level)


def _examples(prompt: Prompt) -> list[tuple[str, list[tuple[Marked, int]]]]:
    """Explanations with excerpts and the answers to them, silent and active ones in turn."""
    found = []
    for example in prompt.examples:
        right = [(_of_example(one), 1) for one in example.excerpts]
        wrong = [(_of_example(one), 0) for one in example.silent]
        in_turn = [one for pair in zip(wrong, right, strict=False) for one in pair]
        rest = [*right[len(wrong) :], *wrong[len(right) :]]
        found.append((example.explanation, in_turn + rest))
    return found


# Asking


def written(form: Form, explanation: str, excerpts: Sequence[Marked]) -> Completion:
    """A prompt with some excerpts, answered by a number for each."""
    prompt = form.prompt

    def ask(explanation: str, excerpts: Sequence[Marked]) -> Message:
        return Message(
            "user", prompt.fill("unit", explanation=explanation, excerpts=numbered(prompt, excerpts))
        )

    turns = [Message("system", prompt.fill("instructions", count=len(excerpts)))]
    for told, shown in _examples(prompt):
        turns.append(ask(told, [marked for marked, _ in shown]))
        turns.append(Message("assistant", json.dumps([answer for _, answer in shown], separators=(",", ":"))))
    return Completion(
        (*turns, ask(explanation, excerpts)),
        prompt.temperature,
        prompt.max_tokens,
        grammar=_grammar(len(excerpts)) if form.grammar else None,
        schema=_schema(len(excerpts)) if form.schema else None,
        logprobs=form.logprobs,
    )


def numbered(prompt: Prompt, excerpts: Sequence[Marked]) -> str:
    return "\n".join(
        prompt.fill("excerpt", number=number, text=text_of(prompt, marked))
        for number, marked in enumerate(excerpts, start=1)
    )


def read_on(form: Form, explanation: str, excerpt: Marked) -> Slots:
    """One text with the number behind the excerpt unknown."""
    prompt = form.prompt
    prefix: list[str | Number] = [prompt.fill("read.instructions")]
    for told, shown in _examples(prompt):
        prefix.append(prompt.fill("read.heading", explanation=told))
        for marked, answer in shown:
            prefix += [prompt.fill("read.excerpt", text=text_of(prompt, marked)), Number(answer), "\n"]
    heading = prompt.fill("read.heading", explanation=explanation)
    text = prompt.fill("read.excerpt", text=text_of(prompt, excerpt))
    return Slots(tuple(prefix), (heading,), (text, Slot("0")))


def _grammar(count: int) -> str:
    """GBNF of `[0,1,…]`."""
    return 'root ::= "[" ' + ' "," '.join(["n"] * count) + ' "]"\nn ::= [01]\n'


def _schema(count: int) -> Mapping[str, Any]:
    """Of `{"1":0,"2":1,…}`: what is held to a schema must be an object."""
    names = [str(number) for number in range(1, count + 1)]
    return {
        "type": "object",
        "properties": {name: {"type": "integer", "enum": [0, 1]} for name in names},
        "required": names,
        "additionalProperties": False,
    }


# Reading


def read_written(answer: Mapping[str, Any], count: int) -> list[Answered] | None:
    """One answer for each of `count` excerpts, None where the text is anything else than that.

    Taken are a JSON array of 0 and 1, an object from "1" on, and as many bare digits; nothing is guessed.
    """
    whole = answer["text"]
    text = unfenced(whole)
    numbers = _numbers(text, count)
    if numbers is None:
        return None
    probabilities = _probabilities(answer.get("tokens") or [], whole, text, numbers)
    return [Answered(number == 1, p) for number, p in zip(numbers, probabilities, strict=True)]


def unfenced(text: str) -> str:
    """An answer without reasoning and code fences around it."""
    text = _THOUGHT.sub("", text).strip()
    fenced = _FENCE.fullmatch(text)
    return fenced[1] if fenced else text


def _numbers(text: str, count: int) -> list[int] | None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if isinstance(found, dict):
        if list(found) != [str(number) for number in range(1, count + 1)]:
            return None
        found = list(found.values())
    if not isinstance(found, list):
        if not _DIGITS.fullmatch(text):
            return None
        found = [int(one) for one in re.findall(r"[01]", text)]
    if len(found) != count or any(type(one) is not int or one not in (0, 1) for one in found):
        return None
    return found


def _probabilities(
    tokens: Sequence[Mapping[str, Any]], whole: str, text: str, numbers: Sequence[int]
) -> list[float | None]:
    """How likely 1 was against 0 where each number was written, from the log-probabilities there."""
    places = _places(text, len(numbers))
    start = whole.rfind(text)
    inside: list[int] = [place for place, token in enumerate(tokens) for _ in token["text"]]
    joined = "".join(token["text"] for token in tokens)
    lead = joined.find(whole)
    if lead < 0 or start < 0 or len(places) != len(numbers):
        return [None] * len(numbers)
    return [_of_one(tokens[inside[lead + start + place]]["logprobs"]) for place in places]


def _places(text: str, count: int) -> list[int]:
    """Where in the text the numbers stand."""
    pattern = r'"\d+"\s*:\s*([01])' if text.startswith("{") else r"([01])"
    return [match.start(1) for match in re.finditer(pattern, text)]


def _of_one(logprobs: Mapping[str, float]) -> float | None:
    """1 against 0, each among whatever punctuation the tokenizer cuts it with."""
    mass = [0.0, 0.0]
    for text, logprob in logprobs.items():
        if match := re.fullmatch(r'[\s\[:,"]*([01])[\s\],}"]*', text):
            mass[int(match[1])] += math.exp(logprob)
    return mass[1] / sum(mass) if sum(mass) > 0 else None


def read_slot(answer: Mapping[str, Any], possible: Sequence[int]) -> list[float] | None:
    """How likely each possible number is among them; None where they have no mass at all."""
    row = [answer["probabilities"][0][number] for number in possible]
    if not sum(row) * answer["mass"][0] >= NEGLIGIBLE:
        return None
    return [p / sum(row) for p in row]
