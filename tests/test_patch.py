"""Restarted passes say what full passes with the same unit replaced say, in every family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor, nn

from nxtools.subject.load import Subject, load_subject
from nxtools.subject.patch import Handle, Original, Patcher, Row
from nxtools.subject.sites import DOWN_PROJECTIONS, mlp_sites

IDS = torch.arange(14).reshape(2, 7) * 5 % tiny_models.VOCABULARY
TOKENS = IDS.shape[1]
UNIT = 5
OTHER = torch.tensor([float("nan"), 1.0, -2.0, 0.5, 3.0, 0.0, 1.0])  # the first position keeps its own value


def subject_of(model: Any, module: str | None = None) -> Subject:
    trunk = model.base_model
    return Subject(trunk, torch.device("cpu"), "float32", mlp_sites(trunk, module), model)


@pytest.fixture(scope="module", params=sorted(DOWN_PROJECTIONS))
def patcher(request: pytest.FixtureRequest) -> Patcher:
    return Patcher(subject_of(tiny_models.build(request.param)))


def full_pass(patcher: Patcher, change: Any = None, layer: int = 0) -> Tensor:
    """Logits of the whole model; `change` is made to what the layer's site gets, values (2, T, width)."""

    def replace(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        values = inputs[0].reshape(*IDS.shape, -1).clone()
        change(values)
        return (values.reshape(inputs[0].shape),)

    hook = patcher.sites[layer].module.register_forward_pre_hook(replace) if change else None
    with torch.inference_mode():
        logits: Tensor = patcher.model(input_ids=IDS, use_cache=False).logits
    if hook:
        hook.remove()
    return logits


def rows(patcher: Patcher, layer: int, replacement: Tensor | str | None) -> list[Row]:
    handle = patcher.handle(layer, UNIT)
    return [
        Row(
            original,
            handle,
            handle.value(original.values[layer]) if isinstance(replacement, str) else replacement,
        )
        for original in patcher.original(IDS, TOKENS)
    ]


def put_in(values: Tensor) -> None:
    values[:, 1:, UNIT] = OTHER[1:]


@contextmanager
def counted(model: nn.Module) -> Iterator[Counter[str]]:
    """How often each module runs; what is skipped does not."""
    ran: Counter[str] = Counter()
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: ran.update([name]))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    yield ran
    for handle in handles:
        handle.remove()


# Every family


def test_the_original_pass_is_the_models_own(patcher: Patcher) -> None:
    originals = patcher.original(IDS, TOKENS)
    assert torch.equal(torch.stack([one.logits for one in originals]), full_pass(patcher))
    last_three = patcher.original(IDS, 3)
    torch.testing.assert_close(last_three[0].logits, originals[0].logits[-3:])


def test_a_unit_replaced_by_its_true_activations_changes_nothing(patcher: Patcher) -> None:
    for layer in range(tiny_models.LAYERS):
        logits = patcher.restart(layer, rows(patcher, layer, "its own"), TOKENS)
        torch.testing.assert_close(logits, full_pass(patcher), rtol=0, atol=1e-6)


def test_a_unit_taken_out_and_put_back_changes_what_rounding_does(patcher: Patcher) -> None:
    for layer in range(tiny_models.LAYERS):
        apart = (patcher.restart(layer, rows(patcher, layer, None), TOKENS) - full_pass(patcher)).abs().max()
        assert apart < 1e-5


def test_a_unit_replaced_is_a_full_pass_with_a_hook_that_replaces_it(patcher: Patcher) -> None:
    for layer in range(tiny_models.LAYERS):
        expected = full_pass(patcher, put_in, layer)
        assert (expected - full_pass(patcher)).abs().max() > 0.1
        torch.testing.assert_close(
            patcher.restart(layer, rows(patcher, layer, OTHER), TOKENS), expected, rtol=1e-5, atol=1e-5
        )


def test_a_restarted_pass_runs_the_layers_above_and_its_own_down_projection(patcher: Patcher) -> None:
    trunk = f"{patcher.model.base_model_prefix}."
    layers = trunk + patcher.sites[0].name.partition(".0.")[0] + "."

    def by_layer(ran: Counter[str]) -> dict[int, Counter[str]]:
        found: dict[int, Counter[str]] = {}
        for name, times in ran.items():
            if name.startswith(layers):
                found.setdefault(int(name[len(layers) :].split(".")[0]), Counter())[name] = times
        return found

    with counted(patcher.model) as ran:
        full_pass(patcher)
        everything = by_layer(+ran)
        for layer in range(tiny_models.LAYERS):
            work = rows(patcher, layer, OTHER)
            patcher.restart(layer, work, TOKENS)  # tries out once how the block adds what its site says
            ran.clear()
            patcher.restart(layer, work, TOKENS)
            found = by_layer(ran)
            own = set(found.pop(layer))
            assert found == {above: everything[above] for above in everything if above > layer}
            assert own <= {trunk + patcher.sites[layer].name, f"{layers}{layer}.post_feedforward_layernorm"}


def test_nothing_is_left_on_the_model(patcher: Patcher) -> None:
    with pytest.raises(IndexError):
        patcher.original(IDS + tiny_models.VOCABULARY, TOKENS)
    patcher.restart(1, rows(patcher, 1, OTHER), TOKENS)
    for module in patcher.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert "forward" not in vars(module)


def test_a_direction_is_moved_along_what_it_writes(patcher: Patcher) -> None:
    chance = torch.Generator().manual_seed(0)
    read, write = torch.randn((2, tiny_models.NEURONS), generator=chance) / tiny_models.NEURONS**0.5
    handle = Handle(1, read, write)
    work = [Row(original, handle, OTHER) for original in patcher.original(IDS, TOKENS)]

    def move(values: Tensor) -> None:
        change = OTHER - values @ read
        change[:, 0] = 0
        values += change[..., None] * write

    expected = full_pass(patcher, move, 1)
    torch.testing.assert_close(patcher.restart(1, work, TOKENS), expected, rtol=1e-5, atol=1e-5)


# Blocks that do more than add


@pytest.mark.parametrize(
    ("family", "settings", "module"),
    [
        ("opt", {"do_layer_norm_before": False}, None),  # as in OPT-350m: the sum itself is normalised
        ("gpt2", {}, "h.{layer}.attn.c_proj"),  # the MLP reads what attention writes
        ("granite", tiny_models.LLAMA_LIKE | {"residual_multiplier": 0.22}, "layers.{layer}.mlp.down_proj"),
    ],
)
def test_a_block_that_does_more_than_add_runs_again(
    family: str, settings: dict[str, Any], module: str | None
) -> None:
    patcher = Patcher(subject_of(tiny_models.build(family, **settings), module))
    rounding = []
    for layer in range(tiny_models.LAYERS):
        expected = full_pass(patcher, put_in, layer)
        found = patcher.restart(layer, rows(patcher, layer, OTHER), TOKENS)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        same = patcher.restart(layer, rows(patcher, layer, "its own"), TOKENS)
        torch.testing.assert_close(same, full_pass(patcher), rtol=0, atol=1e-6)
        rounding.append((patcher.restart(layer, rows(patcher, layer, None), TOKENS) - same).abs().max())
        with counted(patcher.model) as ran:
            patcher.restart(layer, rows(patcher, layer, OTHER), TOKENS)
        stack = patcher.sites[0].name.partition(".0.")[0]
        for below in range(layer):
            inside = f"{patcher.model.base_model_prefix}.{stack}.{below}."
            once = {n for name, n in ran.items() if name.startswith(inside)}
            assert once == {1}, "the original pass alone went through it"
    assert 0 < max(rounding) < 1e-5


# Loading and units together


def test_a_subject_may_be_loaded_with_its_unembedding(tmp_path: Any) -> None:
    model = tiny_models.build("gpt2")
    subject = load_subject(tiny_models.save(model, tmp_path), device="cpu", speaking=True)
    with torch.inference_mode():
        expected = model(input_ids=IDS).logits
    logits = torch.stack([one.logits for one in Patcher(subject).original(IDS, TOKENS)])
    torch.testing.assert_close(logits, expected)
    assert load_subject(tmp_path, device="cpu").speaker is None


def test_rows_of_several_units_and_excerpts_share_a_pass() -> None:
    patcher = Patcher(subject_of(tiny_models.build("llama")))
    originals: list[Original] = patcher.original(IDS, TOKENS)
    mixed = [
        Row(originals[place], patcher.handle(1, unit), OTHER) for place, unit in ((0, 3), (1, 3), (0, 11))
    ]
    together = patcher.restart(1, mixed, TOKENS)
    alone = torch.cat([patcher.restart(1, [row], TOKENS) for row in mixed])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert patcher.passes == {"original": 1, "restarted": 4}


@pytest.mark.parametrize(("dtype", "least", "most"), [(torch.bfloat16, 1e-3, 0.3), (torch.float32, 0, 1e-5)])
def test_rounding_is_that_of_the_subjects_numbers(dtype: torch.dtype, least: float, most: float) -> None:
    patcher = Patcher(subject_of(tiny_models.build("qwen2").to(dtype)))
    same = patcher.restart(0, rows(patcher, 0, "its own"), TOKENS)
    assert torch.equal(same, full_pass(patcher))
    apart = (patcher.restart(0, rows(patcher, 0, None), TOKENS) - same).abs().max()
    assert least < apart < most
