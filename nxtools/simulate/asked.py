"""How a simulator is asked: the payloads of each method for one explanation and one excerpt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nxtools.assistant.prompts import Leveled, Prompt, visible
from nxtools.assistant.protocol import Completion, Message, Number, Slot, Slots


@dataclass(frozen=True)
class Form:
    """What a method needs besides the explanation and the excerpt."""

    method: str
    prompt: Prompt
    grammar: bool = False
    schema: bool = False
    logprobs: int = 0
    prefixes: dict[str, tuple[str | Number, ...]] = field(default_factory=dict, compare=False, repr=False)


def _example(excerpt: Leveled, view: str) -> Leveled:
    if view != "next-token":
        return excerpt
    return Leveled(excerpt.tokens[1:], excerpt.levels[:-1])


def slots(form: Form, explanation: str, tokens: Sequence[str], view: str) -> Slots:
    """One text in which every number of the excerpt is unknown."""
    prompt = form.prompt
    begin, between, unknown, after = (prompt.fill(name) for name in ("begin", "between", "unknown", "after"))
    if view not in form.prefixes:
        form.prefixes[view] = _prefix(prompt, view)
    heading = prompt.fill("heading", number=len(prompt.examples) + 1, explanation=explanation)
    excerpt: list[str | Slot] = [begin]
    for token in tokens:
        excerpt += [visible(token), between, Slot(unknown), after]
    return Slots(form.prefixes[view], (heading,), tuple(excerpt))


def _prefix(prompt: Prompt, view: str) -> tuple[str | Number, ...]:
    """Instructions and examples, whose numbers are known from their switch on."""
    begin, between, unknown, after, end = (
        prompt.fill(name) for name in ("begin", "between", "unknown", "after", "end")
    )
    prefix: list[str | Number] = [prompt.fill(f"views.{view}")]
    for number, example in enumerate(prompt.examples, start=1):
        shown = _example(example.excerpts[0], view)
        prefix += [prompt.fill("heading", number=number, explanation=example.explanation), begin]
        for place, (token, level) in enumerate(zip(shown.tokens, shown.levels, strict=True)):
            known: str | Number = Number(level) if place >= example.switch else unknown
            prefix += [visible(token), between, known, after]
        prefix.append(end)
    return tuple(prefix)


def one_by_one(form: Form, explanation: str, tokens: Sequence[str], view: str) -> list[Completion]:
    """A prompt for each token, with the text up to it."""
    prompt = form.prompt

    def ask(explanation: str, tokens: Sequence[str], last: int) -> Message:
        text = "".join(map(visible, tokens[: last + 1]))
        token = visible(tokens[last])
        return Message("user", prompt.fill("unit", explanation=explanation, text=text, token=token))

    turns = [Message("system", prompt.fill(f"views.{view}"))]
    for example in prompt.examples:
        shown = _example(example.excerpts[0], view)
        peak = max(range(len(shown.levels)), key=lambda place: shown.levels[place])
        silent = [place for place, level in enumerate(shown.levels) if not level][-1:]
        for place in (peak, *silent):
            turns.append(ask(example.explanation, shown.tokens, place))
            turns.append(Message("assistant", str(shown.levels[place])))
    return [
        Completion(
            (*turns, ask(explanation, tokens, last)),
            prompt.temperature,
            prompt.max_tokens,
            logprobs=form.logprobs,
        )
        for last in range(len(tokens))
    ]


def written(form: Form, explanation: str, tokens: Sequence[str], view: str) -> list[Completion]:
    """One prompt, answered by all the numbers."""
    prompt = form.prompt

    def ask(explanation: str, tokens: Sequence[str]) -> Message:
        lines = [
            prompt.fill("token", number=number, token=visible(token))
            for number, token in enumerate(tokens, start=1)
        ]
        return Message("user", prompt.fill("unit", explanation=explanation, tokens="\n".join(lines)))

    turns = [Message("system", prompt.fill(f"views.{view}"))]
    for example in prompt.examples:
        shown = _example(example.excerpts[0], view)
        numbers = ",".join(f'"{number}":{level}' for number, level in enumerate(shown.levels, start=1))
        turns += [ask(example.explanation, shown.tokens), Message("assistant", f"{{{numbers}}}")]
    names = [str(number) for number in range(1, len(tokens) + 1)]
    return [
        Completion(
            (*turns, ask(explanation, tokens)),
            prompt.temperature,
            32 + 10 * len(tokens),
            grammar=_grammar(names) if form.grammar else None,
            schema=_schema(names) if form.schema else None,
            logprobs=form.logprobs,
        )
    ]


def _grammar(names: Sequence[str]) -> str:
    """GBNF of `{"1":n,"2":n,…}` with every name in order."""
    entries = ' "," '.join(f'"\\"{name}\\":" n' for name in names)
    return f'root ::= "{{" {entries} "}}"\nn ::= "10" | [0-9]\n'


def _schema(names: Sequence[str]) -> Mapping[str, Any]:
    """Of the same. The numbers are said once: OpenAI counts every value of every enumeration."""
    return {
        "type": "object",
        "properties": {name: {"$ref": "#/$defs/n"} for name in names},
        "required": list(names),
        "additionalProperties": False,
        "$defs": {"n": {"type": "integer", "enum": list(range(11))}},
    }
