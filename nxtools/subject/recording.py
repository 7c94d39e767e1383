"""Recording a planned text: shard by shard, those that the store does not have.

When it has all of them, torch is not loaded: a shard's question is made of the digests of text, tokenizer and
weights, and what must be known of the subject is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import orjson

from nxtools.errors import InputError, NxError
from nxtools.records import SETS
from nxtools.stream import Record
from nxtools.subject.planning import ONCE_WITHOUT, Planned
from nxtools.subject.tabling import Tabling
from nxtools.subject.wanted import LayerFacts, Model, Want, pool_size, shards_of, wanted_layers

if TYPE_CHECKING:
    from nxtools.store import Store
    from nxtools.subject.load import Subject

RECORDING_VERSION = 2  # raise it when the same activations would leave other bytes behind


class NoRoom(NxError):
    """The disk has not the bytes that a recording may need."""

    exit_status = 3


@dataclass
class Made:
    """How many shards of layers came from the store, and how many took a pass; tables: parts of corpus tables
    that were made."""

    from_store: int = 0
    recorded: int = 0
    passes: int = 0
    tables: int = 0


class Remembered:
    """The store's small facts in the form that identities ask for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: str, /) -> str | None:
        return self._store.recall(key)

    def put(self, key: str, value: str, /) -> None:
        self._store.remember(key, value)


class Job:
    """One recording: what the store has of it, what it lacks, and its lines.

    `store` remembers, `bulk` keeps the blobs that recording lines name. Raises UsageError for layers and
    units that the subject does not have; InputError where the store is offline and lacks something; NoRoom.
    """

    def __init__(self, store: Store, bulk: Store, model: Model, planned: Planned, want: Want) -> None:
        self.store, self.bulk = store, bulk
        self.model, self.planned, self.want = model, planned, want
        self.fingerprint = model.fingerprint(Remembered(store))
        self.subject_question: Record = {
            "weights": self.fingerprint,
            "dtype": model.dtype,
            "site": "mlp",
            "module": model.module,
        }
        self.layers = wanted_layers(want, self._layer_facts())
        self.shards = shards_of(planned.plan, want)
        self.tabling = Tabling(self)

    @cached_property
    def subject(self) -> Subject:
        """Loaded when it is first needed."""
        if self.store.mode == "offline":
            raise InputError(
                "this recording is not wholly in the store, and --offline was given", hint=ONCE_WITHOUT
            )
        return self.model.load()

    def lacking(self) -> list[tuple[int, LayerFacts]]:
        """The shards of layers, by shard and then by layer, that are still to be recorded."""
        return [
            (number, facts)
            for number in range(len(self.shards))
            for facts in self.layers
            if facts.layer not in self._stored(number)
        ]

    def bytes_needed(self) -> int:
        """How many bytes the store lacks for this recording, from above: full lists, 12 octaves of spread."""
        plan, want = self.planned.plan, self.want
        row, entry = 2 * plan.excerpt + 8, 20
        pooled = [pool_size(plan, shard) * (2 * plan.excerpt + 4) for shard in self.shards]
        total = 0
        for number, facts in self.lacking():
            sides = 1 if facts.sign(want) == "+" else 2
            kept = len(SETS) * sides * (want.top + 24 * want.spread)
            histogram = len(SETS) * sides * 65 * 4
            total += facts.width * (kept * (row + entry) + histogram + 128 + pooled[number])
        return total + self.tabling.bytes_needed()

    def lines(self, *, command: str, made: Made, progress: Callable[[int], None]) -> Iterator[Record]:
        """Recording lines, by shard and then by layer; a line's blobs are in `bulk` before it is given."""
        if self.lacking() or self.tabling.bytes_needed():
            self._check_room()
        embedding = self._embedding()
        common = self._common(embedding)
        self.tabling.make_weights()
        for number in range(len(self.shards)):
            answers = self._stored(number)
            missing = [facts for facts in self.layers if facts.layer not in answers]
            made.from_store += len(answers)
            made.recorded += len(missing)
            passes = self.tabling.passes(number, missing)
            made.passes += len(passes)
            for place, (recorded, tabled) in enumerate(passes):
                report = progress if place == 0 else _silently
                made.tables += len(tabled)
                answers |= self._record(number, recorded, tabled, report)
            if not passes:
                progress(answers[self.layers[0].layer]["excerpts"])
            for facts in self.layers:
                units = None if self.want.units is None else self.want.units[facts.layer]
                last = number == len(self.shards) - 1 and facts is self.layers[-1]
                yield {
                    **common,
                    "layer": facts.layer,
                    "sign": facts.sign(self.want),
                    "width": facts.width,
                    "units": units,
                    "shard": number,
                    "shards": len(self.shards),
                    **answers[facts.layer],
                    **self.tabling.on_line(number, facts),
                    "question": self._question(number, facts),
                    "command": command,
                    **({"last": True} if last else {}),
                }

    def _common(self, embedding: str) -> Record:
        from nxtools.store import question_digest

        run = {**self._settings(), "shards": [list(shard) for shard in self.shards]}
        return {
            "kind": "recording",
            "v": 1,
            "run": question_digest("run", RECORDING_VERSION, run),
            "subject": {"name": self.model.name, "fingerprint": self.fingerprint},
            "dtype": self.model.dtype,
            "context": int(self.planned.plan.contexts.shape[1]),
            "bos": self.planned.bos,
            "site": "mlp" if self.model.module is None else self.model.module,
            "keep": [self.want.top, self.want.spread],
            "plan": self.planned.blob,
            "vocabulary": self.planned.vocabulary,
            "embedding": embedding,
        }

    def _settings(self) -> Record:
        keep = [self.want.top, self.want.spread]
        return {**self.subject_question, "plan": self.planned.blob, "keep": keep, "batch": self.want.batch}

    def _question(self, number: int, facts: LayerFacts) -> str:
        from nxtools.store import question_digest

        fields = {
            **self._settings(),
            "shard": list(self.shards[number]),
            "layer": facts.layer,
            "both_sides": facts.sign(self.want) != "+",
        }
        return question_digest("recording", RECORDING_VERSION, fields)

    def _stored(self, number: int) -> dict[int, Record]:
        """The answers that the store has and whose blobs are still there, by layer."""
        questions = {facts.layer: self._question(number, facts) for facts in self.layers}
        stored = self.store.get_many(questions.values())
        answers = {layer: orjson.loads(stored[q]) for layer, q in questions.items() if q in stored}
        return {
            layer: answer
            for layer, answer in answers.items()
            if all(self.bulk.has(blob) for blob in (answer["blob"], *answer["pool"]))
        }

    def _check_room(self) -> None:
        needed, free = self.bytes_needed(), self.bulk.free_bytes()
        if needed > free:
            raise NoRoom(
                f"this recording may take {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free",
                where=str(self.bulk.path),
                hint="--bulk or --cache on another disk, fewer --layers, or a smaller --pool",
            )

    def put(self, data: bytes) -> str:
        """Keep a blob that a line will name."""
        return self.bulk.put_blob(data, kind="recording", compress=False, required=True)

    def _record(
        self,
        number: int,
        layers: list[LayerFacts],
        tabled: list[LayerFacts],
        progress: Callable[[int], None],
    ) -> dict[int, Record]:
        """Run the subject over a shard. An answer is in the store once all its blobs are."""
        from nxtools.subject.parts import Shard
        from nxtools.subject.recorder import Keep, record_shard

        subject, plan, want = self.subject, self.planned.plan, self.want
        shard = Shard(*self.shards[number])
        signs = {facts.layer: facts.sign(want) for facts in layers}
        questions = {facts.layer: self._question(number, facts) for facts in layers}
        answers: dict[int, Record] = {}
        tables = self.tabling.means(number, tabled)
        for layer, recording in record_shard(
            subject,
            plan,
            shard,
            list(signs),
            Keep(want.top, want.spread),
            both_sides=lambda layer: signs[layer] != "+",
            batch=want.batch,
            bos=self.planned.bos,
            put=self.put,
            progress=progress,
            tables=tables,
        ):
            answers[layer] = {
                "excerpts": len(shard.excerpts(plan)),
                "tokens": recording.tokens,
                "near_duplicates": recording.near_duplicates,
                "blob": self.put(recording.data),
                "pool": recording.pool,
            }
            self.store.put(questions[layer], orjson.dumps(answers[layer]), kind="recording")
        self.tabling.keep(number, tables)
        return answers

    def _layer_facts(self) -> list[LayerFacts]:
        """Of all layers that the subject has; remembered, so that it need not be loaded to know."""
        from nxtools.store import question_digest

        name = "layers " + question_digest("layers", 2, self.subject_question)
        known = self.store.recall(name)
        if known is None:
            there = [[site.layer, site.width, site.signed] for site in self.subject.sites]
            self.store.remember(name, orjson.dumps(there).decode())
        else:
            there = orjson.loads(known)
        return [LayerFacts(layer, width, bool(signed)) for layer, width, signed in there]

    def _embedding(self) -> str:
        """The blob with the subject's token embeddings (ids, dimensions) in float16 over each one's maximum.

        Explanations say "tokens like this one" by it.
        """
        from nxtools.store import question_digest

        question = question_digest("embedding", 2, self.subject_question)
        stored = self.store.get(question)
        if stored is not None and self.bulk.has(str(orjson.loads(stored))):
            return str(orjson.loads(stored))
        from nxtools.arrays import encode_rows, pack

        weight = self.subject.model.get_input_embeddings().weight  # type: ignore[operator]
        rows, scale = encode_rows(weight.detach().float().cpu().numpy())
        data = pack({"row": rows, "scale": scale})
        blob = self.bulk.put_blob(data, kind="plan", compress=False, required=True)
        self.store.put(question, orjson.dumps(blob), kind="plan")
        return blob


def _silently(excerpts: int) -> None:
    """Progress of what was counted before."""
