"""What a subject's weights alone say of its neurons: how a token reaches them without any other layer.

The residual stream is taken to hold the token's embedding and nothing else. Of a plain MLP the value is
linear, as in the paper (Bills et al. 2023): embedding · gain of the norm · input weights. A gated neuron
is no linear function of anything, so there the whole MLP runs on the normalised embedding. With a
learned embedding for each position, a plain neuron's value is the token's plus the position's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nxtools.arrays import encode_rows, pack
from nxtools.errors import ModelError
from nxtools.subject.load import Subject
from nxtools.subject.looking import look
from nxtools.subject.sites import Site, projection_sizes

TOKENS_AT_ONCE = 4096
POSITION_EMBEDDINGS = ("wpe", "embed_positions")


@dataclass(frozen=True)
class Inputs:
    """What stands before a layer's neurons: the norm that the MLP reads, and its own first projections."""

    norm: nn.Module
    mlp: nn.Module
    projections: list[nn.Module]
    gated: bool


def weights_table(subject: Subject, site: Site, positions: range | None) -> bytes:
    """A layer's table as recordings/table.py reads it: `tokens` all ids, `row` and `scale` values by unit.

    `position.row` (units, positions) and `position.scale` where positions have an embedding that adds up with
    the token's; `positions`: those of an excerpt's tokens, None where they differ by excerpt.
    Raises ModelError where the neurons do not read the output of a norm.
    """
    found = inputs_of(subject, site)
    embedding: Tensor = subject.model.get_input_embeddings().weight  # type: ignore[operator]
    arrays = _encoded("", _by_unit(site, found, embedding))
    arrays["tokens"] = np.arange(len(embedding), dtype=np.int32)
    table = None if found.gated or positions is None else _position_embedding(subject.model)
    if table is not None and positions is not None and positions.stop <= len(table):
        arrays |= _encoded("position.", _by_unit(site, found, table[positions.start : positions.stop]))
    return pack(arrays)


def _encoded(prefix: str, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    row, scale = encode_rows(values)
    return {f"{prefix}row": row, f"{prefix}scale": scale}


def _by_unit(site: Site, found: Inputs, rows: Tensor) -> NDArray[np.float32]:
    """(units, n): the neurons' values for rows (n, d) of an embedding."""
    values = np.empty((site.width, len(rows)), np.float32)
    run = _whole if found.gated else _linear
    with torch.inference_mode():
        for first in range(0, len(rows), TOKENS_AT_ONCE):
            here = slice(first, first + TOKENS_AT_ONCE)
            values[:, here] = run(site, found, rows[here]).float().T.cpu().numpy()
    return values


def _linear(site: Site, found: Inputs, rows: Tensor) -> Tensor:
    """(n, units): row · gain · input weights, without biases."""
    (projection,) = found.projections
    inputs = rows * gain(found.norm, rows)
    return projection(inputs) - projection(torch.zeros_like(inputs[:1]))  # type: ignore[no-any-return]


def gain(norm: nn.Module, like: Tensor) -> Tensor:
    """(d,): what a norm multiplies normalised values by, whether it keeps that, or that less one.

    Asked of the norm itself: +1, -1, +1, … has mean 0 and mean square 1 already.
    """
    probe = torch.ones_like(like[:1])
    probe[:, 1::2] = -1
    return ((norm(probe) - norm(torch.zeros_like(probe))) / probe)[0]  # type: ignore[no-any-return]


def _whole(site: Site, found: Inputs, rows: Tensor) -> Tensor:
    """(n, units): what reaches the down projection when the MLP gets the normalised rows."""
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    handle = site.module.register_forward_pre_hook(look)
    try:
        found.mlp(found.norm(rows[None]))
    finally:
        handle.remove()
    return seen[0][0]


def _position_embedding(model: nn.Module) -> Tensor | None:
    """(positions, d), where positions have a learned embedding that is added to the token's."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in POSITION_EMBEDDINGS and isinstance(module, nn.Embedding):
            return module.weight[int(getattr(module, "offset", 0)) :]
    return None


def inputs_of(subject: Subject, site: Site) -> Inputs:
    """Found in a pass that looks on: the norm whose output is the very tensor that the projections get."""
    seen, _ = look(subject, [site])
    found = seen[site.layer]
    first = [one for one in found.projections if one.norm is not None]
    norms = {one.norm for one in first}
    norm = next(iter(norms)) if len(norms) == 1 else None
    if norm is None:
        raise ModelError(
            f"the neurons of layer {site.layer} do not read the output of a norm",
            hint="leave weights out of --tables",
        )
    sizes = [projection_sizes(one.module) for one in first]
    plain = len(first) == 1 and sizes[0] is not None and sizes[0][1] == site.width
    return Inputs(norm, found.mlp, [one.module for one in first], gated=not plain)
