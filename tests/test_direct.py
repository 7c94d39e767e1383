"""What weights alone say of a neuron: against the same products written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recorded import Blobs
from tiny_models import FAMILIES, NEURONS, VOCABULARY, build

from nxtools.errors import ModelError
from nxtools.recordings.table import Table, pack_table
from nxtools.simulate.tables import WeightValues
from nxtools.subject.direct import gain, inputs_of, weights_table
from nxtools.subject.load import Subject
from nxtools.subject.sites import mlp_sites

WITHOUT_NORM = {"olmo2"}
SHORT = 2.0**-10


def subject_of(family: str) -> Subject:
    model = build(family).base_model
    for parameter in model.parameters():  # gains and biases that are not 1 and 0
        if parameter.ndim == 1:
            torch.nn.init.normal_(
                parameter, 1.0, 0.3, generator=torch.Generator().manual_seed(len(parameter))
            )
    return Subject(model, torch.device("cpu"), "float32", mlp_sites(model))


def table_of(subject: Subject, layer: int, positions: range | None) -> Table:
    blobs = Blobs()
    part = blobs.keep(weights_table(subject, subject.sites[layer], positions))
    return Table(blobs.keep(pack_table([part], blobs.open)), blobs.open)


def columns(table: Table) -> np.ndarray:
    return np.stack([table.values(unit) for unit in range(NEURONS)])


def close(found: np.ndarray, expected: np.ndarray) -> None:
    tolerance = SHORT * np.abs(expected).max(axis=1, keepdims=True) + 1e-5
    assert (np.abs(found - expected) <= tolerance).all()


@pytest.mark.parametrize("layer", [0, 2])
def test_gpt2_s_are_embedding_gain_and_input_weights(layer: int) -> None:
    subject = subject_of("gpt2")
    model = subject.model
    block = model.h[layer]  # type: ignore[index]
    with torch.no_grad():
        weights = block.ln_2.weight[:, None] * block.mlp.c_fc.weight  # (d, units)
        tokens = (model.wte.weight @ weights).T.numpy()  # type: ignore[operator, union-attr]
        places = (model.wpe.weight[1:9] @ weights).T.numpy()  # type: ignore[operator, union-attr, index]
    table = table_of(subject, layer, range(1, 9))
    assert table.tokens.tolist() == list(range(VOCABULARY))
    close(columns(table), tokens)
    close(np.stack([table.positions(unit) for unit in range(NEURONS)]), places)  # type: ignore[misc]
    assert table_of(subject, layer, None).positions(0) is None


@pytest.mark.parametrize("layer", [0, 1])
def test_a_gated_neuron_s_are_its_value_on_the_normalised_embedding(layer: int) -> None:
    subject = subject_of("llama")
    block = subject.model.layers[layer]  # type: ignore[index]
    with torch.no_grad():
        embedding = subject.model.embed_tokens.weight  # type: ignore[union-attr]
        scaled = embedding / (embedding.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()  # type: ignore[operator, arg-type]
        x = scaled * block.post_attention_layernorm.weight
        gate, up = (x @ part.weight.T for part in (block.mlp.gate_proj, block.mlp.up_proj))
        expected = (gate / (1 + torch.exp(-gate)) * up).T.numpy()
    table = table_of(subject, layer, range(8))
    close(columns(table), expected)
    assert table.positions(0) is None


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_architecture_s_neurons_read_the_norm_before_their_mlp(family: str) -> None:
    subject = subject_of(family)
    if family in WITHOUT_NORM:
        with pytest.raises(ModelError, match="do not read the output of a norm"):
            inputs_of(subject, subject.sites[1])
        return
    found = inputs_of(subject, subject.sites[1])
    assert found.gated == subject.sites[1].signed
    assert len(columns(table_of(subject, 1, range(8)))) == NEURONS
    rows = torch.eye(16)
    own = found.norm.weight
    expected = own + 1 if "gemma" in family else own
    torch.testing.assert_close(gain(found.norm, rows), expected.detach(), rtol=1e-4, atol=1e-4)  # type: ignore[operator, union-attr]


def test_negating_up_rows_mirrors_a_gated_neuron_and_scaling_a_plain_one_scales_it() -> None:
    usual, changed = subject_of("llama"), subject_of("llama")
    with torch.no_grad():
        changed.model.layers[0].mlp.up_proj.weight[3] *= -1  # type: ignore[index, union-attr]
    one, two = table_of(usual, 0, None), table_of(changed, 0, None)
    np.testing.assert_array_equal(one.values(3), -two.values(3))
    np.testing.assert_array_equal(one.values(4), two.values(4))
    usual, changed = subject_of("gpt2"), subject_of("gpt2")
    with torch.no_grad():
        changed.model.h[0].mlp.c_fc.weight[:, 3] *= 2  # type: ignore[index, union-attr]
    one, two = table_of(usual, 0, None), table_of(changed, 0, None)
    np.testing.assert_allclose(
        2 * one.values(3), two.values(3), rtol=0, atol=2e-3 * np.abs(two.values(3)).max()
    )


def test_tokens_and_positions_add_up_in_a_prediction() -> None:
    values, places = np.array([1.0, 2.0, 4.0], np.float32), np.array([0.5, 0.25], np.float32)
    ids = np.array([[0, 2], [1, 9]])
    assert WeightValues(values).predict(ids).tolist() == [[1.0, 4.0], [2.0, np.float32(7 / 3)]]
    assert WeightValues(values, places).predict(ids)[0].tolist() == [1.5, 4.25]
