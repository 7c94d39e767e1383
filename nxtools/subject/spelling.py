"""The engine that spells texts as a subject does: token ids, and the text of each token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nxtools.records import Failure
from nxtools.subject.asked import Spelling
from nxtools.subject.vocabulary import token_texts

if TYPE_CHECKING:
    from nxtools.stage import Answered, Pull

ASKS = 64


class Speller:
    """Answers `Spelling`s. The tokenizer is loaded when the first one comes."""

    def __init__(self, load: Callable[[Spelling], Any], stage: str = "revise") -> None:
        """load: the tokenizer that a first spelling is for, or ModelError; stage: whose failures they are."""
        self._load, self._stage = load, stage
        self._tokenizer: Any = None
        self._texts: list[str] = []
        self._of = ""

    def answer(self, pull: Pull) -> Iterator[Answered]:
        while asks := pull(ASKS):
            if self._tokenizer is None:
                self._of = asks[0].payload.fingerprint
                self._tokenizer = self._load(asks[0].payload)
                self._texts = token_texts(self._tokenizer)
            yield [(ask, self._spelled(ask.payload)) for ask in asks]

    def _spelled(self, spelling: Spelling) -> dict[str, Any] | Failure:
        if spelling.fingerprint != self._of:
            message = "units of several subjects cannot be read in one run"
            return Failure(self._stage, "another-subject", message)
        rows = self._tokenizer(list(spelling.texts), add_special_tokens=False, verbose=False)["input_ids"]
        return {
            "ids": rows,
            "tokens": [[self._texts[id].encode("utf-8", "replace").decode() for id in row] for row in rows],
        }
