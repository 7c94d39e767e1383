"""How a reviser is asked, how a writer of sentences is, and how sentences are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from nxtools.assistant.prompts import Leveled, Prompt
from nxtools.assistant.protocol import Message
from nxtools.explain.asked import NUMBERED, listed, of_view, without_thoughts
from nxtools.explain.showing import Evidence, of_example, seen

FEWEST = 2  # sentences in an answer: one for the reviser, one for scores
LONGEST = 400  # characters of a sentence

_ENDS = re.compile(r"(?<=[.!?…])[\"”’']?\s+(?=\S)")


def messages(
    prompt: Prompt, evidence: Evidence, view: str, explanation: str, tested: Sequence[Leveled]
) -> tuple[Message, ...]:
    """The prompt to mend an explanation of a unit. tested: what there is besides the old evidence; without
    any the explanation is hidden, and a new one asked for."""
    again = not tested
    instructions = prompt.fill("again.instructions" if again else "instructions")
    shown = [
        (of_example(example, view), example.before, [seen(one, view) for one in example.tested])
        for example in prompt.examples
    ]
    units = [
        _unit(prompt, *one, view, number, again=again)
        for number, one in enumerate([*shown, (evidence, explanation, tested)], start=1)
    ]
    answers = [
        prompt.fill("answer", explanation=example.explanation, number=number)
        for number, example in enumerate(prompt.examples, start=1)
    ]
    if prompt.texts.get("form") == "paper":
        known = [
            f"{unit}{answer} {example.explanation}"
            for unit, answer, example in zip(units, answers, prompt.examples, strict=False)
        ]
        last = units[-1] + prompt.fill("answer", number=len(units))
        return (Message("user", "\n\n".join(part.strip("\n") for part in [instructions, *known, last])),)
    turns = [Message("system", instructions)]
    for unit, answer in zip(units, answers, strict=False):
        turns += [Message("user", unit), Message("assistant", answer)]
    return (*turns, Message("user", units[-1]))


def _unit(
    prompt: Prompt,
    evidence: Evidence,
    explanation: str,
    tested: Sequence[Leveled],
    view: str,
    number: int,
    *,
    again: bool,
) -> str:
    if again:
        whole = replace(evidence, excerpts=(*evidence.excerpts, *tested))
        return prompt.fill("again.unit", number=number, evidence=of_view(prompt, whole, view))
    return prompt.fill(
        "unit",
        number=number,
        evidence=of_view(prompt, evidence, view),
        explanation=explanation,
        tested=listed(prompt, tested, first=len(evidence.excerpts) + 1, repeats=True),
    )


def to_write(prompt: Prompt, explanation: str, count: int) -> tuple[Message, ...]:
    """The prompt to write sentences that fit an explanation."""
    return (
        Message("system", prompt.fill("instructions").strip("\n")),
        Message("user", prompt.fill("unit", explanation=explanation, count=count)),
    )


def sentences(answer: str, count: int) -> list[str]:
    """At most `count` different sentences of an answer; none where it has too few.

    They are its numbered lines; where there are none its lines, and of running text the sentences.
    """
    text = without_thoughts(answer)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [match[1] for line in lines if (match := NUMBERED.match(line))]
    if not found:
        found = [line for line in lines if not line.endswith(":")]
    if len(found) == 1:
        found = _ENDS.split(found[0])
    kept: dict[str, str] = {}
    for one in found:
        printable = "".join(character if character.isprintable() else " " for character in one)
        sentence = " ".join(printable.split()).strip("*_` ")
        if len(sentence) <= LONGEST and (words := same(sentence)):
            kept.setdefault(words, sentence)
    return list(kept.values())[:count] if len(kept) >= FEWEST else []


def same(sentence: str) -> str:
    """Equal for sentences that differ in signs and capitals alone."""
    return " ".join(re.findall(r"\w+", sentence.lower()))
