"""nx-connect: what weights tie a unit to, against the same products written out in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tiny_models
import torch
from asked import ask
from conftest import Run
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tiny_models import FAMILIES, LAYERS, NEURONS, VOCABULARY, WIDTH, build

from nxtools.errors import InputError
from nxtools.stage import Failure
from nxtools.store import question_digest
from nxtools.subject.alike import SAME, leaders
from nxtools.subject.connecting import Connector
from nxtools.subject.connections import Connecting, VectorFile, Vectors
from nxtools.subject.identity import weights_fingerprint
from nxtools.subject.load import Subject
from nxtools.subject.sites import mlp_sites
from nxtools.subject.wiring import MADE, WRITTEN, Wiring

Floats = NDArray[np.float64]
Record = dict[str, Any]

TEXTS = [f" {token}" for token in range(VOCABULARY)]
LIST = 7
SIDES = ("positive", "negative")


def wiring_of(model: Any, module: str | None = None) -> Wiring:
    for name, parameter in model.named_parameters():  # gains and biases that are not 1 and 0
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    trunk = model.base_model
    return Wiring(Subject(trunk, torch.device("cpu"), "float32", mlp_sites(trunk, module), model))


def job(layer: int, index: int, vectors: Vectors | None = None, **other: Any) -> Connecting:
    asked = {"subject": "tiny", "fingerprint": "sha256:0", "site": "mlp", "dtype": "float32"} | other
    return Connecting(layer=layer, index=index, tokens=LIST, units=LIST, vectors=vectors, **asked)


def answers(wiring: Wiring, jobs: list[Connecting], texts: list[str] = TEXTS) -> list[Any]:
    return ask(Connector(lambda first: (wiring, texts)), jobs)


def array(tensor: torch.Tensor) -> Floats:
    found: Floats = tensor.detach().double().numpy()
    return found


def check(found: Record, weights: Floats, names: list[Any], *, centred: bool = False) -> None:
    """A list against all weights (n,) and what each is called."""
    shown = weights - weights.mean() if centred else weights
    order = np.argsort(shown)
    for side, places in (("positive", order[::-1][:LIST]), ("negative", order[:LIST])):
        kept = [place for place in places if (shown[place] > 0) == (side == "positive")]
        got = found[side]
        assert [one.get("unit", one.get("id")) for one in got] == [names[place] for place in kept], side
        np.testing.assert_allclose([one["weight"] for one in got], shown[kept], rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose([found["mean"], found["sd"]], [weights.mean(), weights.std()], rtol=1e-3)
    assert found["of"] == len(weights)


def units(layers: range) -> list[str]:
    return [f"{layer}:{index}" for layer in layers for index in range(NEURONS)]


IDS = list(range(VOCABULARY))


# The formulas


@pytest.mark.parametrize(("layer", "index"), [(0, 3), (1, 39), (2, 0)])
def test_gpt2_s_neurons_by_the_paper_s_formulas(layer: int, index: int) -> None:
    model = build("gpt2")
    (found,) = answers(wiring_of(model), [job(layer, index)])
    blocks = model.transformer.h
    wte, final = array(model.transformer.wte.weight), array(model.transformer.ln_f.weight)
    gains = [array(block.ln_2.weight) for block in blocks]
    w_in = [array(block.mlp.c_fc.weight) for block in blocks]  # (d, neurons)
    w_out = [array(block.mlp.c_proj.weight) for block in blocks]  # (neurons, d)
    check(found["output_tokens"], wte @ (w_out[layer][index] * final), IDS, centred=True)
    check(found["input_tokens"], (wte * gains[layer]) @ w_in[layer][:, index], IDS)
    before, behind = range(layer), range(layer + 1, LAYERS)
    if before:
        tied = [w_out[one] @ (gains[layer] * w_in[layer][:, index]) for one in before]
        check(found["upstream"]["input"], np.concatenate(tied), units(before))
    if behind:
        tied = [(w_out[layer][index] * gains[one]) @ w_in[one] for one in behind]
        check(found["downstream"]["input"], np.concatenate(tied), units(behind))
    ends = {"upstream": "there is no layer before it", "downstream": "there is no layer behind it"}
    absent = {name for name, there in (("upstream", before), ("downstream", behind)) if not there}
    assert found.get("absent", {}) == {name: ends[name] for name in absent}


def test_gated_neurons_by_gate_and_up_and_tokens_through_the_whole_mlp() -> None:
    model = build("llama", tie_word_embeddings=False)
    (found,) = answers(wiring_of(model), [job(1, 5)])
    blocks = model.model.layers
    gains = [array(block.post_attention_layernorm.weight) for block in blocks]
    gates, ups = (
        [array(getattr(block.mlp, name).weight) for block in blocks] for name in ("gate_proj", "up_proj")
    )
    downs = [array(block.mlp.down_proj.weight).T for block in blocks]  # (neurons, d)
    output = array(model.lm_head.weight) @ (downs[1][5] * array(model.model.norm.weight))
    check(found["output_tokens"], output, IDS, centred=True)
    for part, weights in (("gate", gates), ("up", ups)):
        check(found["upstream"][part], downs[0] @ (gains[1] * weights[1][5]), units(range(1)))
        check(found["downstream"][part], weights[2] @ (downs[1][5] * gains[2]), units(range(2, 3)))
    embedding = array(model.model.embed_tokens.weight)
    read = embedding / np.sqrt((embedding**2).mean(1, keepdims=True) + 1e-6) * gains[1]
    gate, up = read @ gates[1][5], read @ ups[1][5]
    check(found["input_tokens"], gate / (1 + np.exp(-gate)) * up, IDS)
    assert found["input_tokens"]["through"] == "mlp"


def test_the_gain_of_a_norm_behind_the_mlp_is_part_of_what_it_writes() -> None:
    model = build("gemma2")
    (found,) = answers(wiring_of(model), [job(0, 2)])
    first, second = model.model.layers[:2]
    writes = array(first.mlp.down_proj.weight)[:, 2] * (1 + array(first.post_feedforward_layernorm.weight))
    reads = array(second.mlp.up_proj.weight) * (1 + array(second.pre_feedforward_layernorm.weight))
    of_second = [one for one in found["downstream"]["up"]["positive"] if one["unit"].startswith("1:")]
    assert of_second
    for one in of_second:
        expected = float(writes @ reads[int(one["unit"][2:])])
        assert one["weight"] == pytest.approx(expected, rel=1e-3)


def test_where_an_mlp_reads_the_stream_as_it_is_there_is_no_gain() -> None:
    model = build("olmo2")
    (found,) = answers(wiring_of(model), [job(1, 7)])
    mlp = model.model.layers[1].mlp
    read = array(model.model.embed_tokens.weight)
    gate, up = read @ array(mlp.gate_proj.weight)[7], read @ array(mlp.up_proj.weight)[7]
    check(found["input_tokens"], gate / (1 + np.exp(-gate)) * up, IDS)


# Every family


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_architecture_s_neurons_have_everything(family: str) -> None:
    wiring = wiring_of(build(family))
    (found,) = answers(wiring, [job(1, 5)])
    assert "absent" not in found
    assert wiring.layers[1].is_gated == ("through" in found["input_tokens"])
    assert set(found["upstream"]) == set(found["downstream"]) == set(wiring.layers[1].parts)
    everything = [found["output_tokens"], found["input_tokens"], *found["upstream"].values()]
    assert all(one["positive"] and one["negative"] and one["sd"] > 0 for one in everything)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "olmo2"])
def test_a_subject_in_half_precision_is_the_same_but_for_rounding(family: str) -> None:
    whole, half = build(family), build(family).to(torch.bfloat16)
    one, other = (answers(wiring_of(model), [job(1, 5)])[0] for model in (whole, half))
    assert one.keys() == other.keys()
    for name in ("output_tokens", "input_tokens"):
        strongest, rounded = (found[name]["positive"][0] for found in (one, other))
        assert rounded["weight"] == pytest.approx(strongest["weight"], rel=0.05)


def test_the_gate_is_found_by_what_it_does_and_not_by_its_place() -> None:
    for family in ("phi3", "qwen2"):
        model = build(family)
        layer = wiring_of(model).layers[1]
        mlp = model.model.layers[1].mlp
        gate = mlp.gate_proj.weight if family == "qwen2" else mlp.gate_up_proj.weight[:NEURONS]
        torch.testing.assert_close(layer.parts["gate"].weights, gate)


def test_what_is_not_defined_has_a_reason() -> None:
    model = build("opt", do_layer_norm_before=False)  # normalises the sum
    (found,) = answers(wiring_of(model), [job(1, 5)])
    assert found["absent"] == {"output_tokens": WRITTEN, "upstream": WRITTEN, "downstream": WRITTEN}
    assert found["input_tokens"]["positive"]
    inside = wiring_of(build("llama"), "layers.{layer}.self_attn.o_proj")
    (found,) = answers(inside, [job(1, 5)])
    absent = {"output_tokens": WRITTEN, "input_tokens": MADE, "upstream": MADE, "downstream": WRITTEN}
    assert found == {"absent": absent}


def test_tokens_without_a_text_are_not_listed() -> None:
    (found,) = answers(wiring_of(build("gpt2")), [job(1, 5)], ["", *TEXTS[1:40]])
    for name in ("output_tokens", "input_tokens"):
        assert found[name]["of"] == 39
        assert all(0 < one["id"] < 40 for side in ("positive", "negative") for one in found[name][side])


def test_tokens_that_cannot_be_told_apart_are_listed_once() -> None:
    model = build("gpt2")
    with torch.no_grad():
        wte = model.transformer.wte.weight
        wte[20:40] = wte[30] * torch.linspace(4, 0.5, 20)[:, None]
        wte[100:260] = wte[100] + 0.01 * torch.randn(160, WIDTH, generator=torch.Generator().manual_seed(1))
    found = answers(wiring_of(model), [job(1, index) for index in range(NEURONS)])
    lists = [one[name] for one in found for name in ("output_tokens", "input_tokens")]
    assert {one["of"] for one in lists} == {VOCABULARY - 19 - 159}
    shown = {e["id"]: e.get("alike") for one in lists for side in SIDES for e in one[side]}
    assert shown[20] == 19 and shown[100] == 159
    assert {alike for token, alike in shown.items() if token not in (20, 100)} == {None}


def test_who_is_alike_is_what_comparing_all_pairs_says() -> None:
    chance = torch.Generator().manual_seed(2)
    rows = torch.randn(400, 64, generator=chance)
    for first, size, noise in ((0, 30, 1e-3), (50, 2, 0.02), (200, 150, 0.05)):
        rows[first : first + size] = rows[first] + noise * torch.randn(size, 64, generator=chance)
    tokens = torch.arange(3, 400)
    unit = rows / rows.norm(dim=1, keepdim=True)
    near = unit @ unit.T > SAME
    expected = [int(near[token, 3 : token + 1].nonzero()[0]) + 3 for token in tokens.tolist()]
    assert leaders(rows, tokens).tolist() == expected


def test_an_answer_does_not_depend_on_the_company() -> None:
    wiring = wiring_of(build("gpt2"))
    jobs = [job(layer, index) for layer in range(LAYERS) for index in range(NEURONS)]
    together = answers(wiring, jobs)
    assert answers(wiring, jobs[50:51]) == together[50:51]


def test_units_that_are_not_there_are_failures() -> None:
    other = job(0, 0, fingerprint="sha256:1")
    vector = Vectors("site", np.ones(3, np.float32), None)
    found = answers(
        wiring_of(build("gpt2")), [job(0, 0), job(0, NEURONS), job(9, 0), other, job(0, 0, vector)]
    )
    kinds = [one.kind if isinstance(one, Failure) else "answer" for one in found]
    assert kinds == ["answer", "no-such-unit", "no-such-unit", "other-subject", "other-width"]


# Directions and latents


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_direction_along_a_neuron_is_that_neuron(family: str) -> None:
    wiring = wiring_of(build(family))
    one = np.eye(NEURONS, dtype=np.float32)[11]
    neuron, direction = answers(wiring, [job(1, 11), job(1, 0, Vectors("site", one, one))])
    assert direction.keys() == neuron.keys()
    for name in ("output_tokens", "input_tokens"):
        for side in ("positive", "negative"):
            got, expected = ([(e["id"], e["weight"]) for e in one[name][side]] for one in (direction, neuron))
            np.testing.assert_allclose(got, expected, rtol=2e-3)
    for part, lists in neuron["upstream"].items():
        assert [e["unit"] for e in lists["positive"]] == [
            e["unit"] for e in direction["upstream"][part]["positive"]
        ]


def test_a_latent_reads_and_writes_the_stream_itself() -> None:
    model = build("gpt2")
    chance = np.random.default_rng(0)
    encoder, decoder = chance.normal(size=(2, WIDTH)).astype(np.float32)
    (found,) = answers(wiring_of(model), [job(1, 900, Vectors("stream", encoder, decoder))])
    blocks, wte = model.transformer.h, array(model.transformer.wte.weight)
    check(found["input_tokens"], wte @ encoder, IDS)
    check(found["output_tokens"], wte @ (decoder * array(model.transformer.ln_f.weight)), IDS, centred=True)
    written = np.concatenate([array(block.mlp.c_proj.weight) for block in blocks[:2]])
    check(found["upstream"]["input"], written @ encoder, units(range(2)))
    read = array(blocks[2].ln_2.weight)[:, None] * array(blocks[2].mlp.c_fc.weight)
    check(found["downstream"]["input"], decoder @ read, units(range(2, 3)))
    (half,) = answers(wiring_of(model), [job(1, 0, Vectors("stream", None, decoder))])
    assert set(half["absent"]) == {"input_tokens", "upstream"} and "downstream" in half


def test_vectors_are_read_by_the_names_that_others_give_them() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    ours = VectorFile({"encoder": rows, "decoder": -rows}, "ours").of(3)
    theirs = VectorFile({"W_enc": rows.T, "W_dec": -rows}, "theirs").of(3)
    for found in (ours, theirs):
        assert found.space == "stream"
        assert found.read is not None and found.read.tolist() == [6, 7]
        assert found.write is not None and found.write.tolist() == [-6, -7]
    assert VectorFile({"read": rows}, "half").of(0).write is None
    for bad in ({}, {"read": rows, "encoder": rows}, {"read": rows[0]}):
        with pytest.raises(InputError):
            VectorFile(bad, "bad")
    with pytest.raises(InputError, match="no row 4"):
        VectorFile({"read": rows}, "short").of(4)


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(build("gpt2"), tmp_path_factory.mktemp("subject"))


def unit_line(folder: Path, layer: int, index: int, **other: Any) -> Record:
    unit = {"subject": str(folder), "fingerprint": weights_fingerprint(folder), "site": "mlp"}
    unit |= {"layer": layer, "index": index, "sign": "+"}
    return {"kind": "unit", "v": 1, "unit": unit, "x-mine": [1, None], "excerpts": []} | other


def lines(records: list[Record]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def test_what_is_found_and_what_cannot_be_and_no_torch_the_second_time(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    given = [unit_line(folder, layer, index) for layer in range(LAYERS) for index in (0, 7)]
    nobody = unit_line(folder, 0, 0)
    del nobody["unit"]["fingerprint"]
    broken = unit_line(folder, 0, 0, error={"stage": "record", "kind": "non-finite", "message": "…"})
    more = [nobody, broken, unit_line(folder, 0, NEURONS)]
    first = run("nx-connect --tokens 3 --units 2", stdin=lines(given + more))
    assert first.returncode == 1
    assert first.stderr.decode() == "nx-connect: 9 units: 6 answers computed, 2 failed\n"
    found = [orjson.loads(line) for line in first.stdout.splitlines()]
    for record, one in zip(found, given, strict=False):
        connections = record.pop("connections")
        assert record == one
        assert connections["by"] == {"tokens": 3, "units": 2}
        assert [len(connections[name]["positive"]) for name in ("output_tokens", "input_tokens")] == [3, 3]
    assert len(connections["upstream"]["input"]["negative"]) == 2
    assert found[6]["connections"]["error"]["kind"] == "no-subject"
    assert found[7] == broken
    assert found[8]["connections"]["error"]["kind"] == "no-such-unit"

    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "torch.py").write_text("raise SystemExit('torch was asked for')")
    without = {"PYTHONPATH": str(tmp_path / "without")}
    second = run("nx-connect --tokens 3 --units 2", stdin=lines(given), env=without)
    assert second.stderr.decode() == "nx-connect: 6 units: 6 taken from the store\n"
    assert (second.returncode, second.stdout) == (0, b"".join(first.stdout.splitlines(True)[:6]))
    other = run("nx-connect --tokens 4 --units 2", stdin=lines(given), env=without)
    assert b"torch was asked for" in other.stderr
    pipe = "nx-connect -q --tokens 3 --units 2"
    piped = run(f"{pipe} | {pipe} | tail -1 | jq -c '.connections|keys'", stdin=lines(given), env=without)
    assert piped.stderr == b""
    assert piped.stdout == b'["absent","by","input_tokens","output_tokens","upstream"]\n'
    offline = run("nx-connect --offline --tokens 4", stdin=lines(given[:1]), env=without)
    assert offline.returncode == 1 and b'"kind":"offline"' in offline.stdout


def test_another_subject_is_refused(run: Run, folder: Path, tmp_path: Path) -> None:
    other = tiny_models.save(build("gpt2", seed=1), tmp_path / "other")
    done = run(f"nx-connect --subject {other}", stdin=lines([unit_line(folder, 0, 1)]))
    assert done.returncode == 4
    assert b"is not the subject of these units" in done.stderr


def test_vectors_of_a_file(run: Run, folder: Path, tmp_path: Path) -> None:
    rows = np.eye(NEURONS, dtype=np.float32)[::-1].copy()
    save_file({"read": rows, "write": rows}, tmp_path / "directions.safetensors")
    given = lines([unit_line(folder, 1, 0)])
    done = run(
        f"nx-connect --vectors {tmp_path}/directions.safetensors --tokens 0 --units {LIST}", stdin=given
    )
    assert done.returncode == 0, done.stderr
    found = orjson.loads(done.stdout)["connections"]
    assert found["by"]["vectors"] == "site" and "output_tokens" not in found
    model = build("gpt2")
    trunk = model.base_model
    wiring = Wiring(Subject(trunk, torch.device("cpu"), "float32", mlp_sites(trunk), model))
    (neuron,) = answers(wiring, [job(1, NEURONS - 1)])
    assert found["downstream"] == neuron["downstream"]
    (tmp_path / "none").write_bytes(b"no table")
    done = run(f"nx-connect --vectors {tmp_path}/none", stdin=given)
    assert (done.returncode, done.stdout) == (3, b"") and b"none: cannot be read" in done.stderr


def test_questions_are_kept_apart() -> None:
    row = np.ones(4, np.float32)
    jobs = [job(0, 0), job(0, 1), job(1, 0), job(0, 0, dtype="bfloat16"), job(0, 0, fingerprint="sha256:9")]
    jobs += [job(0, 0, Vectors("site", row, row)), job(0, 1, Vectors("site", row, None))]
    jobs += [job(0, 0, Vectors("stream", row, row)), job(0, 0, Vectors("site", row, 2 * row))]
    assert len({question_digest("connect", 1, one.question()) for one in jobs}) == len(jobs)
    assert job(0, 0, subject="renamed").question() == job(0, 0).question()
