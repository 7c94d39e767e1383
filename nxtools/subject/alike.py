"""Tokens that a model cannot tell apart: rows of an embedding that point the same way.

Tokens that never occurred in training keep what they began with, or all move alike. A list of the strongest
tokens is filled by them if one of them is among the strongest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SAME = 0.98  # cosine: of trained tokens, hardly any two are over 0.8
TABLES, BITS = 8, 16  # a pair at 0.98 has the same bits in 1 of 3 tables, one at 0.5 in 1 of 650
ROWS = 8192  # in a block


@dataclass(frozen=True)
class Tokens:
    """The tokens of an embedding that have a text, those once that it cannot tell apart.

    blocks: token ids, and the rows that they are: where a block has no gaps, they are not copied.
    """

    blocks: Sequence[tuple[Tensor, Tensor | slice]] = ()
    texts: Sequence[str] = ()
    alike: Mapping[int, int] = field(default_factory=dict)  # how many others there are

    def named(self, token: int) -> dict[str, Any]:
        others = self.alike.get(token, 0)
        return {"id": token, "token": self.texts[token]} | ({"alike": others} if others else {})


def tokens_of(embedding: Tensor, texts: Sequence[str]) -> Tokens:
    """texts: by id; embedding: (vocabulary, d)."""
    known = [token for token, text in enumerate(texts[: len(embedding)]) if text]
    of = leaders(embedding, torch.tensor(known, dtype=torch.long, device=embedding.device))
    ids, counts = torch.unique(of, return_counts=True)
    blocks = []
    for some in torch.split(ids, ROWS):
        first, last = (int(some[0]), int(some[-1]) + 1) if len(some) else (0, 0)
        blocks.append((some, slice(first, last) if last - first == len(some) else some))
    others = zip(ids.tolist(), counts.tolist(), strict=True)
    return Tokens(blocks, texts, {token: count - 1 for token, count in others if count > 1})


def leaders(embedding: Tensor, tokens: Tensor) -> Tensor:
    """For each of the tokens (n,) the lowest of those that point the same way, or itself: (n,).

    Found by the signs of random projections: two vectors are compared if all bits of a table agree.
    """
    planes = torch.randn(embedding.shape[1], TABLES * BITS, generator=torch.Generator().manual_seed(0))
    planes = planes.to(embedding.device)
    powers = 2 ** torch.arange(BITS, device=embedding.device)
    signs = [embedding[block].float() @ planes > 0 for block in torch.split(tokens, ROWS)]
    codes = (torch.cat(signs).reshape(len(tokens), TABLES, BITS) * powers).sum(-1)
    places = torch.arange(len(tokens), device=tokens.device)
    leader = places.clone()
    for table in range(TABLES):
        _, bucket = torch.unique(codes[:, table], return_inverse=True)
        first = torch.full_like(places, len(places)).scatter_reduce(0, bucket, places, "amin")[bucket]
        others = places[first != places]
        for some in torch.split(others, ROWS):
            one, other = (embedding[tokens[rows]].float() for rows in (some, first[some]))
            same = some[torch.cosine_similarity(one, other, dim=1) > SAME]
            leader[same] = torch.minimum(leader[same], first[same])
    while not torch.equal(leader[leader], leader):
        leader = leader[leader]
    return tokens[leader]
