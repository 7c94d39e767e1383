"""How a model is asked for words: by the prompt that suits it, and until an answer can be read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nxtools.assistant.asking import Asking
from nxtools.assistant.prompts import read_prompt
from nxtools.stage import Failure, Question
from nxtools.stream import Record

NOTHING = Failure("explain", "unparseable", "no answer could be read")
AGAIN = 2  # further draws for an answer that cannot be read

Asked = Generator[Sequence[Question], list[Any], Any]


def suiting(asking: Asking, folder: Path, form: str, file: Path | None, examples: int | None) -> Asked:
    """The prompt of a folder in a form, "auto" for marked where the model has a chat template and paper where
    not, or that of a file; a failure when it cannot be known which one suits the model."""
    if file is None and form == "auto":
        (chats,) = yield [asking.has("chat")]
        if isinstance(chats, Failure) and chats.kind != "dry-run":
            return chats
        form = "paper" if chats is False else "marked"
    return read_prompt(file or folder / f"{form}.toml", examples=examples)


@dataclass
class Drawn:
    """Different texts in the order of their draws, what their answers cost, and why there are no more.

    unread: whether the last answer came, but could not be read.
    """

    texts: list[str] = field(default_factory=list)
    usage: Record = field(default_factory=lambda: {"calls": 0, "tokens_in": 0, "tokens_out": 0})
    failure: Failure = NOTHING

    @property
    def unread(self) -> bool:
        return not self.texts and self.failure.kind == "unparseable"


def drawn(
    question: Callable[[int], Question],
    read: Callable[[str], list[str]],
    draws: int,
    *,
    chance: bool,
    what: str = "an explanation",
) -> Asked:
    """`Drawn` from the answers to question(0) … question(draws - 1), and to further ones for those that
    `read` finds nothing in. chance: whether another draw may come out differently. what: is asked for."""
    found = Drawn()
    wanted = list(range(draws))
    calls = 0.0  # an API may give several draws in one
    for attempt in range(1 + AGAIN):
        answers = yield [question(draw) for draw in wanted]
        unread = 0
        for answer in answers:
            if isinstance(answer, Failure):
                found.failure = answer
                continue
            calls += 1 / answer.get("together", 1)
            found.usage["calls"] = round(calls)
            found.usage["tokens_in"] += answer.get("tokens_in") or 0
            found.usage["tokens_out"] += answer.get("tokens_out") or 0
            texts = read(answer["text"])
            found.texts += [text for text in texts if text not in found.texts]
            if not texts:
                unread += 1
                found.failure = _unparseable(answer, what)
        if not unread or not chance or attempt == AGAIN:
            break
        wanted = list(range(draws, draws + unread))
        draws += unread
    return found


def _unparseable(answer: Record, what: str) -> Failure:
    cut = " (it was cut off: max_tokens)" if answer.get("finish") == "length" else ""
    said = " ".join(str(answer["text"]).split())[:120]
    return Failure("explain", "unparseable", f"not {what}{cut}: {said!r}")
