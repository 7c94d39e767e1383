"""What is to be recorded: of which subject, which layers, in which shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nxtools.errors import UsageError
from nxtools.subject.identity import Remembers, Resolved, weights_fingerprint
from nxtools.subject.twin import Twin

if TYPE_CHECKING:
    from nxtools.subject.excerpts import Plan
    from nxtools.subject.load import Subject

# A shard keeps whole lists, so shards grow with the text and the disk that they take does not. Of S excerpts
# in a shard about k·ln(S/k) enter a list of k for a while: large shards are cheap, and lose more when killed.
SHARD_EXCERPTS = 8192
MOST_SHARDS = 16

TABLES = ("corpus", "weights")
MEMORY = 2_000_000_000


@dataclass(frozen=True)
class Model:
    """Which subject, and how it is run. Of these only the device does not enter a question."""

    resolved: Resolved
    dtype: str
    device: str
    module: str | None
    trust_remote_code: bool
    allow_pickle: bool
    twin: Twin | None = None

    @property
    def name(self) -> str:
        """What records call it."""
        return self.resolved.name if self.twin is None else self.twin.name(self.resolved.name)

    def fingerprint(self, remember: Remembers) -> str:
        """`sha256:…` over the weights; of a twin, over what they follow from."""
        weights = weights_fingerprint(self.resolved.path, remember, allow_pickle=self.allow_pickle)
        return weights if self.twin is None else self.twin.fingerprint(weights)

    def load(self) -> Subject:
        from nxtools.subject.load import load_subject

        subject = load_subject(
            self.resolved.path,
            device=self.device,
            dtype=self.dtype,
            module=self.module,
            trust_remote_code=self.trust_remote_code,
            allow_pickle=self.allow_pickle,
        )
        if self.twin is not None:
            self.twin.take_over(subject.model)
        return subject


@dataclass(frozen=True)
class Want:
    """What to record: None for all layers; a sign of None goes by the kind of unit.

    tables: of TABLES; memory: bytes that sums of corpus tables may take at a time.
    """

    layers: tuple[int, ...] | None = None
    units: dict[int, list[int]] | None = None
    sign: str | None = None
    top: int = 20
    spread: int = 2
    batch: int = 64
    shard: int | None = None
    tables: tuple[str, ...] = ()
    memory: int = MEMORY


@dataclass(frozen=True)
class LayerFacts:
    """What must be known of a layer before it is run."""

    layer: int
    width: int
    signed: bool

    def sign(self, want: Want) -> str:
        return want.sign or ("+-" if self.signed else "+")


def wanted_layers(want: Want, there: list[LayerFacts]) -> list[LayerFacts]:
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


def shards_of(plan: Plan, want: Want) -> list[tuple[int, int]]:
    """First and last (exclusive) context of each shard: whole batches, but for the last of all."""
    contexts, per_context = len(plan.contexts), plan.contexts.shape[1] // plan.excerpt
    excerpts = want.shard or max(SHARD_EXCERPTS, -(-plan.size // MOST_SHARDS))
    size = -(-excerpts // (per_context * want.batch)) * want.batch
    return [(first, min(first + size, contexts)) for first in range(0, contexts, size)]


def pool_size(plan: Plan, shard: tuple[int, int]) -> int:
    pooled = plan.context[plan.pool_rank >= 0]
    return int(((pooled >= shard[0]) & (pooled < shard[1])).sum())
