"""Subjects whose activations are known, text for them, and recordings of both, all in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import nn

from nxtools.recordings.layer import Corpus, Layer
from nxtools.recordings.run import Run
from nxtools.records import SETS
from nxtools.subject.excerpts import Cut, Plan
from nxtools.subject.load import Subject
from nxtools.subject.making import make_plan
from nxtools.subject.parts import Shard
from nxtools.subject.recorder import Keep, record_shard
from nxtools.subject.sites import Site
from nxtools.subject.table import ShardTokens, TokenMeans, evidence_tokens
from nxtools.subject.text import Passage

Record = dict[str, Any]

torch.set_num_threads(1)  # tiny products are slower with two


# Text


def tokenize(texts: Sequence[str]) -> list[list[int]]:
    """Every word of the texts made here is a number, its own token id."""
    return [[int(word) for word in text.split()] for text in texts]


def passages(
    documents: int, tokens: int = 40, vocabulary: int = 30, seed: int = 0, source: str = "made-up"
) -> list[Passage]:
    chance = np.random.default_rng(seed)
    return [
        Passage(source, " ".join(map(str, chance.integers(vocabulary, size=tokens).tolist())))
        for _ in range(documents)
    ]


def plan_of(text: Iterable[Passage], *, masked_first: bool = True, **cut: Any) -> Plan:
    settings: dict[str, Any] = {"context": 8, "excerpt": 8, "pool": (20, 10, 10), **cut}
    return make_plan(text, tokenize, Cut(**settings), masked_first=masked_first)


# Subjects


class Known(nn.Module):
    """Each neuron adds up a value for a token and one for the token before; `noise` depends on the batch."""

    def __init__(self, units: int, vocabulary: int, *, seed: int, gated: bool, noise: float) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(seed)
        self.here = torch.randn((vocabulary, units), generator=chance)
        self.before = torch.randn((vocabulary, units), generator=chance)
        self.gated, self.noise = gated, noise
        self.down = nn.Linear(units, 1)

    def values(self, ids: torch.Tensor) -> torch.Tensor:
        before = torch.cat([torch.zeros_like(self.before[ids[:, :1]]), self.before[ids[:, :-1]]], 1)
        values = self.here[ids] + before
        return values if self.gated else values.relu()

    def forward(self, ids: torch.Tensor) -> None:
        values = self.values(ids)
        if self.noise:
            chance = torch.Generator().manual_seed(len(ids))
            values = values + self.noise * torch.randn(values.shape, generator=chance)
        self.down(values)


class Stack(nn.Module):
    def __init__(self, layers: list[Known]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> None:
        for layer in self.layers:
            layer(input_ids)


def known_subject(
    units: int = 6,
    vocabulary: int = 30,
    gated: Sequence[bool] = (True, False),
    seed: int = 0,
    noise: float = 0.0,
) -> Subject:
    """A layer for each entry of `gated`: signed units, or units of one side."""
    layers = [
        Known(units, vocabulary, seed=100 * seed + number, gated=signed, noise=noise)
        for number, signed in enumerate(gated)
    ]
    sites = [
        Site(number, layer.down, f"layers.{number}.down", units, layer.gated)
        for number, layer in enumerate(layers)
    ]
    return Subject(Stack(layers), torch.device("cpu"), "float32", sites)


def activations(
    subject: Subject, plan: Plan, batch: int = 4, bos: int | None = None
) -> dict[int, NDArray[np.float32]]:
    """By layer (excerpts of the plan, tokens, units), from a plain pass with hooks of our own; NaN: left out.

    The batches have the shape of the recorder's: that is part of what a subject's activations may depend on.
    """
    seen: dict[int, list[NDArray[np.float32]]] = {site.layer: [] for site in subject.sites}
    handles = [
        site.module.register_forward_hook(
            lambda module, inputs, output, site=site: seen[site.layer].append(
                inputs[0].detach().float().reshape(batch, -1, site.width).numpy().copy()
            )
        )
        for site in subject.sites
    ]
    lead = 0 if bos is None else 1
    for first in range(0, len(plan.contexts), batch):
        contexts = plan.contexts[first : first + batch]
        ids = np.zeros((batch, lead + contexts.shape[1]), np.int64)
        ids[: len(contexts), lead:] = contexts
        if bos is not None:
            ids[:, 0] = bos
        with torch.inference_mode():
            subject.model(input_ids=torch.from_numpy(ids), use_cache=False)
    for handle in handles:
        handle.remove()
    found = {}
    for layer, batches in seen.items():
        values = np.concatenate(batches)[: len(plan.contexts), lead:]
        if plan.masked_first:
            values[:, 0] = np.nan
        by_excerpt = values.reshape(len(values), -1, plan.excerpt, values.shape[2])
        found[layer] = by_excerpt[plan.context, plan.slot]
    return found


def last_eight(plan: Plan, place: int, peak: int) -> tuple[int, ...]:
    """The tokens up to the peak of an excerpt, as far back as its context goes."""
    context = plan.contexts[plan.context[place]]
    end = int(plan.slot[place]) * plan.excerpt + peak + 1
    return tuple(context[max(0, end - 8) : end].tolist())


# Recordings


class Blobs(dict[str, bytes]):
    """A store in memory."""

    def keep(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self[digest] = data
        return digest

    def open(self, digest: str) -> memoryview:
        return memoryview(self[digest])


def shards_of(plan: Plan, batch: int, batches: int | None) -> list[Shard]:
    size = len(plan.contexts) if batches is None else batches * batch
    return [
        Shard(first, min(first + size, len(plan.contexts))) for first in range(0, len(plan.contexts), size)
    ]


def recording_lines(
    subject: Subject,
    plan: Plan,
    blobs: Blobs,
    *,
    keep: Keep | None = None,
    batch: int = 4,
    batches: int | None = None,
    bos: int | None = None,
    sign: str | None = None,
    vocabulary: int = 30,
    tables: bool = False,
) -> list[Record]:
    """What nx-record writes, with `batches` batches in a shard (None: one shard), and --tables corpus."""
    keep = keep or Keep(top=5, spread=2)
    signs = {site.layer: sign or ("+-" if site.signed else "+") for site in subject.sites}
    shards = shards_of(plan, batch, batches)
    common = {
        "kind": "recording",
        "v": 1,
        "subject": {"name": "known", "fingerprint": "sha256:0"},
        "dtype": "float32",
        "site": "mlp",
        "keep": [keep.top, keep.spread],
        "plan": blobs.keep(plan.to_bytes()),
        "vocabulary": blobs.keep(orjson.dumps([f" {token}" for token in range(vocabulary)])),
        "embedding": None,
        "command": "nx-record …",
        "shards": len(shards),
    }
    common["run"] = f"{common['plan']} {len(shards)}"
    lines: list[Record] = []
    known = evidence_tokens(plan)
    for number, shard in enumerate(shards):
        tokens = ShardTokens.of(plan, shard.excerpts(plan), known)
        means = {site.layer: TokenMeans(site.width, plan, tokens) for site in subject.sites if tables}
        for layer, recording in record_shard(
            subject,
            plan,
            shard,
            list(signs),
            keep,
            both_sides=lambda layer: signs[layer] != "+",
            batch=batch,
            bos=bos,
            put=blobs.keep,
            tables=means,
        ):
            site = next(site for site in subject.sites if site.layer == layer)
            lines.append(
                common
                | {"layer": layer, "sign": signs[layer], "width": site.width, "units": None, "shard": number}
                | {"blob": blobs.keep(recording.data), "pool": recording.pool, "tokens": recording.tokens}
            )
            if tables:
                lines[-1]["tables"] = {"corpus": blobs.keep(means[layer].finish())}
    return [*lines[:-1], lines[-1] | {"last": True}]


def merged(lines: Sequence[Record], blobs: Blobs, layer: int = 0) -> Layer:
    mine = [line for line in lines if line["layer"] == layer]
    plans = list(dict.fromkeys(line["plan"] for line in mine))
    corpus = Corpus([Plan.from_bytes(blobs.open(digest)) for digest in plans])
    return Layer(mine, corpus, {digest: number for number, digest in enumerate(plans)}, blobs.open)


def unit_lines(lines: Sequence[Record], blobs: Blobs, *, paper: bool = False, **wanted: Any) -> list[Record]:
    """What nx-top writes; `wanted` by set, `held_out` for held-out."""
    from nxtools.recordings.deal import Counts

    counts = {name: wanted.get(name.replace("-", "_"), Counts(top=3, random=3)) for name in SETS}
    run = Run(lines, blobs.open, blobs.keep)
    return [orjson.loads(line) for line in run.units(counts, paper=paper)]
