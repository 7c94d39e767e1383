"""Explanations in other words, to be scored beside the originals.

An explainer and a simulator of the same kind may understand each other by habits of wording that nobody else
would read that way. What an explanation says survives rewording; what only such a pair reads in it does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nxtools.assistant.asking import Asking
from nxtools.assistant.prompts import Prompt, read_prompt
from nxtools.assistant.protocol import Completion, Message
from nxtools.errors import InputError
from nxtools.explain.asked import read
from nxtools.explain.assistant import PROMPTS, staged, with_entries
from nxtools.explain.drawing import Asked, drawn
from nxtools.explain.pattern import identify
from nxtools.pattern.language import parse
from nxtools.stage import Question, Step
from nxtools.stream import Record

CARRIED = ("sign", "view", "scale")  # what is true of the original is true of its rewording


@dataclass(frozen=True)
class Rewording:
    """Who rewords. prompt: a file in place of the one that comes along."""

    asking: Asking
    prompt: Path | None = None


class Reworder:
    """Rewords the explanations that units carry; the prompt is read once."""

    def __init__(self, rewording: Rewording) -> None:
        self.asking = rewording.asking
        self.prompt = read_prompt(rewording.prompt or PROMPTS / "paraphrase.toml")
        self.unread = 0  # rewordings whose answers came, but could not be read
        self.seen = 0  # explanations to reword

    def step(self, record: Record) -> Step:
        """The unit with a rewording of each explanation in words, or an error in its place."""
        told = [entry for entry in record.get("explanations") or [] if in_words(entry)]
        if not told or record.get("dead") or record.get("error"):
            return record
        self.seen += len(told)
        (chats,) = yield [self.asking.has("chat")]
        found = []
        for entry in told:
            found.append((yield from self._reworded(entry, stops=chats is False)))
        return with_entries(record, found)

    def _reworded(self, entry: Record, *, stops: bool) -> Asked:
        original = str(entry["text"])

        def read_other(answer: str) -> list[str]:
            return [text for text in read(self.prompt, answer) if _words(text) != _words(original)]

        found = yield from drawn(
            lambda draw: self._question(original, draw, stops=stops),
            read_other,
            1,
            chance=self.prompt.temperature > 0,
        )
        by: Record = {
            "explainer": self.asking.name,
            "model": self.asking.identity,
            "prompt": self.prompt.described(),
            "temperature": self.prompt.temperature,
        }
        made: Record = {"by": by, "paraphrase_of": entry.get("id")}
        if not found.texts:
            self.unread += found.unread
            return {**made, "error": staged(found.failure)}
        text = found.texts[0]
        new = identify({"text": text, "by": {**by, "paraphrase_of": entry.get("id")}})["id"]
        made = {"id": new, "text": text, **made, "words_kept": words_kept(original, text)}
        return made | {name: entry[name] for name in CARRIED if name in entry} | {"usage": found.usage}

    def _question(self, original: str, draw: int, *, stops: bool) -> Question:
        prompt = self.prompt
        payload = Completion(
            messages(prompt, original),
            prompt.temperature,
            prompt.max_tokens,
            draw=draw,
            stop=prompt.stop if stops else (),
        )
        return self.asking.complete(payload, "paraphrase")


def in_words(entry: Record) -> bool:
    """Whether an explanation can be said otherwise: a pattern cannot, it is the program that it says. What a
    puzzle offers for choice is not to be added to."""
    text = entry.get("text")
    if not isinstance(text, str) or "paraphrase_of" in entry or "candidate" in entry:
        return False
    try:
        parse(text)
    except InputError:
        return True
    return False


def messages(prompt: Prompt, explanation: str) -> tuple[Message, ...]:
    return (
        Message("system", prompt.fill("instructions").strip("\n")),
        Message("user", prompt.fill("unit", explanation=explanation)),
    )


def words_kept(original: str, text: str) -> float:
    """The share of the new words that the original has too."""
    old, new = set(_words(original)), _words(text)
    return round(sum(word in old for word in new) / len(new), 2) if new else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
