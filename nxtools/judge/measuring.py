"""What judges have in common that measure something of an excerpt beside an explanation."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from nxtools.assistant.asking import Asking
from nxtools.assistant.prompts import Prompt, read_prompt
from nxtools.errors import ModelError
from nxtools.judge.judge import PROMPTS, Asked
from nxtools.records import Failure
from nxtools.stream import Record


class Measuring:
    """Measures by one assistant, with the words of a prompt file around the texts."""

    prompt_file: ClassVar[str]
    ability: ClassVar[str]
    lacking: ClassVar[str]  # what is wrong with an assistant that is not able
    others: ClassVar[str]  # which ones are

    def __init__(self, asking: Asking, prompt: Path | None = None) -> None:
        self.asking = asking
        self.prompt: Prompt = read_prompt(prompt or PROMPTS / self.prompt_file)

    def by(self) -> Record:
        return {
            "simulator": self.asking.name,
            "model": self.asking.identity,
            "prompt": self.prompt.described(),
        }

    def hindrance(self) -> Asked:
        """A failure where it cannot be known whether the assistant is able. ModelError where it is not."""
        (able,) = yield [self.asking.has(self.ability)]
        if able is False:
            raise ModelError(self.lacking, where=self.asking.name, hint=self.others)
        return able if isinstance(able, Failure) and able.kind != "dry-run" else None
