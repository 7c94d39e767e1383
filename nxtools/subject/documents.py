"""Passages of text become documents: those of one file are joined until they hold enough tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nxtools.subject.text import Passage

DOCUMENTS_AT_ONCE = 256

Tokenize = Callable[[Sequence[str]], list[list[int]]]


def documents(
    passages: Iterable[Passage], tokenize: Tokenize, enough: int
) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """(text, token ids) of documents: passages that may continue are joined until they hold enough tokens."""
    texts: list[str] = []
    for text in _joined(passages, tokenize, enough):
        texts.append(text)
        if len(texts) == DOCUMENTS_AT_ONCE:
            yield from _tokenized(texts, tokenize)
            texts = []
    yield from _tokenized(texts, tokenize)


def _tokenized(texts: list[str], tokenize: Tokenize) -> Iterator[tuple[str, NDArray[np.int32]]]:
    if texts:
        for text, ids in zip(texts, tokenize(texts), strict=True):
            yield text, np.array(ids, np.int32)


def _joined(passages: Iterable[Passage], tokenize: Tokenize, enough: int) -> Iterator[str]:
    """Texts of documents. What is left at the end of a file joins the document before it."""
    run: list[str] = []
    for passage in passages:
        if not passage.continues and run:
            yield from _join_run(run, tokenize, enough)
            run = []
        run.append(passage.text)
    yield from _join_run(run, tokenize, enough)


def _join_run(run: list[str], tokenize: Tokenize, enough: int) -> Iterator[str]:
    if len(run) <= 1:
        yield from run
        return
    document: list[str] = []
    tokens = 0
    held: list[str] | None = None  # the last full document, until we know that it has a successor
    for first in range(0, len(run), DOCUMENTS_AT_ONCE):
        part = run[first : first + DOCUMENTS_AT_ONCE]
        for text, ids in zip(part, tokenize(part), strict=True):
            document.append(text)
            tokens += len(ids)
            if tokens >= enough:
                if held is not None:
                    yield "\n\n".join(held)
                held, document, tokens = document, [], 0
    if held is not None or document:
        yield "\n\n".join([*(held or []), *document])
