"""The engine that replaces units and measures what it does to the subject's output.

Work goes by excerpt: the original output of an excerpt is computed once for all units and replacements that
come together, and kept for later ones as long as there is memory.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nxtools.records import Failure
from nxtools.subject.outputs import Output
from nxtools.subject.patch import Original, Patcher, Row
from nxtools.subject.replacing import Replacement

if TYPE_CHECKING:
    from nxtools.stage import Answered, Ask, Pull

ASKS = 256  # worked on together: they share the excerpts' original output
CONTEXTS = 16  # in a pass, original or restarted: a fixed shape, so that answers do not depend on the company
MEMORY = 1 << 30  # bytes of original output that is kept
MOVED = 10  # tokens whose logit moves most, of each sign


class Ablator:
    """An engine that answers `Replacement`s. The subject is loaded when the first one comes."""

    def __init__(self, load: Callable[[Replacement], Patcher], *, memory: int = MEMORY) -> None:
        """load: the subject that a first replacement is for, or ModelError."""
        self._load = load
        self._of_subject: tuple[str, str, str] | None = None
        self._memory = memory
        self._patcher: Patcher | None = None
        self._originals: OrderedDict[tuple[bytes, int], Original] = OrderedDict()
        self._bytes = 0

    @property
    def passes(self) -> dict[str, int]:
        return {"original": 0, "restarted": 0} if self._patcher is None else self._patcher.passes

    def answer(self, pull: Pull) -> Iterator[Answered]:
        while asks := pull(ASKS):
            if self._patcher is None:
                self._of_subject = _subject(asks[0].payload)
                self._patcher = self._load(asks[0].payload)
            yield from self._answer(asks, self._patcher)

    def _answer(self, asks: list[Ask], patcher: Patcher) -> Iterator[Answered]:
        """Excerpts in their order, a pass full at a time; each ask as soon as its last one is done."""
        works = [_Work(ask, ask.payload, self._refused(ask.payload, patcher)) for ask in asks]
        yield [(work.ask, work.failure) for work in works if work.failure is not None]
        left = [work for work in works if work.failure is None]
        wanted: dict[tuple[bytes, int], list[tuple[_Work, int]]] = {}
        for work in left:
            for place, (ids, before) in enumerate(zip(work.job.contexts, work.job.before, strict=True)):
                wanted.setdefault((ids.tobytes(), len(ids) - before), []).append((work, place))
        by_length: dict[tuple[int, int], list[tuple[bytes, int]]] = defaultdict(list)
        for key in wanted:
            by_length[len(key[0]), key[1]].append(key)
        for keys in by_length.values():
            keys.sort(key=lambda key: key not in self._originals)  # those at hand first, before they go
            for first in range(0, len(keys), CONTEXTS):
                chunk = keys[first : first + CONTEXTS]
                originals = self._of(chunk, patcher)
                self._replace([(originals[key], *pair) for key in chunk for pair in wanted[key]], patcher)
                done = [work for work in left if work.is_done]
                yield [(work.ask, work.answer()) for work in done]
                left = [work for work in left if not work.is_done]

    def _refused(self, job: Replacement, patcher: Patcher) -> Failure | None:
        if _subject(job) != self._of_subject:
            message = "the unit is of another subject, site or dtype than those before it"
            return Failure("score", "other-subject", message)
        if max(int(ids.max()) for ids in job.contexts) >= patcher.vocabulary:
            return Failure("score", "no-such-token", "the excerpts hold tokens that the subject has not")
        if job.layer not in patcher.sites or job.index >= patcher.sites[job.layer].width:
            return Failure("score", "no-such-unit", f"the subject has no unit {job.layer}:{job.index}")
        return None

    def _of(self, keys: Sequence[tuple[bytes, int]], patcher: Patcher) -> dict[tuple[bytes, int], Original]:
        """The originals of some excerpts of one length, computed where they are not at hand."""
        found = {}
        for key in keys:
            if key in self._originals:
                self._originals.move_to_end(key)
                found[key] = self._originals[key]
        missing = [key for key in keys if key not in found]
        if missing:
            ids = np.stack([np.frombuffer(data, "<i4") for data, _ in missing])
            padded = np.resize(ids, (CONTEXTS, ids.shape[1])).astype(np.int64)
            made = patcher.original(torch.from_numpy(padded), missing[0][1])
            for key, original in zip(missing, made, strict=False):
                found[key] = self._originals[key] = original
                self._bytes += original.bytes
            while self._bytes > self._memory and len(self._originals) > 1:
                self._bytes -= self._originals.popitem(last=False)[1].bytes
        return found

    def _replace(self, pairs: Sequence[tuple[Original, _Work, int]], patcher: Patcher) -> None:
        """Runs and measures what replaces units in these originals, layer by layer."""
        by_layer: dict[int, list[tuple[Original, _Work, int]]] = defaultdict(list)
        for pair in pairs:
            by_layer[pair[1].job.layer].append(pair)
        for layer, rows in sorted(by_layer.items()):
            ready = [one for row in rows if (one := _row(patcher, *row))]
            for first in range(0, len(ready), CONTEXTS):
                block = ready[first : first + CONTEXTS]
                padded = [block[n % len(block)][0] for n in range(CONTEXTS)]
                kept = len(block[0][0].original.logits)
                logits = patcher.restart(layer, padded, kept)
                _measure(block, logits)


@dataclass(eq=False)
class _Work:
    """An ask under way. found: what was measured, by the excerpt's place."""

    ask: Ask
    job: Replacement
    failure: Failure | None
    found: dict[int, dict[str, float]] = field(default_factory=dict)
    moved: torch.Tensor | None = None  # (vocabulary,) summed over `moved_over` tokens
    moved_over: int = 0

    @property
    def is_done(self) -> bool:
        return self.failure is not None or len(self.found) == len(self.job.contexts)

    def answer(self) -> Any:
        if self.failure is not None:
            return self.failure
        each = [self.found[place] for place in range(len(self.job.contexts))]
        if not all(np.isfinite(value) for one in each for value in one.values()):
            return Failure("score", "non-finite", "the subject's output is not finite")
        answer: dict[str, Any] = {name: [float(f"{one[name]:.9g}") for one in each] for name in each[0]}
        if self.moved is not None:
            mean = self.moved / max(self.moved_over, 1)
            answer["raises"], answer["lowers"] = _extremes(mean), _extremes(-mean, -1.0)
        return answer


def _subject(job: Replacement) -> tuple[str, str, str]:
    return job.fingerprint, job.site, job.dtype


def _extremes(change: torch.Tensor, sign: float = 1.0) -> list[list[float]]:
    """Token ids with their change, the largest first."""
    top = torch.topk(change, min(MOVED, len(change)))
    return [
        [token, float(f"{sign * value:.4g}")]
        for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        if value > 0
    ]


def _row(patcher: Patcher, original: Original, work: _Work, place: int) -> tuple[Row, _Work, int] | None:
    """The pass to make; none where the subject does not say what the line says that it says."""
    if work.failure is not None:
        return None
    job, before = work.job, work.job.before[place]
    handle = patcher.handle(job.layer, job.index)
    value = handle.value(original.values[job.layer])[before:].cpu().numpy()
    truth = job.truth[place][: len(value)]
    tolerance = job.tolerance * float(np.nanmax(np.abs(truth), initial=0.0))
    if np.nanmax(np.abs(value - truth), initial=0.0) > tolerance:
        work.failure = Failure(
            "score",
            "other-activations",
            "the subject's activations are not those on the line: another context, BOS token or dtype",
        )
        return None
    replacement = None
    if job.replaced is not None:
        here: NDArray[np.float32] = np.full(len(original.ids), np.nan, np.float32)
        here[before:] = np.where(np.isnan(truth), np.nan, job.replaced[place][: len(value)])
        replacement = torch.from_numpy(here)
    return Row(original, handle, replacement), work, place


def _measure(block: Sequence[tuple[Row, _Work, int]], logits: torch.Tensor) -> None:
    """Sums over the tokens that count, on the works. Rows of one excerpt stand behind each other."""
    said: tuple[Original, Output] | None = None
    for (row, work, place), other in zip(block, logits, strict=False):
        if said is None or said[0] is not row.original:
            kept = row.original.ids[-len(row.original.logits) :]
            said = row.original, Output(row.original.logits, kept)
        output = said[1]
        counted = torch.from_numpy(~np.isnan(work.job.truth[place][: len(other)])).to(output.log.device)
        apart = output.apart(other)
        work.found[place] = {
            "jsd": float(apart.jsd[counted].sum()),
            "kl": float(apart.kl[counted].sum()),
            "loss": float(apart.loss[counted[:-1]].sum()),
        }
        if work.job.moves[place]:
            moved = output.moved(other)[counted.to(other.device)].sum(0)
            work.moved = moved if work.moved is None else work.moved + moved
            work.moved_over += int(counted.sum())
