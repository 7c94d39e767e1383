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

from nxtools.errors import InputError, NxError, UsageError
from nxtools.records import SETS
from nxtools.stream import Record
from nxtools.subject.identity import Resolved, weights_fingerprint
from nxtools.subject.planning import ONCE_WITHOUT, Planned

if TYPE_CHECKING:
    from nxtools.store import Store
    from nxtools.subject.excerpts import Plan
    from nxtools.subject.load import Subject

RECORDING_VERSION = 2  # raise it when the same activations would leave other bytes behind

# A shard keeps whole lists, so shards grow with the text and the disk that they take does not. Of S excerpts
# in a shard about k·ln(S/k) enter a list of k for a while: large shards are cheap, and lose more when killed.
SHARD_EXCERPTS = 8192
MOST_SHARDS = 16


class NoRoom(NxError):
    """The disk has not the bytes that a recording may need."""

    exit_status = 3


@dataclass(frozen=True)
class Model:
    """Which subject, and how it is run. Of these only the device does not enter a question."""

    resolved: Resolved
    dtype: str
    device: str
    module: str | None
    trust_remote_code: bool
    allow_pickle: bool

    def load(self) -> Subject:
        from nxtools.subject.load import load_subject

        return load_subject(
            self.resolved.path,
            device=self.device,
            dtype=self.dtype,
            module=self.module,
            trust_remote_code=self.trust_remote_code,
            allow_pickle=self.allow_pickle,
        )


@dataclass(frozen=True)
class Want:
    """What to record: None for all layers; a sign of None goes by the kind of unit."""

    layers: tuple[int, ...] | None = None
    units: dict[int, list[int]] | None = None
    sign: str | None = None
    top: int = 20
    spread: int = 2
    batch: int = 64
    shard: int | None = None


@dataclass
class Made:
    """How many shards of layers came from the store, and how many took a pass."""

    from_store: int = 0
    recorded: int = 0
    passes: int = 0


@dataclass(frozen=True)
class _LayerFacts:
    """What must be known of a layer before it is run."""

    layer: int
    width: int
    signed: bool

    def sign(self, want: Want) -> str:
        return want.sign or ("+-" if self.signed else "+")


class _Remembered:
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
        self.fingerprint = weights_fingerprint(
            model.resolved.path, _Remembered(store), allow_pickle=model.allow_pickle
        )
        self._subject_question: Record = {
            "weights": self.fingerprint,
            "dtype": model.dtype,
            "site": "mlp",
            "module": model.module,
        }
        self.layers = _wanted_layers(want, self._layer_facts())
        self.shards = _shards(planned.plan, want)

    @cached_property
    def subject(self) -> Subject:
        """Loaded when it is first needed."""
        if self.store.mode == "offline":
            raise InputError(
                "this recording is not wholly in the store, and --offline was given", hint=ONCE_WITHOUT
            )
        return self.model.load()

    def lacking(self) -> list[tuple[int, _LayerFacts]]:
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
        pooled = [_pool_size(plan, shard) * (2 * plan.excerpt + 4) for shard in self.shards]
        total = 0
        for number, facts in self.lacking():
            sides = 1 if facts.sign(want) == "+" else 2
            kept = len(SETS) * sides * (want.top + 24 * want.spread)
            histogram = len(SETS) * sides * 65 * 4
            total += facts.width * (kept * (row + entry) + histogram + 128 + pooled[number])
        return total

    def lines(self, *, command: str, made: Made, progress: Callable[[int], None]) -> Iterator[Record]:
        """Recording lines, by shard and then by layer; a line's blobs are in `bulk` before it is given."""
        lacking = self.lacking()
        if lacking:
            self._check_room()
        embedding = self._embedding()
        common = self._common(embedding)
        for number in range(len(self.shards)):
            answers = self._stored(number)
            missing = [facts for facts in self.layers if facts.layer not in answers]
            made.from_store += len(answers)
            made.recorded += len(missing)
            if missing:
                made.passes += 1
                answers |= self._record(number, missing, progress)
            else:
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
            "subject": {"name": self.model.resolved.name, "fingerprint": self.fingerprint},
            "dtype": self.model.dtype,
            "site": "mlp" if self.model.module is None else self.model.module,
            "keep": [self.want.top, self.want.spread],
            "plan": self.planned.blob,
            "vocabulary": self.planned.vocabulary,
            "embedding": embedding,
        }

    def _settings(self) -> Record:
        keep = [self.want.top, self.want.spread]
        return {**self._subject_question, "plan": self.planned.blob, "keep": keep, "batch": self.want.batch}

    def _question(self, number: int, facts: _LayerFacts) -> str:
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

    def _record(
        self, number: int, layers: list[_LayerFacts], progress: Callable[[int], None]
    ) -> dict[int, Record]:
        """Run the subject over a shard. An answer is in the store once all its blobs are."""
        from nxtools.subject.recorder import Keep, Shard, record_shard

        subject, plan, want = self.subject, self.planned.plan, self.want

        def put(data: bytes) -> str:
            return self.bulk.put_blob(data, kind="recording", compress=False, required=True)

        shard = Shard(*self.shards[number])
        signs = {facts.layer: facts.sign(want) for facts in layers}
        questions = {facts.layer: self._question(number, facts) for facts in layers}
        answers: dict[int, Record] = {}
        for layer, recording in record_shard(
            subject,
            plan,
            shard,
            list(signs),
            Keep(want.top, want.spread),
            both_sides=lambda layer: signs[layer] != "+",
            batch=want.batch,
            bos=self.planned.bos,
            put=put,
            progress=progress,
        ):
            answers[layer] = {
                "excerpts": len(shard.excerpts(plan)),
                "tokens": recording.tokens,
                "near_duplicates": recording.near_duplicates,
                "blob": put(recording.data),
                "pool": recording.pool,
            }
            self.store.put(questions[layer], orjson.dumps(answers[layer]), kind="recording")
        return answers

    def _layer_facts(self) -> list[_LayerFacts]:
        """Of all layers that the subject has; remembered, so that it need not be loaded to know."""
        from nxtools.store import question_digest

        name = "layers " + question_digest("layers", 2, self._subject_question)
        known = self.store.recall(name)
        if known is None:
            there = [[site.layer, site.width, site.signed] for site in self.subject.sites]
            self.store.remember(name, orjson.dumps(there).decode())
        else:
            there = orjson.loads(known)
        return [_LayerFacts(layer, width, bool(signed)) for layer, width, signed in there]

    def _embedding(self) -> str:
        """The blob with the subject's token embeddings (ids, dimensions) in float16 over each one's maximum.

        Explanations say "tokens like this one" by it.
        """
        from nxtools.store import question_digest

        question = question_digest("embedding", 2, self._subject_question)
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


def _wanted_layers(want: Want, there: list[_LayerFacts]) -> list[_LayerFacts]:
    by_layer = {facts.layer: facts for facts in there}
    wanted = set(by_layer if want.layers is None else want.layers)
    if want.units is not None:
        wanted = wanted & set(want.units) if want.layers is not None else set(want.units)
    if not wanted:
        raise UsageError("none of the --units is in the --layers asked for")
    for layer in sorted(wanted):
        if layer not in by_layer:
            last = there[-1].layer
            raise UsageError(f"the subject has no layer {layer}", hint=f"it has {there[0].layer} to {last}")
        highest = max(want.units[layer]) if want.units is not None else 0
        if highest >= by_layer[layer].width:
            width = by_layer[layer].width
            raise UsageError(f"layer {layer} has no unit {highest}", hint=f"it has 0 to {width - 1}")
    return [by_layer[layer] for layer in sorted(wanted)]


def _shards(plan: Plan, want: Want) -> list[tuple[int, int]]:
    """First and last (exclusive) context of each shard: whole batches, but for the last of all."""
    contexts, per_context = len(plan.contexts), plan.contexts.shape[1] // plan.excerpt
    excerpts = want.shard or max(SHARD_EXCERPTS, -(-plan.size // MOST_SHARDS))
    size = -(-excerpts // (per_context * want.batch)) * want.batch
    return [(first, min(first + size, contexts)) for first in range(0, contexts, size)]


def _pool_size(plan: Plan, shard: tuple[int, int]) -> int:
    pooled = plan.context[plan.pool_rank >= 0]
    return int(((pooled >= shard[0]) & (pooled < shard[1])).sum())
