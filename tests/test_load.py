"""Loading subjects and tokenizers, and what is said of those that cannot be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import processors

from nxtools.errors import ModelError, UsageError
from nxtools.subject.load import bos_id, load_subject, load_tokenizer, pick_device, pick_dtype
from nxtools.subject.sites import captured

IDS = torch.arange(10).reshape(2, 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_models.save(tiny_models.build("llama"), tmp_path / "tiny")


def error_of(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_subject(folder, device="cpu", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# What is loaded


def test_a_subject_is_ready_to_be_read(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    subject = load_subject(folder, device="cpu")
    assert (subject.device.type, subject.dtype) == ("cpu", "float32")
    assert not subject.model.training
    assert not any(parameter.requires_grad for parameter in subject.model.parameters())
    assert not hasattr(subject.model, "lm_head")
    assert [site.layer for site in subject.sites] == [0, 1, 2]
    assert capfd.readouterr() == ("", "")  # no progress bars, no advice


def test_a_half_precision_checkpoint_is_read_in_float32_on_a_cpu(tmp_path: Path) -> None:
    model = tiny_models.build("gpt2").to(torch.float16)
    folder = tiny_models.save(model, tmp_path / "half")

    def dtypes(dtype: str | None) -> set[torch.dtype]:
        subject = load_subject(folder, device="cpu", dtype=dtype)
        return {parameter.dtype for parameter in subject.model.parameters()}

    assert dtypes(None) == {torch.float32}
    assert dtypes("float16") == {torch.float16}
    assert dtypes("bfloat16") == {torch.bfloat16}
    loaded = load_subject(folder, device="cpu").model.state_dict()["h.1.mlp.c_fc.weight"]
    assert torch.equal(loaded, model.transformer.h[1].mlp.c_fc.weight.float())


def test_the_dtype_is_the_checkpoints_own_on_cuda(folder: Path) -> None:
    change(folder / "config.json", dtype="bfloat16")
    assert pick_dtype(None, torch.device("cuda"), folder) == "bfloat16"
    assert pick_dtype(None, torch.device("cpu"), folder) == "float32"
    assert pick_dtype("float16", torch.device("cuda"), folder) == "float16"
    with pytest.raises(UsageError, match="the dtype 'int8'"):
        pick_dtype("int8", torch.device("cpu"), folder)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ModelError, match="no cuda"):
        pick_device("cuda:1")
    with pytest.raises(UsageError, match="no device is called 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"


def test_of_a_multimodal_model_the_text_model_is_loaded(tmp_path: Path) -> None:
    text = tiny_models.FAMILIES["gemma3_text"]
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    folder = tiny_models.save(model, tmp_path / "gemma3")

    subject = load_subject(folder, device="cpu")

    assert type(subject.model).__name__ == "Gemma3TextModel"
    assert [site.width for site in subject.sites] == [tiny_models.NEURONS] * tiny_models.LAYERS
    found: dict[int, torch.Tensor] = {}
    with captured(subject.model, subject.sites, lambda layer, a: found.update({layer: a})) as run:
        run(IDS)
    wanted: list[torch.Tensor] = []
    down = model.model.language_model.layers[2].mlp.down_proj
    down.register_forward_pre_hook(lambda module, inputs: wanted.append(inputs[0]))
    with torch.inference_mode():
        model(input_ids=IDS)
    torch.testing.assert_close(found[2], wanted[0])


def test_a_module_may_be_named_by_hand(folder: Path) -> None:
    subject = load_subject(folder, device="cpu", module="model.layers.{layer}.self_attn.o_proj")
    assert [site.name for site in subject.sites] == [f"layers.{n}.self_attn.o_proj" for n in range(3)]


# What cannot be loaded


def test_pickles_are_loaded_only_where_they_are_allowed(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    error = error_of(folder)
    assert "the weights are pickles (*.bin), which can run code" in error and "--allow-pickle" in error

    loaded = load_subject(folder, device="cpu", allow_pickle=True).model.state_dict()
    assert torch.equal(loaded["norm.weight"], weights["model.norm.weight"])


def test_a_pickle_that_runs_code_is_refused_even_then(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "trapped",))

    torch.save({"model.norm.weight": Trap()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    error_of(folder, allow_pickle=True)
    assert not (tmp_path / "trapped").exists()


def test_missing_weights_are_never_made_up(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({k: v for k, v in weights.items() if "layers.1.mlp" not in k}, file, metadata={"format": "pt"})
    assert "no weights that fit layers.1.mlp.down_proj.weight and 2 more" in error_of(folder)


def test_weights_of_another_shape_are_an_error(folder: Path) -> None:
    change(folder / "config.json", intermediate_size=44)
    assert str(folder) in error_of(folder)


def test_a_damaged_file_is_an_error(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "transformers cannot load it" in error_of(folder)


def test_an_encoder_is_no_subject(tmp_path: Path) -> None:
    config = transformers.T5Config(
        vocab_size=300, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert "has an encoder" in error_of(tmp_path)


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer(folder)


# Code that comes with a model

OWN_CODE = """
from transformers import LlamaConfig, LlamaModel

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaModel):
    config_class = OwnConfig
"""


def test_code_of_a_model_runs_only_when_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = folder.parent / "modules"
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(modules))
    monkeypatch.syspath_prepend(str(modules))
    (folder / "own.py").write_text(OWN_CODE)
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    change(folder / "config.json", model_type="own", auto_map=auto_map)

    assert "needs code of its own (--trust-remote-code" in error_of(folder)

    module = "model.layers.{layer}.mlp.down_proj"
    subject = load_subject(folder, device="cpu", module=module, trust_remote_code=True)
    assert type(subject.model).__name__ == "OwnModel"
    assert [site.width for site in subject.sites] == [40, 40, 40]


# The token in front


def test_a_loaded_tokenizer_reads_and_writes(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(tokenizer.encode("the cat\tsat é")) == "the cat\tsat é"


@pytest.mark.parametrize(
    ("bos", "eos", "auto"), [(False, False, None), (True, False, 0), (False, True, None), (True, True, 0)]
)
def test_auto_is_what_the_tokenizer_itself_puts_in_front(bos: bool, eos: bool, auto: int | None) -> None:
    tokenizer = tiny_models.tokenizer(bos=bos, eos=eos)
    assert bos_id(tokenizer) == auto
    assert bos_id(tokenizer, "always") == 0
    assert bos_id(tokenizer, "never") is None


def test_always_needs_a_bos_token() -> None:
    tokenizer = tiny_models.tokenizer()
    tokenizer.bos_token = None
    assert bos_id(tokenizer) is None
    with pytest.raises(ModelError, match="has no BOS token"):
        bos_id(tokenizer, "always")


def test_several_tokens_in_front_are_an_error() -> None:
    tokenizer = tiny_models.tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> <|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    with pytest.raises(ModelError, match="begins with several tokens"):
        bos_id(tokenizer)
