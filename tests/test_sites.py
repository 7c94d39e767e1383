"""The table of architectures: what is read is what the down projection gets, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models
import torch
from torch import nn

from nxtools.errors import ModelError, UsageError
from nxtools.subject.load import Subject, load_subject
from nxtools.subject.sites import DOWN_PROJECTIONS, Site, captured, mlp_sites

IDS = torch.arange(14).reshape(2, 7) * 5 % tiny_models.VOCABULARY

GATED = {
    "gemma",
    "gemma2",
    "gemma3_text",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
}
NORMALISED_AFTER_THE_MLP = {"gemma2", "gemma3_text", "olmo2"}


def read_all(model: nn.Module, sites: list[Site], ids: torch.Tensor = IDS) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    with captured(model, sites, lambda layer, activations: found.update({layer: activations.clone()})) as run:
        run(ids)
    return found


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


@pytest.fixture(scope="module", params=sorted(DOWN_PROJECTIONS))
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any, Subject]:
    """Its `model_type`, the model as transformers has it, the subject loaded from its folder."""
    model = tiny_models.build(request.param)
    folder = tiny_models.save(model, tmp_path_factory.mktemp(request.param))
    return request.param, model, load_subject(folder, device="cpu")


# Every family


def test_each_layer_has_a_site_with_all_its_neurons(family) -> None:
    model_type, _, subject = family
    assert [(site.layer, site.width) for site in subject.sites] == [
        (layer, tiny_models.NEURONS) for layer in range(tiny_models.LAYERS)
    ]
    assert {site.signed for site in subject.sites} == {model_type in GATED}


def test_recorded_values_through_the_down_projection_are_its_output(family) -> None:
    _, model, subject = family
    recorded = read_all(subject.model, subject.sites)

    outputs: list[torch.Tensor] = []
    handles = [
        model.base_model.get_submodule(site.name).register_forward_hook(
            lambda module, inputs, output: outputs.append(output.clone())  # Falcon adds to it in place
        )
        for site in subject.sites
    ]
    with torch.inference_mode():
        model(input_ids=IDS)
    for handle in handles:
        handle.remove()

    assert list(recorded) == list(range(tiny_models.LAYERS))
    for site in subject.sites:
        values = recorded[site.layer]
        assert values.shape == (*IDS.shape, site.width)
        assert values.std() > 1e-3
        with torch.inference_mode():
            output = site.module(values)
        torch.testing.assert_close(output.reshape(-1), outputs[site.layer].reshape(-1))


def test_the_down_projection_is_what_the_mlp_adds_to_the_residual_stream(family) -> None:
    model_type, model, subject = family
    site = subject.sites[1]
    added = site.module(read_all(subject.model, [site])[1])

    block = model.base_model.get_submodule(DOWN_PROJECTIONS[model_type].partition(".{layer}")[0])[1]
    down = model.base_model.get_submodule(site.name)
    after: list[torch.Tensor] = []
    block.register_forward_hook(
        lambda module, inputs, output: after.append(output if torch.is_tensor(output) else output[0])
    )
    with torch.inference_mode():
        model(input_ids=IDS)
        down.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        model(input_ids=IDS)
    block._forward_hooks.clear()
    down._forward_hooks.clear()

    update = after[0] - after[1]
    close = torch.allclose(update, added.reshape(update.shape), rtol=1e-3, atol=1e-4)
    assert close == (model_type not in NORMALISED_AFTER_THE_MLP)


def test_what_comes_after_the_last_site_is_not_computed(family) -> None:
    model_type, _, subject = family
    completed: list[str] = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: completed.append(name))
        for name, module in subject.model.named_modules()
    ]
    with torch.inference_mode():
        subject.model(input_ids=IDS)
    everything, completed[:] = list(completed), []
    read_all(subject.model, subject.sites[:2])
    for handle in handles:
        handle.remove()

    layers = DOWN_PROJECTIONS[model_type].partition("{layer}")[0]
    behind_the_layers = everything[everything.index(f"{layers}2") + 1 :]
    assert subject.sites[0].name in completed
    assert subject.sites[1].name not in completed  # what it is given was enough
    assert not [name for name in completed if name.startswith(f"{layers}2")]
    assert behind_the_layers and not set(behind_the_layers) & set(completed)
    assert hook_count(subject.model) == 0


def test_stopping_early_changes_no_value(family) -> None:
    _, _, subject = family
    everything = read_all(subject.model, subject.sites)
    for site in subject.sites:
        assert torch.equal(read_all(subject.model, [site])[site.layer], everything[site.layer])


# One family


@pytest.fixture(scope="module")
def gpt2() -> nn.Module:
    return tiny_models.build("gpt2").base_model


@pytest.mark.parametrize(
    ("activation", "signed"),
    [
        ("relu", False),
        ("gelu", False),
        ("gelu_new", False),
        ("silu", False),
        ("tanh", True),
        ("linear", True),
    ],
)
def test_neurons_have_one_side_when_their_activation_is_bounded_below(activation: str, signed: bool) -> None:
    model = tiny_models.build("gpt2", activation_function=activation).base_model
    assert [site.signed for site in mlp_sites(model)] == [signed] * tiny_models.LAYERS


def test_one_block_of_hooks_serves_many_batches_of_any_shape(gpt2: nn.Module) -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []
    with captured(gpt2, mlp_sites(gpt2)[:2], lambda layer, a: seen.append((layer, tuple(a.shape)))) as run:
        run(IDS)
        run(IDS[:1, :3])
    assert seen == [(0, (2, 7, 40)), (1, (2, 7, 40)), (0, (1, 3, 40)), (1, (1, 3, 40))]


def test_hooks_are_gone_whatever_happens(gpt2: nn.Module) -> None:
    def fail(layer: int, activations: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), captured(gpt2, mlp_sites(gpt2), fail) as run:
        run(IDS)
    with pytest.raises(IndexError), captured(gpt2, mlp_sites(gpt2), lambda layer, activations: None) as run:
        run(IDS + tiny_models.VOCABULARY)
    assert hook_count(gpt2) == 0


def test_no_gradient_is_kept(gpt2: nn.Module) -> None:
    assert all(values.is_inference() for values in read_all(gpt2, mlp_sites(gpt2)).values())


# A module named by hand


def test_a_module_may_be_named_as_in_the_model_with_its_unembedding(gpt2: nn.Module) -> None:
    by_hand = [mlp_sites(gpt2, f"{prefix}h.{{layer}}.mlp.c_proj") for prefix in ("", "transformer.")]
    assert by_hand[0] == by_hand[1] == mlp_sites(gpt2)


def test_other_projections_are_read_as_well_and_taken_for_signed(gpt2: nn.Module) -> None:
    sites = mlp_sites(gpt2, "h.{layer}.attn.c_proj")
    assert [(site.width, site.signed) for site in sites] == [(tiny_models.WIDTH, True)] * tiny_models.LAYERS
    recorded = read_all(gpt2, sites)
    assert recorded[2].shape == (*IDS.shape, tiny_models.WIDTH)


def test_a_module_that_cannot_be_read_is_an_error(gpt2: nn.Module) -> None:
    with pytest.raises(UsageError, match=r"no \{layer\}"):
        mlp_sites(gpt2, "h.0.mlp.c_proj")
    with pytest.raises(ModelError, match=r"no module 'h\.\{layer\}\.mlp\.down'.*--module 'transformer\.h\."):
        mlp_sites(gpt2, "h.{layer}.mlp.down")
    with pytest.raises(ModelError, match="is no projection but"):
        mlp_sites(gpt2, "h.{layer}.mlp.act")


def test_an_unknown_architecture_names_its_projections() -> None:
    model = tiny_models.build("stablelm", **tiny_models.LLAMA_LIKE)
    with pytest.raises(ModelError) as caught:
        mlp_sites(model.base_model)
    error = str(caught.value)
    assert "the architecture stablelm is not in the table" in error
    assert "--module 'model.layers.{layer}.mlp.down_proj'" in error
    assert (
        "model.layers.{layer}.self_attn.k_proj 16->8" in error
        and "model.layers.{layer}.mlp.up_proj 16->40" in error
    )
    assert "\n" not in error

    sites = mlp_sites(model.base_model, "model.layers.{layer}.mlp.down_proj")
    assert [(site.layer, site.width, site.signed) for site in sites] == [
        (0, 40, True),
        (1, 40, True),
        (2, 40, True),
    ]


def test_a_mixture_of_experts_is_an_error_unless_a_module_is_named() -> None:
    settings = tiny_models.LLAMA_LIKE | {"num_local_experts": 2, "num_experts_per_tok": 1}
    model = tiny_models.build("mixtral", **settings).base_model
    with pytest.raises(ModelError, match="mixtral is a mixture of experts"):
        mlp_sites(model)
    assert len(read_all(model, mlp_sites(model, "layers.{layer}.self_attn.o_proj"))) == tiny_models.LAYERS


# Models that do not do what their modules promise


class Toy(nn.Module):
    """Layers of one projection each, passed as often as `passes` says."""

    def __init__(self, layers: list[nn.Module], passes: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.passes = passes

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
        values = torch.ones(*input_ids.shape, 4)
        for layer, times in zip(self.layers, self.passes, strict=True):
            for _ in range(times):
                values = layer(values)
        return values


def block() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4))


@pytest.mark.parametrize("passes", [[1, 0, 1], [1, 1, 0], [1, 2, 1]])
def test_a_site_that_is_not_passed_exactly_once_is_an_error(passes: list[int]) -> None:
    model = Toy([block(), block(), block()], passes)
    sites = mlp_sites(model, "layers.{layer}.0")
    with pytest.raises(ModelError, match=r"not once through each of \[0, 1, 2\]"):
        read_all(model, sites)


def test_layers_that_share_a_module_are_an_error() -> None:
    shared = block()
    with pytest.raises(ModelError, match="share one module"):
        mlp_sites(Toy([shared, block(), shared], [1, 1, 1]), "layers.{layer}.0")
