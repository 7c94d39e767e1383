"""Surprisal: how much less a language model is surprised by an excerpt when it has read the explanation.

The excerpt's score is the mean log-probability of its tokens behind the explanation, less that without it, in
nats per token. Both are over all tokens but the first. AUROC says how often an active excerpt gains more than
a silent one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nxtools.assistant.protocol import Passage
from nxtools.judge.asked import Answered
from nxtools.judge.choosing import Chosen, Item
from nxtools.judge.judge import Asked, Said
from nxtools.judge.measuring import Measuring
from nxtools.records import Failure
from nxtools.stream import Record


class Surprisal(Measuring):
    """Measures what explanations are worth to one assistant. Raises ModelError for one that cannot say."""

    prompt_file = "surprisal.toml"
    ability = "passages"
    lacking = "does not say how likely a given text is"
    others = "llama:FILE.gguf and hf:MODEL do, and APIs that echo prompts with log-probabilities"

    def judge(self, chosen: Chosen, explanation: Record, passes: Sequence[Sequence[Item]]) -> Asked:
        items = [item for one in passes for item in one]
        if failed := (yield from self.hindrance()):
            return [failed for _ in items]
        fronts = [
            self.prompt.fill("with", explanation=str(explanation["text"])),
            self.prompt.fill("without"),
        ]
        answers = yield [
            self.asking.passage(Passage(front, "".join(chosen.tokens(item.row))), "judgement")
            for item in items
            for front in fronts
        ]
        said: Said = [_gain(told, untold) for told, untold in zip(answers[::2], answers[1::2], strict=True)]
        return said


def _gain(told: Any, untold: Any) -> Answered | Failure:
    for answer in (told, untold):
        if isinstance(answer, Failure):
            return Failure("score", answer.kind, answer.message)
    count = len(told["logprobs"])
    if not count:
        return Failure("score", "too-short", "the excerpt is one token of the assistant's")
    gain = (math.fsum(told["logprobs"]) - math.fsum(untold["logprobs"])) / count
    return Answered(gain > 0, gain)
