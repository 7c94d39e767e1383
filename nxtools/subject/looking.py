"""What stands around a subject's sites, found out in one pass that looks on.

Families name and order their parts differently. What a projection reads is known by its input being the very
tensor that a norm put out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nxtools.subject.load import Subject
from nxtools.subject.sites import Site, projection_sizes

PROBE = 5  # tokens of the pass


@dataclass(frozen=True)
class Projected:
    """A projection beside a site's own: the norm it reads, if it reads one, and what it got and gave."""

    module: nn.Module
    norm: nn.Module | None
    inputs: Tensor  # (tokens, d)
    outputs: Tensor  # (tokens, n)


@dataclass
class Seen:
    """mlp: what holds the site's projection; projections: its other children.

    values: (tokens, width) that the site's projection got; written: (tokens, d) that it gave.
    """

    mlp: nn.Module
    projections: list[Projected] = field(default_factory=list)
    values: Tensor = field(default_factory=lambda: torch.zeros(0))
    written: Tensor = field(default_factory=lambda: torch.zeros(0))


def probe(subject: Subject) -> Tensor:
    """The ids (1, tokens) of the pass."""
    vocabulary = len(subject.model.get_input_embeddings().weight)  # type: ignore[operator]
    return torch.arange(1, PROBE + 1, device=subject.device)[None] % vocabulary


def look(subject: Subject, sites: Sequence[Site]) -> tuple[dict[int, Seen], nn.Module | None]:
    """What stands around the sites, by layer; and the norm that the unembedding reads, where it is there and
    reads one.
    """
    whole = subject.speaker or subject.model
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # outputs are held, so that no other gets their address
    seen = {site.layer: Seen(subject.model.get_submodule(site.name.rpartition(".")[0])) for site in sites}
    last: list[nn.Module | None] = []

    def norm_gave(module: nn.Module, inputs: Any, output: Any) -> None:
        made[output.data_ptr()] = module, output

    def norm_of(tensor: Tensor) -> nn.Module | None:
        return made.get(tensor.data_ptr(), (None,))[0]

    def projected(of: Seen, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        norm = norm_of(inputs[0])
        of.projections.append(Projected(module, norm, _rows(inputs[0]), _rows(output)))

    def site_gave(of: Seen, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        of.values, of.written = _rows(inputs[0]), _rows(output)

    def spoke(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        last.append(norm_of(inputs[0]))

    with ExitStack() as hooks, torch.inference_mode():
        for module in whole.modules():
            if type(module).__name__.endswith("Norm"):
                hooks.callback(module.register_forward_hook(norm_gave).remove)
        for site in sites:
            of = seen[site.layer]
            hooks.callback(site.module.register_forward_hook(partial(site_gave, of)).remove)
            for module in of.mlp.children():
                if module is not site.module and projection_sizes(module):
                    hooks.callback(module.register_forward_hook(partial(projected, of)).remove)
        if subject.speaker is not None:
            unembedding = subject.speaker.get_output_embeddings()  # type: ignore[operator]
            hooks.callback(unembedding.register_forward_pre_hook(spoke).remove)
        whole(input_ids=probe(subject), use_cache=False)
    return seen, last[0] if last else None


def _rows(tensor: Tensor) -> Tensor:
    """(tokens, n), a copy: models work in place."""
    return tensor.reshape(-1, tensor.shape[-1]).clone()
