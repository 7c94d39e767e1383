"""Which tables of a recording the store has, and in which passes the others are made.

Sums by token take eight bytes a token and unit: where those of all layers do not fit, layers go in groups,
each with a pass of its own over the shard.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import orjson

from nxtools.errors import UsageError
from nxtools.stream import Record
from nxtools.subject.table import ShardTokens, evidence_tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nxtools.subject.recording import Job
    from nxtools.subject.table import TokenMeans
    from nxtools.subject.wanted import LayerFacts

# Raise them when the same activations, or weights, would leave other tables behind.
TABLE_VERSION = 1
WEIGHTS_VERSION = 1


class Tabling:
    """The tables of one recording: `job.want.tables` says which."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._blobs: dict[tuple[int, int], str] = {}  # by shard and layer
        self._tokens_of: dict[int, ShardTokens] = {}  # by shard
        self._weights: dict[int, str] = {}  # by layer
        if "weights" in job.want.tables and job.model.module is not None:
            raise UsageError("--tables weights is for MLP neurons", hint="leave --module out, or weights")

    @cached_property
    def _known(self) -> NDArray[np.int32]:
        return evidence_tokens(self._job.planned.plan)

    def _tokens(self, number: int) -> ShardTokens:
        from nxtools.subject.parts import Shard

        if number not in self._tokens_of:
            plan = self._job.planned.plan
            excerpts = Shard(*self._job.shards[number]).excerpts(plan)
            self._tokens_of[number] = ShardTokens.of(plan, excerpts, self._known)
        return self._tokens_of[number]

    def _question(self, number: int, facts: LayerFacts) -> str:
        from nxtools.store import question_digest

        fields: Record = {
            **self._job.subject_question,
            "plan": self._job.planned.blob,
            "batch": self._job.want.batch,
            "shard": list(self._job.shards[number]),
            "layer": facts.layer,
        }
        return question_digest("table", TABLE_VERSION, fields)

    def lacking(self, number: int) -> list[LayerFacts]:
        """The layers whose part of the corpus table the store does not have."""
        job = self._job
        if "corpus" not in job.want.tables:
            return []
        questions = {self._question(number, facts): facts for facts in job.layers}
        for question, answer in job.store.get_many(questions).items():
            if job.bulk.has(blob := str(orjson.loads(answer))):
                self._blobs[number, questions[question].layer] = blob
        return [facts for facts in job.layers if (number, facts.layer) not in self._blobs]

    def passes(
        self, number: int, recorded: list[LayerFacts]
    ) -> list[tuple[list[LayerFacts], list[LayerFacts]]]:
        """For each pass over a shard the layers to record and those to make tables of."""
        groups: list[list[LayerFacts]] = [[]]
        room = self._job.want.memory
        for facts in self.lacking(number):
            needed = self.sums(number, facts.width)
            if groups[-1] and needed > room:
                groups.append([])
                room = self._job.want.memory
            groups[-1].append(facts)
            room -= needed
        found = [(recorded if place == 0 else [], group) for place, group in enumerate(groups)]
        return [one for one in found if any(one)]

    def sums(self, number: int, units: int) -> int:
        """Bytes of a layer's sums while a shard is recorded."""
        return self._tokens(number).memory(units)

    def means(self, number: int, layers: list[LayerFacts]) -> dict[int, TokenMeans]:
        """What a pass over a shard fills."""
        from nxtools.subject.table import TokenMeans

        plan = self._job.planned.plan
        return {facts.layer: TokenMeans(facts.width, plan, self._tokens(number)) for facts in layers}

    def keep(self, number: int, tables: dict[int, TokenMeans]) -> None:
        """Put what was filled into the store."""
        facts_of = {facts.layer: facts for facts in self._job.layers}
        while tables:
            layer = next(iter(tables))
            blob = self._job.put(tables.pop(layer).finish())
            self._blobs[number, layer] = blob
            self._job.store.put(self._question(number, facts_of[layer]), orjson.dumps(blob), kind="recording")

    def _weights_question(self, facts: LayerFacts) -> str:
        from nxtools.store import question_digest

        fields: Record = {
            **self._job.subject_question,
            "layer": facts.layer,
            "positions": self._positions(),
        }
        return question_digest("weights", WEIGHTS_VERSION, fields)

    def _lacking_weights(self) -> list[LayerFacts]:
        """The layers whose table of weights the store does not have."""
        job = self._job
        if "weights" not in job.want.tables:
            return []
        questions = {self._weights_question(facts): facts for facts in job.layers}
        for question, answer in job.store.get_many(questions).items():
            if job.bulk.has(blob := str(orjson.loads(answer))):
                self._weights[questions[question].layer] = blob
        return [facts for facts in job.layers if facts.layer not in self._weights]

    def make_weights(self) -> None:
        """Put the tables of weights that the store lacks into it."""
        job = self._job
        for facts in self._lacking_weights():
            from nxtools.subject.direct import weights_table

            site = next(site for site in job.subject.sites if site.layer == facts.layer)
            places = self._positions()
            blob = job.put(weights_table(job.subject, site, range(*places) if places else None))
            self._weights[facts.layer] = blob
            job.store.put(self._weights_question(facts), orjson.dumps(blob), kind="recording")

    def _positions(self) -> list[int] | None:
        """First and last (exclusive) position of an excerpt's tokens; None where that differs by excerpt."""
        planned = self._job.planned
        first = 0 if planned.bos is None else 1
        whole = planned.plan.contexts.shape[1] == planned.plan.excerpt
        return [first, first + planned.plan.excerpt] if whole else None

    def on_line(self, number: int, facts: LayerFacts) -> Record:
        """What a recording line has of tables."""
        tables: Record = {}
        if "corpus" in self._job.want.tables:
            tables["corpus"] = self._blobs[number, facts.layer]
        if "weights" in self._job.want.tables:
            tables["weights"] = self._weights[facts.layer]
        return {"tables": tables} if tables else {}

    def bytes_needed(self) -> int:
        """How many bytes the store lacks for them."""
        lacking = self._lacking_weights()
        names = len(self._job.planned.names(self._job.bulk)) if lacking else 0
        row = 2 * (names + self._job.planned.plan.excerpt) + 8  # of a unit: tokens and positions
        weights = sum(facts.width * row + 4 * names + 1000 for facts in lacking)
        if "corpus" not in self._job.want.tables:
            return weights
        return weights + sum(
            self._tokens(number).stored(facts.width)
            for number in range(len(self._job.shards))
            for facts in self.lacking(number)
        )
