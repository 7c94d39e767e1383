"""The engine that runs a subject over texts and reads units: many texts a pass, for many units at once.

Units that ask about the same texts share one pass through all the layers that are wanted; texts of a single
unit go as far as its layer. Batches have one shape for each length of text, so an answer does not depend on
what came with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nxtools.records import Failure
from nxtools.subject.asked import Activations, LayerReading, Reading, packed
from nxtools.subject.sites import captured

if TYPE_CHECKING:
    from nxtools.stage import Answered, Ask, Pull
    from nxtools.subject.load import Subject

ASKS = 512
BATCH = 64  # texts in a pass
STEP = 16  # texts are filled up to a multiple of so many tokens


@dataclass
class _Group:
    """Asks about the same texts, and by layer the columns that are wanted of it."""

    contexts: Sequence[NDArray[np.int32]]
    asks: list[Ask] = field(default_factory=list)
    columns: dict[int, dict[int, int]] = field(default_factory=dict)  # each with its place in what is found
    found: dict[int, Activations] = field(default_factory=dict)  # (texts, tokens, columns)

    def add(self, ask: Ask) -> None:
        columns = self.columns.setdefault(ask.payload.layer, {})
        for column in ask.payload.columns:
            columns.setdefault(column, len(columns))
        self.asks.append(ask)

    def answer(self, reading: Reading | LayerReading) -> dict[str, str]:
        places = self.columns[reading.layer]
        found = self.found[reading.layer][:, :, [places[column] for column in reading.columns]]
        return packed(found.transpose(0, 2, 1).reshape(-1, found.shape[1]))


class Reader:
    """An engine that answers readings. The subject is loaded when the first one comes."""

    def __init__(self, load: Callable[[Any], Subject], stage: str = "revise") -> None:
        """load: the subject that a first reading is for, or ModelError; stage: whose failures they are."""
        self._load, self._stage = load, stage
        self._subject: Subject | None = None
        self._of: tuple[str, str, str] | None = None
        self.texts = 0  # that went through the subject

    def answer(self, pull: Pull) -> Iterator[Answered]:
        while asks := pull(ASKS):
            if self._subject is None:
                self._of = _subject(asks[0].payload)
                self._subject = self._load(asks[0].payload)
            refused = {ask: failure for ask in asks if (failure := self._refused(ask.payload, self._subject))}
            yield list(refused.items())
            groups: dict[bytes, _Group] = {}
            for ask in asks:
                if ask not in refused:
                    contexts = ask.payload.contexts
                    key = b"|".join(np.asarray(ids, np.int32).tobytes() for ids in contexts)
                    groups.setdefault(key, _Group(contexts)).add(ask)
            self._read(list(groups.values()), self._subject)
            yield [(ask, group.answer(ask.payload)) for group in groups.values() for ask in group.asks]

    def _refused(self, reading: Reading | LayerReading, subject: Subject) -> Failure | None:
        if _subject(reading) != self._of:
            message = "units of several subjects cannot be read in one run"
            return Failure(self._stage, "another-subject", message)
        width = next((site.width for site in subject.sites if site.layer == reading.layer), 0)
        if not all(0 <= column < width for column in reading.columns):
            message = f"layer {reading.layer} of the subject has {width} units"
            return Failure(self._stage, "no-such-unit", message)
        return None

    def _read(self, groups: list[_Group], subject: Subject) -> None:
        shapes: dict[tuple[tuple[int, ...], int], list[tuple[_Group, int]]] = defaultdict(list)
        for group in groups:
            longest = max(map(len, group.contexts), default=0)
            for layer, columns in group.columns.items():
                group.found[layer] = np.zeros((len(group.contexts), longest, len(columns)), np.float32)
            for place, ids in enumerate(group.contexts):
                shapes[tuple(sorted(group.columns)), -(-len(ids) // STEP) * STEP].append((group, place))
        for (layers, width), places in shapes.items():
            sites = [site for site in subject.sites if site.layer in layers]
            here: list[tuple[_Group, int]] = []

            def read(layer: int, activations: torch.Tensor, here: list[tuple[_Group, int]] = here) -> None:
                _keep(here, layer, activations)

            with captured(subject.model, sites, read) as run:
                for first in range(0, len(places), BATCH):
                    here[:] = places[first : first + BATCH]
                    ids = np.zeros((BATCH, width), np.int64)
                    for row, (group, place) in enumerate(here):
                        ids[row, : len(group.contexts[place])] = group.contexts[place]
                    run(torch.from_numpy(ids).to(subject.device))
                    self.texts += len(here)


def _keep(here: list[tuple[_Group, int]], layer: int, activations: torch.Tensor) -> None:
    """The wanted columns of the batch's texts, a group at a time."""
    first = 0
    while first < len(here):
        group = here[first][0]
        last = first
        while last < len(here) and here[last][0] is group:
            last += 1
        columns = torch.tensor(list(group.columns[layer]), device=activations.device)
        values: Any = activations[first:last].index_select(2, columns).float().cpu().numpy()
        for row, (_, place) in zip(values, here[first:last], strict=True):
            length = len(group.contexts[place])
            group.found[layer][place, :length] = row[:length]
        first = last


def _subject(reading: Reading | LayerReading) -> tuple[str, str, str]:
    return reading.fingerprint, reading.site, reading.dtype
