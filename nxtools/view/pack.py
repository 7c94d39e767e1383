"""Many unit pages in few bytes: what units share is said once, and chunks of them are compressed.

Units of a run are shown the same random excerpts, and all are made of the same tokens. A chunk names each
token's text and each excerpt's tokens once; pages name them by number. static/source.js undoes it.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from typing import Any

from nxtools.stream import Record, dump

TOGETHER = 16  # units in a chunk: opening one decodes them all; 32 would save 4% of the file


def compressed(data: Any) -> bytes:
    """JSON, gzipped, in base64: the same bytes for the same data."""
    return base64.b64encode(gzip.compress(dump(data), compresslevel=6, mtime=0))


class Packer:
    """Takes pages by address; `chunks` are compressed, and `places` says which one a unit is in."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self._pages: dict[str, Record] = {}
        self._strings: dict[str, int] = {}
        self._texts: dict[tuple[str, ...], int] = {}

    def add(self, address: str, page: Record) -> int:
        """Returns the number of the chunk that it is in."""
        self._pages[address] = {**page, "groups": [self._group(group) for group in page["groups"]]}
        chunk = len(self.chunks)
        if len(self._pages) >= TOGETHER:
            self._close()
        return chunk

    def _group(self, group: Record) -> Record:
        excerpts = [{**one, "tokens": self._text(tuple(one["tokens"]))} for one in group["excerpts"]]
        return {**group, "excerpts": excerpts}

    def _text(self, tokens: tuple[str, ...]) -> int:
        return self._texts.setdefault(tokens, len(self._texts))

    def _close(self) -> None:
        for tokens in self._texts:
            for token in tokens:
                self._strings.setdefault(token, len(self._strings))
        texts = [[self._strings[token] for token in tokens] for tokens in self._texts]
        self.chunks.append(compressed({"strings": list(self._strings), "texts": texts, "pages": self._pages}))
        self._pages, self._strings, self._texts = {}, {}, {}

    def finished(self) -> Iterator[bytes]:
        if self._pages:
            self._close()
        return iter(self.chunks)
