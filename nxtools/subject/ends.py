"""The engine that reads units at the ends of texts: many short texts a pass, each of them run once.

Texts of one length go together, those that are wanted from deeper layers last, and every pass ends at the
deepest layer that its texts are wanted from. Batches have one shape for each length, so an answer does not
depend on what came with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nxtools.errors import InputError
from nxtools.records import Failure
from nxtools.subject.asked import OfSubject
from nxtools.subject.sites import captured

if TYPE_CHECKING:
    from nxtools.stage import Answered, Ask, Pull
    from nxtools.subject.load import Subject

ASKS = 4096
AT_ONCE = 512  # asks whose answers are stored together
TOKENS = 1024  # in a pass


class Ends(OfSubject, Protocol):
    """A unit, the texts of one length at whose ends it is wanted, and what is made of its activations."""

    @property
    def layer(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def texts(self) -> NDArray[np.int32]: ...
    def answer(self, activations: NDArray[np.float32]) -> Any: ...


class EndReader:
    """An engine that answers `Ends`. The subject is loaded when the first ones come."""

    def __init__(self, stage: str, load: Callable[[Ends], Subject]) -> None:
        """stage: whose failures they are; load: the subject that the first are of, or ModelError."""
        self._stage, self._load = stage, load
        self._subject: Subject | None = None
        self._of: tuple[str, str, str] | None = None
        self.texts = self.asked = 0  # that were run, and that were asked for

    def answer(self, pull: Pull) -> Iterator[Answered]:
        while asks := pull(ASKS):
            if self._subject is None:
                self._of = _subject(asks[0].payload)
                self._subject = self._load(asks[0].payload)
            by_length: dict[int, list[tuple[Ask, NDArray[np.int32]]]] = defaultdict(list)
            failed: Answered = []
            for ask in asks:
                failure = self._refused(ask.payload)
                if failure is None:
                    try:
                        texts = ask.payload.texts
                        by_length[texts.shape[1]].append((ask, texts))
                    except InputError as error:
                        failure = Failure(self._stage, "no-context", str(error))
                if failure is not None:
                    failed.append((ask, failure))
            yield failed
            for _, of_length in sorted(by_length.items()):
                for first in range(0, len(of_length), AT_ONCE):
                    yield self._read(of_length[first : first + AT_ONCE], self._subject)

    def _refused(self, wanted: Ends) -> Failure | None:
        assert self._subject is not None
        if _subject(wanted) != self._of:
            message = "units of several subjects cannot be read in one run"
            return Failure(self._stage, "another-subject", message)
        widths = {site.layer: site.width for site in self._subject.sites}
        if not 0 <= wanted.index < widths.get(wanted.layer, 0):
            message = f"the subject has no unit {wanted.layer}:{wanted.index} at {wanted.site}"
            return Failure(self._stage, "no-such-unit", message)
        return None

    def _read(self, asks: Sequence[tuple[Ask, NDArray[np.int32]]], subject: Subject) -> Answered:
        every = np.concatenate([texts for _, texts in asks])
        counts = [len(texts) for _, texts in asks]
        layer = np.repeat([ask.payload.layer for ask, _ in asks], counts)
        column = np.repeat([ask.payload.index for ask, _ in asks], counts)
        values = np.zeros(len(every), np.float32)
        if len(every):
            texts, of = np.unique(every, axis=0, return_inverse=True)
            values = self._ends(texts, of.reshape(-1), layer, column, subject)
        self.asked += len(every)
        parts = np.split(values, np.cumsum(counts)[:-1])
        return [(ask, ask.payload.answer(part)) for (ask, _), part in zip(asks, parts, strict=True)]

    def _ends(
        self,
        texts: NDArray[np.int32],
        of: NDArray[np.intp],
        layer: NDArray[np.int64],
        column: NDArray[np.int64],
        subject: Subject,
    ) -> NDArray[np.float32]:
        """Activations (n,) of the units `layer`, `column` (n,) at the ends of `texts[of]` (n,)."""
        deepest = np.zeros(len(texts), np.int64)
        np.maximum.at(deepest, of, layer)
        order = np.argsort(deepest, kind="stable")
        batch = max(1, TOKENS // texts.shape[1])
        place = np.empty(len(texts), np.int64)
        place[order] = np.arange(len(texts))
        values = np.empty(len(of), np.float32)
        for first in range(0, len(texts), batch):
            here = order[first : first + batch]
            wanted = np.flatnonzero((place[of] >= first) & (place[of] < first + batch))

            def take(
                number: int, activations: torch.Tensor, first: int = first, wanted: NDArray[Any] = wanted
            ) -> None:
                mine = wanted[layer[wanted] == number]
                rows, columns = torch.from_numpy(place[of[mine]] - first), torch.from_numpy(column[mine])
                device = activations.device
                ends = activations[:, -1][rows.to(device), columns.to(device)]
                values[mine] = ends.float().cpu().numpy()

            ids = np.zeros((batch, texts.shape[1]), np.int64)
            ids[: len(here)] = texts[here]
            layers = set(layer[wanted].tolist())
            sites = [site for site in subject.sites if site.layer in layers]
            with captured(subject.model, sites, take) as run:
                run(torch.from_numpy(ids).to(subject.device))
            self.texts += len(here)
        return values


def _subject(wanted: Ends) -> tuple[str, str, str]:
    return wanted.fingerprint, wanted.site, wanted.dtype
