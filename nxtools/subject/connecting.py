"""The engine that reads a subject's weights: what each unit is connected with.

Neurons by the paper's formulas (Bills et al. 2023): token out `W_out · gain of the last norm · unembedding`,
less its mean over the tokens, which a softmax does not see; token in `embedding · gain · W_in`; neuron to
neuron `W_out · gain · W_in`. Gated neurons have two W_in, and a token comes in through the whole MLP, which
runs on its normalised embedding. Layers and tokens pass by one block at a time: beside the model there is
memory for one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nxtools.records import Failure
from nxtools.subject.alike import Tokens, tokens_of
from nxtools.subject.connections import Connecting
from nxtools.subject.strongest import Strongest
from nxtools.subject.wiring import NARROW, SPOKEN, Layer, Wiring

if TYPE_CHECKING:
    from nxtools.stage import Answered, Ask, Pull

ASKS = 512  # worked on together: the model's weights pass by once for all of them
ROWS = 64  # units in a product: a fixed shape, so that answers do not depend on the company
PLACE = 1 << 32  # a unit's number is its layer times this and its index

TOKEN_LISTS = ("output_tokens", "input_tokens")
UNIT_LISTS = ("upstream", "downstream")
NO_READ = "the file has no vectors that read"
NO_WRITE = "the file has no vectors that write"


class Connector:
    """An engine that answers `Connecting`s. The subject is loaded when the first one comes."""

    def __init__(self, load: Callable[[Connecting], tuple[Wiring, Sequence[str]]]) -> None:
        """load: the subject that a first question is for and the texts of its tokens, or ModelError."""
        self._load = load
        self._of: tuple[str, str, str] | None = None
        self._wiring: Wiring | None = None
        self._output, self._input = Tokens(), Tokens()

    def answer(self, pull: Pull) -> Iterator[Answered]:
        while asks := pull(ASKS):
            if self._wiring is None:
                self._of = _subject(asks[0].payload)
                self._wiring, texts = self._load(asks[0].payload)
                self._output = tokens_of(self._wiring.unembedding, texts)
                if self._wiring.embedding is not None:
                    self._input = tokens_of(self._wiring.embedding, texts)
            groups: dict[Any, list[Ask]] = defaultdict(list)
            for ask in asks:
                failure = self._refused(ask.payload, self._wiring)
                if failure is not None:
                    yield [(ask, failure)]
                    continue
                job = ask.payload
                space = "neuron" if job.vectors is None else job.vectors.space
                lacks = job.vectors is not None and (job.vectors.read is None, job.vectors.write is None)
                groups[job.layer, space, job.tokens, job.units, lacks].append(ask)
            for group in groups.values():
                for first in range(0, len(group), ROWS):
                    yield self._answer(group[first : first + ROWS], self._wiring)

    def _refused(self, job: Connecting, wiring: Wiring) -> Failure | None:
        if _subject(job) != self._of:
            message = "the unit is of another subject, site or dtype than those before it"
            return Failure("connect", "other-subject", message)
        layer = wiring.layers.get(job.layer)
        if layer is None or (job.vectors is None and not 0 <= job.index < layer.width):
            message = f"the subject has no unit {job.layer}:{job.index}"
            return Failure("connect", "no-such-unit", message)
        of = job.vectors
        wide = layer.width if of is None or of.space == "site" else len(layer.gain)
        for vector in (of.read, of.write) if of is not None else ():
            if vector is not None and len(vector) != wide:
                message = f"a vector of {len(vector)} numbers where the subject has {wide}"
                return Failure("connect", "other-width", message)
        return None

    def _answer(self, asks: list[Ask], wiring: Wiring) -> Answered:
        with torch.inference_mode():
            bundle = _Bundle([ask.payload for ask in asks], wiring, self._output, self._input)
            found = bundle.answers()
        return [(ask, _finite(record)) for ask, record in zip(asks, found, strict=True)]


class _Bundle:
    """Up to ROWS units of one layer and kind, and the vectors with which they read and write the stream."""

    def __init__(self, jobs: Sequence[Connecting], wiring: Wiring, output: Tokens, input: Tokens) -> None:
        self.jobs, self.wiring, self.output, self.input = jobs, wiring, output, input
        self.first = jobs[0]
        self.layer = wiring.layers[self.first.layer]
        self.space = None if self.first.vectors is None else self.first.vectors.space
        self.absent: dict[str, str] = {}
        self.reads = self._reads()
        self.writes = self._writes()

    # What they read and write

    def _vectors(self, name: str) -> Tensor | None:
        """(ROWS, n) those of the file; neurons have none, nor have files without that name."""
        given = [getattr(job.vectors, name, None) for job in self.jobs]
        found = [vector for vector in given if vector is not None]
        if len(found) < len(given):
            return None
        rows = np.zeros((ROWS, len(found[0])), np.float32)
        rows[: len(found)] = found
        return torch.from_numpy(rows).to(self.wiring.device)

    def _neurons(self) -> Tensor:
        """(ROWS,) indices; those behind the last stand for nothing."""
        found = torch.zeros(ROWS, dtype=torch.long, device=self.wiring.device)
        found[: len(self.jobs)] = torch.tensor([job.index for job in self.jobs])
        return found

    def _reads(self) -> dict[str, Tensor]:
        """By part (ROWS, d)."""
        vectors = self._vectors("read")
        if self.space is not None and vectors is None:
            self.absent["reads"] = NO_READ
            return {}
        if self.space == "stream":
            assert vectors is not None
            return {"input": vectors}
        if not self.layer.parts:
            self.absent["reads"] = self.layer.absent["reads"]
        if vectors is None:
            return {part: self.layer.reads(part, self._neurons()) for part in self.layer.parts}
        return {part: vectors @ self.layer.reads(part) for part in self.layer.parts}

    def _writes(self) -> Tensor | None:
        """(ROWS, d)"""
        vectors = self._vectors("write")
        if self.space is not None and vectors is None:
            self.absent["writes"] = NO_WRITE
            return None
        if self.space == "stream":
            return vectors
        if self.layer.out is None:
            self.absent["writes"] = self.layer.absent["writes"]
            return None
        return self.layer.writes(self._neurons()) if vectors is None else vectors @ self.layer.writes()

    # What they are connected with

    def answers(self) -> list[dict[str, Any]]:
        """For each job its lists, and under `absent` why some are not there."""
        found: dict[str, Any] = {}
        absent: dict[str, str] = {}
        wanted: list[tuple[str, Callable[[], Any]]] = []
        if self.first.tokens:
            wanted.append(("output_tokens", self._output_tokens))
            wanted.append(("input_tokens", self._input_tokens))
        if self.first.units:
            wanted.append(("upstream", self._upstream))
            wanted.append(("downstream", self._downstream))
        for name, look in wanted:
            try:
                found[name] = look()
            except _Absent as reason:
                absent[name] = str(reason)
        return [self._answer(place, found, absent) for place in range(len(self.jobs))]

    def _answer(self, place: int, found: dict[str, Any], absent: dict[str, str]) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for name, lists in found.items():
            if isinstance(lists, dict):
                answer[name] = {part: rows[place] for part, rows in lists.items()}
            else:
                answer[name] = lists[place]
        if "input_tokens" in answer and self._is_gated:
            answer["input_tokens"]["through"] = "mlp"
        return answer | ({"absent": absent} if absent else {})

    @property
    def _is_gated(self) -> bool:
        return self.space != "stream" and self.layer.is_gated

    def _output_tokens(self) -> list[dict[str, Any]]:
        if self.writes is None:
            raise _Absent(self.absent["writes"])
        if self.wiring.final is None:
            raise _Absent(SPOKEN)
        rows = self.writes * self.wiring.final
        strongest = Strongest(ROWS, self.first.tokens, self.wiring.device)
        for ids, rows_of in self.output.blocks:
            strongest.add(rows @ self.wiring.unembedding[rows_of].float().T, ids)
        return strongest.records(self.output.named, centred=True)

    def _input_tokens(self) -> list[dict[str, Any]]:
        if not self.reads:
            raise _Absent(self.absent["reads"])
        if self.wiring.embedding is None:
            raise _Absent(NARROW)
        strongest = Strongest(ROWS, self.first.tokens, self.wiring.device)
        for ids, rows_of in self.input.blocks:
            tokens = self.wiring.embedding[rows_of]
            values = self._gated(tokens) if self._is_gated else self.reads["input"] @ tokens.float().T
            strongest.add(values, ids)
        return strongest.records(self.input.named)

    def _gated(self, tokens: Tensor) -> Tensor:
        """(ROWS, n): what the units say when the stream holds an embedding (n, d) and nothing else."""
        inputs = self.layer.inputs(tokens)
        if self.space is None:
            return self.layer.gated(inputs, self._neurons()).T
        vectors = self._vectors("read")
        assert vectors is not None
        return vectors @ self.layer.gated(inputs).T

    def _upstream(self) -> dict[str, list[dict[str, Any]]]:
        if not self.reads:
            raise _Absent(self.absent["reads"])
        last = self.first.layer if self.space == "stream" else self.first.layer - 1
        before = {number: layer for number, layer in self.wiring.layers.items() if number <= last}
        if not before:
            raise _Absent("there is no layer before it")
        strongest = {part: self._units() for part in self.reads}
        for number, layer in before.items():
            if layer.out is not None:
                out, places = layer.out.float(), self._places(number, layer)
                for part, rows in self.reads.items():
                    strongest[part].add((rows * layer.behind) @ out, places)
        return self._of_units(strongest, next(iter(before.values())).absent.get("writes"))

    def _downstream(self) -> dict[str, list[dict[str, Any]]]:
        if self.writes is None:
            raise _Absent(self.absent["writes"])
        behind = {number: layer for number, layer in self.wiring.layers.items() if number > self.first.layer}
        if not behind:
            raise _Absent("there is no layer behind it")
        strongest: dict[str, Strongest] = {}
        for number, layer in behind.items():
            rows, places = self.writes * layer.gain, self._places(number, layer)
            for name, part in layer.parts.items():
                strongest.setdefault(name, self._units()).add(rows @ part.weights.float().T, places)
        return self._of_units(strongest, next(iter(behind.values())).absent.get("reads"))

    def _units(self) -> Strongest:
        return Strongest(ROWS, self.first.units, self.wiring.device)

    def _places(self, number: int, layer: Layer) -> Tensor:
        return torch.arange(layer.width, device=self.wiring.device) + number * PLACE

    def _of_units(
        self, strongest: dict[str, Strongest], absent: str | None
    ) -> dict[str, list[dict[str, Any]]]:
        if absent is not None and not any(one.count for one in strongest.values()):
            raise _Absent(absent)
        return {part: one.records(_unit) for part, one in strongest.items()}


class _Absent(Exception):
    """Why a list is not there."""


def _unit(place: int) -> dict[str, Any]:
    return {"unit": f"{place // PLACE}:{place % PLACE}"}


def _finite(answer: dict[str, Any]) -> dict[str, Any] | Failure:
    """Weights that are no numbers sort anywhere."""
    lists = [answer[name] for name in TOKEN_LISTS if name in answer]
    lists += [part for name in UNIT_LISTS for part in answer.get(name, {}).values()]
    if all(math.isfinite(one["sd"]) for one in lists):
        return answer
    return Failure("connect", "non-finite", "the subject's weights are not finite")


def _subject(job: Connecting) -> tuple[str, str, str]:
    return job.fingerprint, job.site, job.dtype
