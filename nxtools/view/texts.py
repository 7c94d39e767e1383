"""From text to units: which units fire most at each token of a text that somebody gives.

Units are compared by their activation's share of the strongest that was recorded of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.records import Failure, sign_of, unit_name
from nxtools.stage import Engine, Question, Step
from nxtools.stream import Record
from nxtools.subject.asked import SPELLING_VERSION, VERSION, LayerReading, Spelling
from nxtools.view.explained import current
from nxtools.view.scores import author, main_figure, scores

STAGE = "view"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Ran:
    """How the units' subject was run: tokens that it sees at once, and the token in front of them, if any."""

    subject: str
    fingerprint: str
    site: str
    dtype: str
    context: int
    bos: int | None

    @classmethod
    def of(cls, record: Record) -> Ran | None:
        """None where the line does not say it."""
        unit, recorded = record["unit"], record.get("recorded")
        if not isinstance(recorded, dict) or not isinstance(unit.get("fingerprint"), str):
            return None
        context, bos = recorded.get("context"), recorded.get("bos")
        if type(context) is not int or context < 1 or not (bos is None or type(bos) is int):
            return None
        names = str(unit.get("subject", "")), unit["fingerprint"], str(unit.get("site", "mlp"))
        return cls(*names, str(recorded.get("dtype", "float32")), context, bos)

    def contexts(self, ids: Sequence[int]) -> list[NDArray[np.int32]]:
        """A text cut as a recording cuts documents, each piece with the token that stands in front."""
        lead = [] if self.bos is None else [self.bos]
        pieces = [ids[first : first + self.context] for first in range(0, len(ids), self.context)]
        return [np.array([*lead, *piece], np.int32) for piece in pieces]


@dataclass(frozen=True)
class Watched:
    """A unit that texts are looked at with. above, below: its strongest recorded activation on either side,
    which is a share of 1 or -1; sign: the side on which it counts.
    """

    address: str
    name: str
    layer: int
    index: int
    sign: str
    above: float
    below: float
    text: str | None
    by: str
    score: Record | None

    @property
    def strongest(self) -> float:
        """The recorded activation that is a share of 1, or of -1 where only the negative side counts."""
        return -self.below if self.sign == "-" else self.above

    @classmethod
    def of(cls, address: str, record: Record) -> Watched | None:
        """None for a unit that never fires, or of which nothing is known."""
        stats = record.get("stats")
        if record.get("error") or record.get("dead") or not isinstance(stats, dict):
            return None
        above, below = (abs(float(stats.get(name) or 0.0)) for name in ("max", "min"))
        if not max(above, below) > 0:
            return None
        told = current(record)
        text = None if told is None or "error" in told else str(told.get("text", ""))
        figures = (main_figure(score) for score in scores(told or {}))
        figure = next((one for one in figures if one and one["value"] is not None), None)
        score = figure and {name: figure[name] for name in ("name", "value", "low", "high")}
        unit = record["unit"]
        name, sign = unit_name(record), sign_of(record)
        by = author((told or {}).get("by"))["name"]
        sides = above or below, below or above
        return cls(address, name, unit["layer"], unit["index"], sign, *sides, text, by, score)


class Watch:
    """All units of a run, and what a text does to them. `left_out`: units of another subject or run."""

    def __init__(self, each: int) -> None:
        """each: units that are listed under a token."""
        self.each = each
        self.ran: Ran | None = None
        self.left_out = 0
        self._layers: dict[int, dict[int, list[Watched]]] = {}  # by layer and index: sides may be apart

    def add(self, address: str, record: Record) -> None:
        """address: what a viewer calls the unit."""
        ran = Ran.of(record)
        self.ran = self.ran or ran
        if ran is None or ran != self.ran:
            self.left_out += 1
        elif watched := Watched.of(address, record):
            of_layer = self._layers.setdefault(watched.layer, {})
            of_layer.setdefault(watched.index, []).append(watched)

    @property
    def units(self) -> int:
        return sum(len(same) for of_layer in self._layers.values() for same in of_layer.values())

    def step(self, record: Record, speller: Engine, reader: Engine) -> Step:
        """Adds to a record with a `text` its tokens and the units that fire at them, or an `error`.

        `tokens`, `ids`: of the text; `units`: those that are listed anywhere, see `_listed`;
        `under`: for each token their places, strongest first; `strongest`: the places of those that are
        strongest anywhere; `of`: how many units were looked at.
        """
        if self.ran is None:
            failure = Failure(STAGE, "no-context", "no unit says how its subject was run (nx-record, nx-top)")
            return record | {"error": failure.record()}
        ran = self.ran
        names = ran.subject, ran.fingerprint, ran.site, ran.dtype
        spelling = Spelling(*names, [record["text"]])
        question = Question(
            "spell", SPELLING_VERSION, spelling.question(), speller, spelling, kind="spelling"
        )
        (spelled,) = yield [question]
        if isinstance(spelled, Failure):
            return record | {"error": spelled.record()}
        ids = spelled["ids"][0]
        if not ids:
            return record | {"error": Failure(STAGE, "no-tokens", "the text has no tokens").record()}
        contexts = ran.contexts(ids)
        readings = [
            LayerReading(*names, layer, tuple(sorted(of_layer)), contexts)
            for layer, of_layer in sorted(self._layers.items())
        ]
        answers = yield [
            Question("read", VERSION, one.question(), reader, one, kind="activations") for one in readings
        ]
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        if failures:
            return record | {"error": failures[0].record()}
        units: list[Watched] = []
        rows: list[Floats] = []
        for reading, answer in zip(readings, answers, strict=True):
            values = in_text(reading.unpacked(answer), [len(ids) for ids in contexts], ran.bos)
            for row, column in zip(values, reading.columns, strict=True):
                for watched in self._layers[reading.layer][column]:
                    units.append(watched)
                    rows.append(row)
        values = np.stack(rows) if rows else np.zeros((0, len(ids)), np.float32)
        return record | {"ids": ids, "tokens": spelled["tokens"][0]} | self._listed(units, values)

    def _listed(self, units: list[Watched], values: Floats) -> Record:
        """values: (units, tokens), NaN where left out.

        Each of `units`: `address`, `name`, `sign`, `text`, `by`, `score`, `max` (the activation that is a
        share of 1), and by token its `values` and `shares`.
        """
        shares = np.array([share(*one) for one in zip(units, values, strict=True)]).reshape(values.shape)
        strength = np.array([side(*one) for one in zip(units, shares, strict=True)]).reshape(values.shape)
        strength = np.nan_to_num(strength)
        under = [_highest(column, self.each) for column in strength.T]
        overall = _highest(strength.max(axis=1, initial=0.0), max(self.each, 10))
        listed = list(dict.fromkeys([*overall, *(place for places in under for place in places)]))
        place_of = {unit: place for place, unit in enumerate(listed)}
        return {
            "units": [
                {
                    "address": units[unit].address,
                    "name": units[unit].name,
                    "sign": units[unit].sign,
                    "text": units[unit].text,
                    "by": units[unit].by,
                    "score": units[unit].score,
                    "max": short(units[unit].strongest),
                    "values": [short(value) for value in values[unit]],
                    "shares": [short(value, 3) for value in shares[unit]],
                }
                for unit in listed
            ],
            "under": [[place_of[unit] for unit in places] for places in under],
            "strongest": [place_of[unit] for unit in overall],
            "of": len(units),
        }


def in_text(pieces: Floats, lengths: Sequence[int], bos: int | None) -> Floats:
    """Activations on the pieces of a text (pieces, columns, longest) as one row (columns, tokens).

    The first position of a piece is left out unless a token stands in front, as in a recording.
    """
    first = 0 if bos is None else 1
    rows = [piece[:, first:length].copy() for piece, length in zip(pieces, lengths, strict=True)]
    if bos is None:
        for row in rows:
            row[:, 0] = np.nan
    return np.concatenate(rows, axis=1)


def share(unit: Watched, values: Floats) -> Floats:
    """Of the strongest recorded activation of the value's sign: (tokens,)."""
    return np.where(values >= 0, values / unit.above, values / unit.below)


def side(unit: Watched, shares: Floats) -> Floats:
    """How strong that is on the side on which the unit counts."""
    return {"+": shares, "-": -shares}.get(unit.sign, np.abs(shares))


def _highest(strength: Floats, count: int) -> list[int]:
    """The places of the highest that are above 0, the highest first, the first of equal ones first."""
    order = np.argsort(-strength, kind="stable")[:count]
    return [int(place) for place in order if strength[place] > 0]


def short(value: Any, digits: int = 4) -> float | None:
    """null where left out."""
    return None if not np.isfinite(value) else float(f"{value:.{digits}g}")


def given_texts(texts: Sequence[str]) -> list[Record]:
    """Records for `Watch.step`. InputError for a text of nothing."""
    for text in texts:
        if not text.strip():
            raise InputError("a text of nothing but blanks has no units")
    return [{"text": text} for text in texts]
