"""A recording from beginning to end: plan the text, record the shards that the store does not have.

When the store has everything, neither torch nor a tokenizer is loaded: a shard's question is made of the
digests of text, tokenizer and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

from nxtools.errors import InputError, NxError, UsageError
from nxtools.records import SETS
from nxtools.stream import Record
from nxtools.subject.excerpts import RECORDING_VERSION, Cut, Plan, make_plan, text_digest
from nxtools.subject.identity import Resolved, tokenizer_fingerprint, weights_fingerprint
from nxtools.subject.text import Passage

if TYPE_CHECKING:
    from nxtools.store import Store
    from nxtools.subject.load import Subject

BosPolicy = Literal["auto", "always", "never"]

PLAN_VERSION = 1
SHARD_EXCERPTS = 4096
MOST_SHARDS = (
    16  # a shard keeps whole lists, so shards grow with the text and the disk that they take does not
)


class NoRoom(NxError):
    """The disk has not the bytes that a recording will need."""

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

    layers: tuple[int, ...] | None
    units: dict[int, list[int]] | None
    sign: str | None
    top: int
    spread: int
    batch: int
    shard: int | None


@dataclass(frozen=True)
class Planned:
    """A plan with the digests under which the store has it and the vocabulary."""

    plan: Plan
    blob: str
    vocabulary: str
    bos: int | None


class _Remembered:
    """The store's small facts in the form that identities ask for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: str, /) -> str | None:
        return self._store.recall(key)

    def put(self, key: str, value: str, /) -> None:
        self._store.remember(key, value)


def plan_recording(
    store: Store, model: Model, passages: Callable[[], Iterator[Passage]], cut: Cut, bos: BosPolicy
) -> Planned:
    """The plan of a recording, from the store when the same text was planned before.

    `passages` is called twice when it was not: once for the digest, once for the text.
    """
    from nxtools.store import question_digest

    text = text_digest(passages())
    tokenizer = tokenizer_fingerprint(model.resolved.path)
    fields: Record = {"text": text, "tokenizer": tokenizer, "cut": cut.question(), "bos": bos}
    question = question_digest("plan", PLAN_VERSION, fields)
    stored = store.get(question)
    if stored is not None:
        answer = orjson.loads(stored)
        if store.has(answer["plan"]) and store.has(answer["vocabulary"]):
            plan = Plan.from_bytes(store.open_blob(answer["plan"]))
            return Planned(plan, answer["plan"], answer["vocabulary"], answer["bos"])
    return _plan_anew(store, model, passages, cut, bos, question)


def _plan_anew(
    store: Store,
    model: Model,
    passages: Callable[[], Iterator[Passage]],
    cut: Cut,
    bos: BosPolicy,
    question: str,
) -> Planned:
    from nxtools.subject.load import bos_id, load_tokenizer
    from nxtools.subject.vocabulary import token_texts

    tokenizer = load_tokenizer(model.resolved.path, trust_remote_code=model.trust_remote_code)
    front = bos_id(tokenizer, bos)

    def tokenize(texts: Any) -> list[list[int]]:
        return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[no-any-return]

    plan = make_plan(passages(), tokenize, cut, masked_first=front is None and not cut.keep_first)
    blob = store.put_blob(plan.to_bytes(), kind="plan", compress=False, required=True)
    vocabulary = store.put_blob(
        orjson.dumps([_well_formed(text) for text in token_texts(tokenizer)]), kind="plan", required=True
    )
    store.put(question, orjson.dumps({"plan": blob, "vocabulary": vocabulary, "bos": front}), kind="plan")
    return Planned(plan, blob, vocabulary, front)


def _well_formed(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass
class Made:
    """How many shards of layers came from the store, and how many took a pass."""

    from_store: int = 0
    recorded: int = 0
    passes: int = 0


def record(
    store: Store,
    bulk: Store,
    model: Model,
    planned: Planned,
    want: Want,
    *,
    command: str,
    made: Made,
    progress: Callable[[int], None] = lambda excerpts: None,
) -> Iterator[Record]:
    """Recording lines, by shard and then by layer; a line's blob is in the store before the line is given."""
    subjects = _Once(model)
    plan = planned.plan
    fingerprint = weights_fingerprint(
        model.resolved.path, _Remembered(store), allow_pickle=model.allow_pickle
    )
    site = {"site": "mlp", "module": model.module}
    sides = {"keep": [want.top, want.spread], "sign": want.sign, "batch": want.batch}
    subject_question = {"weights": fingerprint, "dtype": model.dtype, **site}
    layers = _layers(store, want, subjects, subject_question)
    embedding = _embedding(store, bulk, subjects, fingerprint)
    shards = _shards(plan, want)
    for number, (first, last) in enumerate(shards):
        questions = {
            layer: {"plan": planned.blob, "shard": [first, last], "layer": layer, **subject_question, **sides}
            for layer in layers
        }
        answers = _recorded(store, bulk, questions)
        missing = [layer for layer in layers if layer not in answers]
        made.from_store += len(answers)
        made.recorded += len(missing)
        if missing:
            made.passes += 1
            if store.mode == "offline":
                raise InputError(
                    f"shard {number + 1} of {len(shards)} is not in the store and --offline was given"
                )
            answers |= _record_missing(
                store,
                bulk,
                subjects.get(),
                planned,
                want,
                (number, first, last),
                questions,
                missing,
                progress,
            )
        for layer in layers:
            answer = answers[layer]
            yield {
                "kind": "recording",
                "v": 1,
                "run": planned.blob,
                "subject": {"name": model.resolved.name, "fingerprint": fingerprint},
                "site": "mlp" if model.module is None else model.module,
                "layer": layer,
                "sign": answer["sign"],
                "width": answer["width"],
                "keep": [want.top, want.spread],
                "units": None if want.units is None else want.units.get(layer, []),
                "shard": number,
                "shards": len(shards),
                "excerpts": answer["excerpts"],
                "tokens": answer["tokens"],
                "near_duplicates": answer["near_duplicates"],
                "plan": planned.blob,
                "vocabulary": planned.vocabulary,
                "embedding": embedding,
                "blob": answer["blob"],
                "question": _digest(questions[layer]),
                "command": command,
                **({"last": True} if number == len(shards) - 1 and layer == layers[-1] else {}),
            }


def _digest(fields: Record) -> str:
    from nxtools.store import question_digest

    return question_digest("recording", RECORDING_VERSION, fields)


class _Once:
    """The subject, loaded when it is first needed."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._subject: Subject | None = None

    def get(self) -> Subject:
        if self._subject is None:
            self._subject = self._model.load()
        return self._subject


def _embedding(store: Store, bulk: Store, subjects: _Once, fingerprint: str) -> str:
    """The blob with the subject's token embeddings (ids, dimensions) in float16, each over its own maximum.

    Explanations say "tokens like this one" by it.
    """
    from nxtools.store import question_digest

    question = question_digest("embedding", 1, {"weights": fingerprint})
    stored = store.get(question)
    if stored is not None and bulk.has(str(orjson.loads(stored))):
        return str(orjson.loads(stored))
    from nxtools.arrays import encode_rows, pack

    weight = subjects.get().model.get_input_embeddings().weight  # type: ignore[operator]
    rows, scale = encode_rows(weight.detach().float().cpu().numpy())
    blob = bulk.put_blob(pack({"row": rows, "scale": scale}), kind="plan", compress=False, required=True)
    store.put(question, orjson.dumps(blob), kind="plan")
    return blob


def _layers(store: Store, want: Want, subjects: _Once, question: Record) -> list[int]:
    """The layers to record; how many the subject has is remembered, so that it need not be loaded to know."""
    from nxtools.store import question_digest

    name = "layers " + question_digest("layers", 1, question)
    known = store.recall(name)
    if known is None:
        there = [site.layer for site in subjects.get().sites]
        store.remember(name, orjson.dumps(there).decode())
    else:
        there = orjson.loads(known)
    wanted = list(want.layers) if want.layers is not None else there
    if want.units is not None:
        wanted = [layer for layer in wanted if layer in want.units] if want.layers else sorted(want.units)
    strange = [layer for layer in wanted if layer not in there]
    if strange:
        raise UsageError(f"the subject has no layer {strange[0]}", hint=f"it has {there[0]} to {there[-1]}")
    return sorted(set(wanted))


def _shards(plan: Plan, want: Want) -> list[tuple[int, int]]:
    contexts = len(plan.contexts)
    per_context = plan.contexts.shape[1] // plan.excerpt
    wanted = want.shard or max(SHARD_EXCERPTS, -(-plan.size // MOST_SHARDS))
    size = max(1, -(-wanted // per_context))
    size = (
        -(-size // want.batch) * want.batch
    )  # whole batches: no pass ends with a half empty one but the last
    return [(first, min(first + size, contexts)) for first in range(0, contexts, size)]


def _recorded(store: Store, bulk: Store, questions: dict[int, Record]) -> dict[int, Record]:
    """The answers that the store has and whose blobs are still there, by layer."""
    digests = {layer: _digest(fields) for layer, fields in questions.items()}
    stored = store.get_many(digests.values())
    answers = {layer: orjson.loads(stored[d]) for layer, d in digests.items() if d in stored}
    return {layer: answer for layer, answer in answers.items() if bulk.has(answer["blob"])}


def _record_missing(
    store: Store,
    bulk: Store,
    subject: Subject,
    planned: Planned,
    want: Want,
    shard: tuple[int, int, int],
    questions: dict[int, Record],
    layers: list[int],
    progress: Callable[[int], None],
) -> dict[int, Record]:
    from nxtools.arrays import unpack
    from nxtools.subject.recorder import Keep, Shard, record_shard

    plan = planned.plan
    signs = {site.layer: want.sign or ("+-" if site.signed else "+") for site in subject.sites}
    widths = {site.layer: site.width for site in subject.sites}
    here = Shard(*shard)
    excerpts = len(here.excerpts(plan))
    blobs = record_shard(
        subject,
        plan,
        here,
        layers,
        Keep(want.top, want.spread),
        both_sides=lambda layer: signs[layer] != "+",
        batch=want.batch,
        bos=planned.bos,
        progress=progress,
    )
    answers: dict[int, Record] = {}
    for layer, data in blobs.items():
        arrays, facts = unpack(data)
        answer = {
            "blob": bulk.put_blob(data, kind="recording", compress=False, required=True),
            "sign": signs[layer],
            "width": widths[layer],
            "excerpts": excerpts,
            "tokens": int(arrays["tokens"].sum()),
            "near_duplicates": facts["near_duplicates"],
        }
        store.put(_digest(questions[layer]), orjson.dumps(answer), kind="recording")
        answers[layer] = answer
    return answers


def bytes_needed(subject: Subject, plan: Plan, layers: list[int], want: Want) -> int:
    """About how many bytes the recording takes, from above: full lists, and spread over 12 octaves."""
    row = 2 * plan.excerpt + 28  # float16 activations, place, peak, scale, rank and key
    shards = len(_shards(plan, want))
    pool = int((plan.pool_rank >= 0).sum())
    total = 0
    for site in subject.sites:
        if site.layer in layers:
            sides = 2 if (want.sign or ("+-" if site.signed else "+")) != "+" else 1
            rows = len(SETS) * sides * (want.top + 24 * want.spread)
            histogram = len(SETS) * sides * 65 * 4
            total += site.width * (shards * (rows * row + histogram + 200) + pool * (2 * plan.excerpt + 4))
    return total + 24 * plan.size + plan.contexts.nbytes
