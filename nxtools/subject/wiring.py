"""What units read from the residual stream and what they write to it, as vectors of the weights alone.

A neuron reads input weights · gain of the norm before them, and writes output weights (· gain of the norm
behind them, in families that have one). What a norm divides by depends on the token; it is left out, so
products are known up to a positive factor. A gated neuron reads twice: what opens its `gate`, and what goes
`up` through it. Nothing is taken from names: that a layer is made like this is tried out on a few tokens.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from nxtools.subject.direct import gain
from nxtools.subject.load import Subject
from nxtools.subject.looking import Seen, look, probe
from nxtools.subject.patch import Patcher, norm_behind
from nxtools.subject.sites import Site

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2}
MADE = "it cannot be told from the model how its neurons are made of what they read"
READ = "its neurons read neither the output of a norm nor the residual stream"
WRITTEN = "what its neurons write is not just added to the residual stream"
SPOKEN = "the unembedding does not read the output of a norm"
NARROW = "the embedding is not as wide as the residual stream"


@dataclass(frozen=True)
class Part:
    """One input of a layer's neurons: weights (width, d) and biases (width,), in the model's dtype."""

    weights: Tensor
    biases: Tensor | None


@dataclass
class Layer:
    """A layer's neurons. `absent` says why `parts` or `out` are missing, under `reads` or `writes`.

    norm, gain: before the parts; activation: of a plain neuron or of its gate;
    out: (d, width) what the neurons write; behind: (d,) the gain of the norm behind that, or 1.
    """

    width: int
    norm: nn.Module
    gain: Tensor
    parts: dict[str, Part]
    activation: nn.Module | None
    out: Tensor | None
    behind: Tensor
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def is_gated(self) -> bool:
        return len(self.parts) == 2

    def reads(self, part: str, rows: Tensor | slice = slice(None)) -> Tensor:
        """(n, d) float32"""
        return self.parts[part].weights[rows].float() * self.gain

    def writes(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """(n, d) float32"""
        assert self.out is not None
        return self.out[:, rows].T.float() * self.behind

    def inputs(self, rows: Tensor) -> Tensor:
        """What the parts get when the stream holds rows (n, d): the norm runs, in its dtype."""
        result: Tensor = self.norm(rows[None])[0]
        return result.float()

    def gated(self, inputs: Tensor, neurons: Tensor | slice = slice(None)) -> Tensor:
        """The values (n, neurons) of gated neurons for inputs (n, d)."""
        assert self.activation is not None
        gate, up = (_through(self.parts[name], inputs, neurons) for name in ("gate", "up"))
        result: Tensor = self.activation(gate)
        return result.float() * up


class Wiring:
    """All layers of a subject that was loaded `speaking`.

    embedding: (vocabulary, d), None where it is narrower than the stream; unembedding: (vocabulary, d) and
    final: (d,), the gain of the norm before it, None where there is none.
    """

    def __init__(self, subject: Subject) -> None:
        assert subject.speaker is not None
        self.device = subject.device
        patcher = Patcher(subject)
        original = patcher.original(probe(subject), 1)[0]
        seen, last = look(subject, subject.sites)
        self.layers = {}
        with torch.inference_mode():
            for site in subject.sites:
                state = original.states[site.layer]
                behind = norm_behind(patcher.blocks[site.layer])
                found = _layer(site, seen[site.layer], state, behind)
                if found.out is not None and not patcher.is_added(site.layer, original):
                    found.out = None
                    found.absent["writes"] = WRITTEN
                self.layers[site.layer] = found
            width = original.states[-1].shape[-1]
            embedding = subject.model.get_input_embeddings().weight  # type: ignore[operator]
            self.embedding: Tensor | None = embedding if embedding.shape[1] == width else None
            self.unembedding: Tensor = _weights(subject.speaker.get_output_embeddings())  # type: ignore[operator]
            spoken = last is not None and self.unembedding.shape[1] == width
            self.final = _gain(last, state) if last is not None and spoken else None


def _layer(site: Site, seen: Seen, state: Tensor, behind: Any) -> Layer:
    parts, activation = _made_of(site, seen)
    absent = {} if parts else {"reads": MADE}
    norm = _read_by(parts, seen, state, behind)
    if parts and norm is None:
        parts, absent = {}, {"reads": READ}
    ones = torch.ones(state.shape[-1], device=state.device)
    return Layer(
        width=site.width,
        norm=norm or nn.Identity(),
        gain=_gain(norm, state) if norm is not None else ones,
        parts={name: part for name, (_, part) in parts.items()},
        activation=activation,
        out=_weights(site.module),
        behind=_gain(behind, state) if behind is not None else ones,
        absent=absent,
    )


_Found = dict[str, tuple[int, Part]]  # by name, the projection's place among those that were seen


def _made_of(site: Site, seen: Seen) -> tuple[_Found, nn.Module | None]:
    """The inputs that the site's values are made of: activation(input), or activation(gate) · up."""
    pieces: list[tuple[int, Part, Tensor]] = []
    for place, one in enumerate(seen.projections):
        size = one.outputs.shape[1]
        if size not in (site.width, 2 * site.width):
            continue
        weights, biases = _weights(one.module), getattr(one.module, "bias", None)
        for first in range(0, size, site.width):
            rows = slice(first, first + site.width)
            part = Part(weights[rows], None if biases is None else biases[rows])
            pieces.append((place, part, one.outputs[:, rows]))
    simple = [child for child in seen.mlp.children() if not any(True for _ in child.parameters())]
    for activation in (child for child in simple if not any(child.children())):
        for place, part, outputs in pieces:
            if _is_close(activation(outputs.clone()), seen.values):
                return {"input": (place, part)}, activation
        for gate, up in permutations(pieces, 2):
            if _is_close(activation(gate[2].clone()) * up[2], seen.values):
                return {"gate": gate[:2], "up": up[:2]}, activation
    return {}, None


def _read_by(parts: _Found, seen: Seen, state: Tensor, behind: Any) -> nn.Module | None:
    """The norm before the parts; an Identity where they read the stream itself."""
    read = [seen.projections[place] for place, _ in parts.values()]
    norms = {one.norm for one in read}
    if len(norms) != 1:
        return None
    if (norm := next(iter(norms))) is not None:
        return norm
    written = seen.written if behind is None else behind(seen.written)
    return nn.Identity() if _is_close(read[0].inputs + written, state) else None


def _is_close(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    apart = (found.float() - expected.float()).abs().max()
    return bool(apart <= TOLERANCE.get(expected.dtype, 5e-2) * expected.float().abs().max())


def _gain(norm: Any, like: Tensor) -> Tensor:
    """(d,) float32"""
    if isinstance(norm, nn.Identity):
        return torch.ones(like.shape[-1], device=like.device)
    return gain(copy.deepcopy(norm).float(), like.float())


def _weights(module: nn.Module) -> Tensor:
    """(out, in): as they lie in memory where that can be seen, else what becomes of unit vectors."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.is_floating_point() and weight.ndim == 2:
        return weight.T if hasattr(module, "nx") else weight
    size = int(getattr(module, "in_features", 0))
    dtype = next(module.parameters()).dtype
    ones = torch.eye(size, dtype=dtype, device=next(module.parameters()).device)
    result: Tensor = (module(ones) - module(torch.zeros_like(ones[:1]))).T
    return result


def _through(part: Part, inputs: Tensor, rows: Tensor | slice) -> Tensor:
    product = inputs @ part.weights[rows].float().T
    return product if part.biases is None else product + part.biases[rows].float()
