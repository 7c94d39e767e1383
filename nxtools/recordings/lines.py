"""Unit lines from what was dealt.

Forty excerpts of 64 tokens make a line of 50 kB, and most of it (ids and token texts) is the same for every
unit that shows the excerpt. So that part is put into bytes once per excerpt.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import orjson
from numpy.typing import NDArray

from nxtools.recordings.deal import NONE, Deal, Hand
from nxtools.recordings.layer import Corpus, Layer
from nxtools.records import SETS

UNITS_AT_ONCE = 64
SHOWN_IN_MEMORY = 50_000
DIGITS = 4


def rounded(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (…, tokens) to four significant digits of each row's largest magnitude."""
    peak = np.nanmax(np.abs(rows), axis=-1, initial=0.0, where=~np.isnan(rows))
    exponent = np.floor(np.log10(np.where(peak > 0, peak, 1.0)))
    factor = np.power(10.0, DIGITS - 1 - exponent)[..., None]
    short: NDArray[np.float32] = (np.rint(rows * factor) / factor + 0.0).astype(np.float32)  # no minus zeros
    return short


class Printed:
    """The beginnings of excerpts' objects, up to what differs from unit to unit."""

    def __init__(self, corpus: Corpus, vocabulary: list[str]) -> None:
        self.corpus = corpus
        self._tokens = [orjson.dumps(text) for text in vocabulary]
        self._names = corpus.gather("id")
        self._starts = corpus.gather("start")
        self._known: dict[int, bytes] = {}

    def __getitem__(self, excerpt: int) -> bytes:
        known = self._known.get(excerpt)
        if known is None:
            if len(self._known) >= SHOWN_IN_MEMORY:
                self._known.clear()
            ids = self.corpus.ids(excerpt).tolist()
            known = b'{"id":"%016x","document":"%b","start":%d,"ids":%b,"tokens":[%b]' % (
                int(self._names[excerpt]),
                self.corpus.document(excerpt).encode(),
                int(self._starts[excerpt]),
                orjson.dumps(ids),
                b",".join([self._tokens[token] for token in ids]),
            )
            self._known[excerpt] = known
        return known


class UnitLines:
    """Writes the lines of one layer."""

    def __init__(self, layer: Layer, printed: Printed) -> None:
        self._layer = layer
        self._printed = printed

    def excerpts(self, hand: Hand, units: NDArray[np.int64]) -> Iterator[tuple[int, list[orjson.Fragment]]]:
        """(unit, its excerpts) for the units asked for."""
        for first in range(0, len(units), UNITS_AT_ONCE):
            block = units[first : first + UNITS_AT_ONCE]
            rows = [self._rows(deal, block) for deal in hand.deals]
            for place, unit in enumerate(block.tolist()):
                found: list[orjson.Fragment] = []
                for deal, values in zip(hand.deals, rows, strict=True):
                    found += self._picked(deal, unit, values[place])
                yield unit, found

    def _rows(self, deal: Deal, units: NDArray[np.int64]) -> NDArray[np.float32]:
        """Activations (units, k, tokens) of a deal, rounded."""
        chosen = deal.chosen[units]
        rows = np.zeros((*chosen.shape, self._layer.corpus.tokens), np.float32)
        there = chosen != NONE
        if deal.entries is None:
            unit = np.broadcast_to(units[:, None], chosen.shape)
            rows[there] = self._layer.pool_rows(unit[there], chosen[there])
        else:
            rows[there] = self._layer.rows(deal.entries.at(chosen[there]))
        return rounded(rows)

    def _picked(self, deal: Deal, unit: int, rows: NDArray[np.float32]) -> list[orjson.Fragment]:
        count = int((deal.chosen[unit] != NONE).sum())
        if not count:
            return []
        values = orjson.dumps(rows[:count], option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
        probabilities = deal.probability
        found = []
        for rank, excerpt in enumerate(deal.excerpt[unit, :count].tolist()):
            likely = b"null" if probabilities is None else b"%.4g" % probabilities[unit, rank]
            found.append(
                orjson.Fragment(
                    b'%b,"set":"%b","pick":"%b","rank":%d,"probability":%b,"activations":[%b]}'
                    % (
                        self._printed[excerpt],
                        SETS[deal.set].encode(),
                        deal.pick.encode(),
                        rank,
                        likely,
                        values[rank],
                    )
                )
            )
        return found
