"""Where a subject's MLP neurons are read: the input of each layer's down projection.

The hooks only look. What they see, pushed through the down projection, is what the MLP adds to the residual
stream (Gemma 2 and 3 and OLMo 2 normalise it on the way there).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nxtools.errors import ModelError, UsageError

# The path of the down projection in a model without its unembedding, by `config.model_type`.
DOWN_PROJECTIONS = {
    "falcon": "h.{layer}.mlp.dense_4h_to_h",
    "gemma": "layers.{layer}.mlp.down_proj",
    "gemma2": "layers.{layer}.mlp.down_proj",
    "gemma3_text": "layers.{layer}.mlp.down_proj",
    "gpt2": "h.{layer}.mlp.c_proj",
    "gpt_bigcode": "h.{layer}.mlp.c_proj",
    "gpt_neo": "h.{layer}.mlp.c_proj",
    "gpt_neox": "layers.{layer}.mlp.dense_4h_to_h",  # Pythia
    "gptj": "h.{layer}.mlp.fc_out",
    "llama": "layers.{layer}.mlp.down_proj",
    "mistral": "layers.{layer}.mlp.down_proj",
    "olmo2": "layers.{layer}.mlp.down_proj",
    "opt": "decoder.layers.{layer}.fc2",
    "phi": "layers.{layer}.mlp.fc2",
    "phi3": "layers.{layer}.mlp.down_proj",
    "qwen2": "layers.{layer}.mlp.down_proj",
    "qwen3": "layers.{layer}.mlp.down_proj",
    "smollm3": "layers.{layer}.mlp.down_proj",
    "starcoder2": "layers.{layer}.mlp.c_proj",
}


@dataclass(frozen=True)
class Site:
    """The neurons of one layer: `module` receives their values, `width` of them a token.

    `signed`: both sides of a neuron may mean something, as where an MLP is gated. Otherwise its values come
    out of an activation like ReLU or GELU, whose negative side is nearly flat.
    """

    layer: int
    module: nn.Module
    name: str
    width: int
    signed: bool


def mlp_sites(model: nn.Module, module: str | None = None) -> list[Site]:
    """The sites of all layers of a model without its unembedding, by layer.

    `module` names the projection whose inputs are read, with `{layer}` in place of the number, as in
    `model.layers.{layer}.mlp.down_proj`; it overrides the table. Raises ModelError for an architecture that
    is not in the table, naming the projections there are, and for a mixture of experts, which has no single
    one.
    """
    pattern = module or DOWN_PROJECTIONS.get(_model_type(model))
    if pattern is None:
        raise _unknown(model)
    if pattern.count("{layer}") != 1:
        raise UsageError(f"no {{layer}} in the module {pattern!r}", hint="it stands for the layer's number")
    found = _matching(model, pattern)
    if not found:
        raise ModelError(f"no module {pattern!r} in {type(model).__name__}", hint=_projections_named(model))
    if len({model.get_submodule(path) for path in found.values()}) < len(found):
        raise ModelError(f"the layers share one module {pattern!r}", hint="name another with --module")
    return [_site(model, layer, path) for layer, path in sorted(found.items())]


def _site(model: nn.Module, layer: int, path: str) -> Site:
    module = model.get_submodule(path)
    sizes = projection_sizes(module)
    if sizes is None:
        raise ModelError(
            f"{path} is no projection but {type(module).__name__}", hint=_projections_named(model)
        )
    mlp = model.get_submodule(path.rpartition(".")[0])
    return Site(layer, module, path, sizes[0], _is_signed(mlp, module, sizes[0]))


def _matching(model: nn.Module, pattern: str) -> dict[int, str]:
    """Path by layer. A pattern may begin as in the model with its unembedding (`transformer.h.…`)."""
    prefix = str(getattr(model, "base_model_prefix", ""))
    wanted = re.escape(pattern.removeprefix(f"{prefix}.")).replace(r"\{layer\}", r"(\d+)")
    paths = (path for path, _ in model.named_modules(remove_duplicate=False))
    return {int(match[1]): match[0] for path in paths if (match := re.fullmatch(wanted, path))}


def projection_sizes(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a projection; GPT-2's Conv1D calls them nx and nf."""
    for names in (("in_features", "out_features"), ("nx", "nf")):
        sizes = tuple(getattr(module, name, None) for name in names)
        if all(isinstance(size, int) for size in sizes):
            return sizes  # type: ignore[return-value]
    return None


def _is_signed(mlp: nn.Module, down: nn.Module, width: int) -> bool:
    """Whether values of both signs reach the down projection, judged by what stands beside it.

    One projection to `width` values and an activation bounded below: neurons with one side. Two of them, or
    one that makes twice as many, are a gate and what it multiplies, so the sign is free. No such activation
    (the output of an attention, say): free too.
    """
    children = [child for child in mlp.children() if child is not down]
    made = sum(
        sizes[1]
        for child in children
        if (sizes := projection_sizes(child)) and sizes[1] in (width, 2 * width)
    )
    activations = [child for child in children if _is_activation(child)]
    return not (made == width and activations and all(_is_bounded_below(act) for act in activations))


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ in {
        "torch.nn.modules.activation",
        "transformers.activations",
    } and not any(module.children())


def _is_bounded_below(activation: nn.Module) -> bool:
    """GELU goes down to -0.17, SiLU to -0.28; tanh and ELU go to -1."""
    with torch.inference_mode():
        return float(activation(torch.linspace(-8, 8, 1601)).min()) > -0.5


# What to say when the table does not know


def _model_type(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", ""))


def _unknown(model: nn.Module) -> ModelError:
    names = [name for name, _ in model.named_modules()]
    kind = _model_type(model) or type(model).__name__
    if any(re.search(r"\bexperts\b", name) for name in names):
        return ModelError(
            f"{kind} is a mixture of experts: a token passes through a few of many down projections",
            hint="take a dense model, or name a projection that all tokens pass with --module",
        )
    return ModelError(f"the architecture {kind} is not in the table", hint=_projections_named(model))


def _projections_named(model: nn.Module) -> str:
    """What `--module` may name, and the likeliest: the widest input whose output is as wide as the stream."""
    sizes: dict[str, tuple[int, int]] = {}
    layers: defaultdict[str, int] = defaultdict(int)
    for name, module in model.named_modules():
        pattern = re.sub(r"\.\d+\.", ".{layer}.", name, count=1)
        if pattern != name and (found := projection_sizes(module)):
            sizes[pattern] = found
            layers[pattern] += 1
    if not sizes:
        return "it has no projections in numbered layers"
    prefix = str(getattr(model, "base_model_prefix", ""))
    shown = {pattern: f"{prefix}.{pattern}" if prefix else pattern for pattern in sizes}
    likeliest = max(sizes, key=lambda pattern: (layers[pattern], sizes[pattern][0]))
    listed = ", ".join(f"{shown[pattern]} {size[0]}->{size[1]}" for pattern, size in sizes.items())
    return (
        f"name the projection whose inputs to read, as in --module '{shown[likeliest]}'; there are {listed}"
    )


# Reading


class _Enough(Exception):
    """The last site was read: the rest of the pass would be for nothing."""


Read = Callable[[int, Tensor], None]


@contextmanager
def captured(model: nn.Module, sites: Sequence[Site], read: Read) -> Iterator[Callable[[Tensor], None]]:
    """Yields `run(ids)`, which passes token ids (B, T) through a model as far as the last of the sites.

    `read(layer, activations)` is called in the order of the layers, with activations (B, T, width) in the
    model's dtype and on its device; they are the model's own, not a copy. No gradients, no cache, no padding
    mask. ModelError when a site is not passed exactly once a run. The hooks are gone after the block.
    """
    batch_shape: list[int] = []
    passed: list[int] = []
    last = max(site.layer for site in sites)

    # A hook that returns something would replace the input.
    def look(site: Site, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        read(site.layer, inputs[0].reshape(*batch_shape, site.width))  # OPT's come as (B * T, width)
        passed.append(site.layer)
        if site.layer == last:
            raise _Enough

    def run(ids: Tensor) -> None:
        batch_shape[:] = ids.shape
        passed.clear()
        try:
            with torch.inference_mode():
                model(input_ids=ids, use_cache=False)
        except _Enough:
            pass
        if passed != wanted:
            raise ModelError(
                f"the pass went through layers {passed}, not once through each of {wanted}",
                hint="is --module the projection that every token passes?",
            )

    wanted = sorted(site.layer for site in sites)
    with ExitStack() as hooks:
        for site in sites:
            handle = site.module.register_forward_pre_hook(partial(look, site))
            hooks.callback(handle.remove)
        yield run
