"""How an explainer is asked, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nxtools.assistant.prompts import Leveled, Prompt, visible
from nxtools.assistant.protocol import Message
from nxtools.explain.showing import Evidence, of_example

DENSE = 0.2  # below this share of nonzero levels they are shown once more by themselves
LONGEST = 600  # characters; what is longer explains nothing in a phrase
LISTED = 5  # explanations asked for in one answer, at most

_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THINKING = re.compile(r"</?(think|thinking|reasoning)>", re.IGNORECASE)
NUMBERED = re.compile(r"^\s*(?:\d+[.):]|[-*•])\s+(.+)$")


def messages(
    prompt: Prompt, evidence: Evidence, view: str, *, wanted: int = 1, turn: int = 0
) -> tuple[Message, ...]:
    """The prompt for one unit. wanted: explanations in one answer. turn: varies the examples: so many are
    taken from the front to the end, and from the second turn on one is left out."""
    examples = [*prompt.examples[turn:], *prompt.examples[:turn]] if prompt.examples else []
    if turn and len(examples) > 1:
        examples.pop()
    shown = [(of_example(example, view), example.explanation) for example in examples]
    instructions = prompt.fill("instructions")
    if prompt.texts.get("form") == "paper":
        parts = [instructions]
        for number, (of, explanation) in enumerate(shown, start=1):
            parts.append(
                f"{_unit(prompt, of, view, number)}{prompt.fill('answer', number=number)} {explanation}"
            )
        number = len(shown) + 1
        ask = "answer" if wanted == 1 else "answers"
        end = prompt.fill(ask, number=number, count=wanted)
        parts.append(_unit(prompt, evidence, view, number) + end)
        return (Message("user", "\n\n".join(part.strip("\n") for part in parts)),)
    turns = [Message("system", instructions)]
    for number, (of, explanation) in enumerate(shown, start=1):
        turns.append(Message("user", _unit(prompt, of, view, number)))
        turns.append(Message("assistant", prompt.fill("answer", explanation=explanation, number=number)))
    last = _unit(prompt, evidence, view, len(shown) + 1)
    if wanted > 1:
        last += prompt.fill("answers", count=wanted, number=len(shown) + 1)
    return (*turns, Message("user", last))


def _unit(prompt: Prompt, evidence: Evidence, view: str, number: int) -> str:
    return prompt.fill("unit", number=number, evidence=of_view(prompt, evidence, view))


def of_view(prompt: Prompt, evidence: Evidence, view: str) -> str:
    """The evidence of one unit."""
    paper = prompt.texts.get("form") == "paper"
    excerpts = listed(prompt, evidence.excerpts, repeats=view in ("activations", "next-token", "contrast"))
    silent = listed(prompt, evidence.silent, first=len(evidence.excerpts) + 1)
    name = "pair" if paper else "strength"
    tokens = "\n".join(prompt.fill(name, token=visible(t), level=level) for t, level in evidence.tokens)
    return prompt.fill(f"views.{view}", excerpts=excerpts, silent=silent, tokens=tokens)


def listed(prompt: Prompt, excerpts: Sequence[Leveled], *, first: int = 1, repeats: bool = False) -> str:
    """Excerpts as the prompt's form has them, numbered from `first`; in tables, few nonzero levels again."""
    paper = prompt.texts.get("form") == "paper"
    one = _table if paper else _text
    told = [one(prompt, excerpt, place) for place, excerpt in enumerate(excerpts, start=first)]
    if not paper:
        return "\n\n".join(told)
    return "\n".join(told) + (_repeated(prompt, excerpts) if repeats else "")


def _table(prompt: Prompt, excerpt: Leveled, number: int) -> str:
    return prompt.fill("excerpt", number=number, pairs=_pairs(prompt, excerpt))


def _pairs(prompt: Prompt, excerpt: Leveled, least: int = 0) -> str:
    return "\n".join(
        prompt.fill("pair", token=visible(token), level=level)
        for token, level in zip(excerpt.tokens, excerpt.levels, strict=True)
        if level >= least
    )


def _repeated(prompt: Prompt, excerpts: Sequence[Leveled]) -> str:
    """The nonzero levels once more, where they are few."""
    every = [level for excerpt in excerpts for level in excerpt.levels]
    nonzero = sum(level > 0 for level in every)
    if not 0 < nonzero < DENSE * len(every):
        return ""
    again = [
        prompt.fill("excerpt", number=number, pairs=_pairs(prompt, excerpt, least=1))
        for number, excerpt in enumerate(excerpts, start=1)
    ]
    return "\n" + prompt.fill("repeated", excerpts="\n".join(again))


def _text(prompt: Prompt, excerpt: Leveled, number: int) -> str:
    pairs = list(zip(map(visible, excerpt.tokens), excerpt.levels, strict=True))
    text = "".join(prompt.fill("mark", token=token) if level else token for token, level in pairs)
    strengths = [
        prompt.fill("strength", token=token.strip() or token, level=level) for token, level in pairs if level
    ]
    if not strengths:
        return prompt.fill("silent_excerpt", number=number, text=text)
    return prompt.fill("excerpt", number=number, text=text, strengths=", ".join(strengths))


def read(prompt: Prompt, answer: str, *, wanted: int = 1) -> list[str]:
    """The explanations in an answer, at most `wanted`; none where it cannot be read.

    Reasoning blocks are no part of it, and one that does not end leaves nothing. An answer that reasons in
    the open must name its explanation by the prompt's label; a single paragraph is one without.
    """
    text = without_thoughts(answer)
    if wanted > 1:
        first = "1. " if prompt.texts.get("form") == "paper" and not NUMBERED.match(text) else ""
        found = [match[1] for line in (first + text).splitlines() if (match := NUMBERED.match(line))]
        return [clean for one in found if (clean := _clean(one, prompt))][:wanted]
    label = _label(prompt)
    labelled = [line.partition(label)[2] for line in text.splitlines() if label and label in line]
    one = labelled[-1] if labelled else text
    if not labelled and "\n\n" in one:
        return []
    clean = _clean(" ".join(one.split()), prompt)
    return [clean] if clean else []


def without_thoughts(answer: str) -> str:
    """An answer without its blocks of reasoning; nothing where one does not end."""
    text = _THOUGHT.sub("", answer)
    if closing := list(re.finditer(r"</(think|thinking|reasoning)>", text, re.IGNORECASE)):
        text = text[closing[-1].end() :]  # the template had opened the block
    return "" if _THINKING.search(text) else text.strip()


def _label(prompt: Prompt) -> str:
    """What stands before the explanation in the examples' answers: `Explanation:`."""
    return prompt.texts["answer"].partition("{{")[0].strip() if prompt.texts.get("form") != "paper" else ""


def _clean(text: str, prompt: Prompt) -> str:
    label = _label(prompt)
    text = text.strip().strip("*_` ").strip()
    if label and text.startswith(label):
        text = text.removeprefix(label).strip("*_` ")
    if (
        len(text) > 1
        and (text[0], text[-1]) in (('"', '"'), ("'", "'"), ("“", "”"))
        and text[0] not in text[1:-1]
    ):
        text = text[1:-1].strip()
    readable = text.isprintable() and any(character.isalnum() for character in text)
    if len(text) > LONGEST or not readable:
        return ""
    return text
