"""Asking an assistant without the loop around it, and prompts to ask."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nxtools.assistant.protocol import Assistant, Number, Piece, Slot, Slots
from nxtools.assistant.slots import Prompt
from nxtools.stage import Ask, Question

WORDS = [" the", " cat", " knows", "\t", "\n", "<end>", " unknown", "10", "</s>", "<|endoftext|>", "é", " "]


def ask(assistant: Assistant, payloads: Sequence[Any], *, at_once: int = 1000) -> list[Any]:
    """The answers, in the order of the payloads; the assistant gets at most so many at once."""
    asks = [
        Ask(str(n), Question("simulate.test", 1, {}, assistant, payload))
        for n, payload in enumerate(payloads)
    ]
    waiting = list(asks)

    def pull(wanted: int) -> list[Ask]:
        taken = waiting[: min(wanted, at_once)]
        del waiting[: len(taken)]
        return taken

    answers = {one.digest: answer for batch in assistant.answer(pull) for one, answer in batch}
    return [answers[one.digest] for one in asks]


def prompts(explanations: int, excerpts: int, *, tokens: int = 12, examples: int = 20) -> list[Slots]:
    """Prompts in the paper's form: each token, a tab, a number, a newline."""
    chance = random.Random(0)
    prefix: list[str | Number] = ["Numbers for tokens.\n"]
    for number in range(examples):
        prefix += [chance.choice(WORDS), "\t", Number(number % 11), "\n"]
    made = []
    for _ in range(explanations):
        explanation = (f"Words about {chance.randrange(10**6)}", ".\n")
        for _ in range(excerpts):
            excerpt: list[Piece] = []
            for _ in range(chance.randint(tokens // 2, tokens)):
                excerpt += [chance.choice(WORDS), "\t", Slot("unknown"), "\n"]
            made.append(Slots(tuple(prefix), explanation, tuple(excerpt)))
    return made


def tokens_once(prompts: Sequence[Prompt]) -> int:
    """Each prefix, each explanation behind it and each excerpt counted once."""
    prefixes = {prompt.prefix for prompt in prompts}
    explanations = {(prompt.prefix, prompt.explanation) for prompt in prompts}
    shared = sum(map(len, prefixes)) + sum(len(explanation) for _, explanation in explanations)
    return shared + sum(len(prompt.excerpt) for prompt in prompts)


def number_logs(logits: npt.NDArray[Any], numbers: Sequence[int]) -> npt.NDArray[np.float64]:
    """Log-probabilities (slots, numbers) from logits (slots, vocabulary)."""
    logits = logits.astype(np.float64)
    highest = logits.max(axis=1, keepdims=True)
    total = highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    logs: npt.NDArray[np.float64] = (logits - total)[:, list(numbers)]
    return logs


def answered_logs(answer: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The same from an answer; absent where it says too little for four digits."""
    probabilities = np.array(answer["probabilities"])[:, : answer["top"] + 1]
    logs = np.log(np.where(probabilities < 1e-2, np.nan, probabilities))
    made: npt.NDArray[np.float64] = logs + np.log(np.array(answer["mass"]))[:, None]
    return made
