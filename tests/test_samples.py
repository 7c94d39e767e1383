"""The sample subject and the fixed text: what the demo, the documentation and other tests build on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nxtools.subject.pydoc import documents

SAMPLES = Path(__file__).parents[1] / "samples"
SUBJECT = SAMPLES / "pydoc-1m"


@pytest.fixture(scope="module")
def train() -> Iterator[Any]:
    """samples/train.py as a module."""
    sys.path.insert(0, str(SAMPLES))
    import train

    yield train
    sys.path.remove(str(SAMPLES))


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(SUBJECT)


@pytest.fixture(scope="module")
def subject() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(SUBJECT, dtype=torch.float32)


def test_it_is_a_plain_gpt2_of_a_million_parameters(subject: Any, tokenizer: Any) -> None:
    import torch
    from transformers import GPT2LMHeadModel

    assert type(subject) is GPT2LMHeadModel
    assert subject.dtype == torch.float32
    assert 0.9e6 < subject.num_parameters() < 1.2e6
    assert subject.config.n_layer == 4
    assert subject.config.activation_function == "gelu_new"
    assert subject.transformer.h[0].mlp.c_proj.weight.shape == (512, 128)  # 4 x 512 neurons
    assert subject.get_input_embeddings().weight.shape == (len(tokenizer), 128)


def test_it_is_small_enough_to_be_cloned_without_a_thought() -> None:
    assert sum(file.stat().st_size for file in SUBJECT.iterdir()) < 4e6


def test_its_tokens_give_any_text_back(tokenizer: Any) -> None:
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    for text in fixed_documents():
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_it_predicts_text_it_was_not_trained_on_better_than_a_bigram(
    train: Any, subject: Any, tokenizer: Any
) -> None:
    """On paragraphs of the held-out documents of this very Python that occur nowhere in the training text."""
    learned = [text for _, text in documents("train")]
    fresh = train.without_seen_paragraphs([text for _, text in documents("held-out")], learned)[::6]
    learned_ids, fresh_ids = train.to_tokens(learned, tokenizer), train.to_tokens(fresh, tokenizer)
    assert len(fresh_ids) > 5000
    bigram = train.bigram_loss(learned_ids, fresh_ids)
    assert bigram < train.unigram_loss(learned_ids, fresh_ids) - 1  # so it is no straw man
    assert train.model_loss(subject, fresh_ids) < bigram - 0.3


def test_the_loss_is_that_of_every_token_in_its_own_window(train: Any, subject: Any) -> None:
    """Against the definition: token i is predicted from its window's tokens up to i - 1."""
    import torch

    ids = np.random.default_rng(0).integers(0, 2000, 300)
    losses = []
    with torch.no_grad():
        for i in range(1, len(ids)):
            start = (i - 1) // train.CONTEXT * train.CONTEXT
            logits = subject(torch.from_numpy(ids[None, start:i])).logits[0, -1]
            losses.append(-torch.log_softmax(logits, -1)[ids[i]].item())
    assert train.model_loss(subject, ids) == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_baselines_are_distributions_by_hand(train: Any) -> None:
    ids = np.array([0, 1, 0, 1, 0, 2])
    unigram = train.unigram(ids, vocabulary=4)
    assert unigram == pytest.approx([4 / 10, 3 / 10, 2 / 10, 1 / 10])
    bigram = train.bigram(ids, vocabulary=4)
    assert bigram.sum(1) == pytest.approx([1, 1, 1, 1])
    # After 0 came 1 twice and 2 once: three pairs, two kinds.
    assert bigram[0] == pytest.approx([2 * 0.4 / 5, (2 + 2 * 0.3) / 5, (1 + 2 * 0.2) / 5, 2 * 0.1 / 5])
    assert bigram[3] == pytest.approx(unigram)  # nothing is known about what follows


@pytest.mark.parametrize(
    ("activation", "active"), [("gelu", (0.9, 1.0)), ("relu", (0.3, 0.7)), ("topk", (32 / 512,) * 2)]
)
def test_a_folder_of_any_activation_holds_the_model_that_was_trained(
    activation: str, active: tuple[float, float], train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.activations import ACT2FN

    monkeypatch.setattr(train, "BATCH", 4)
    tokenizer = train.train_tokenizer(fixed_documents())
    trained = train.build_model(activation, 32, 0.0, tokenizer)
    train.train_model(trained, train.to_tokens(fixed_documents(), tokenizer), steps=3, peak=1e-3, seed=0)
    train.save(trained.eval(), tokenizer, tmp_path)

    monkeypatch.delitem(ACT2FN, "relu_top32", raising=False)  # as in another process
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, trust_remote_code=activation == "topk"
    )
    ids = AutoTokenizer.from_pretrained(tmp_path)("The lighthouse keeper wrote", return_tensors="pt")[
        "input_ids"
    ]
    neurons: list[torch.Tensor] = []  # (batch, tokens, 512) of layer 1
    loaded.transformer.h[1].mlp.c_proj.register_forward_pre_hook(
        lambda module, given: neurons.append(given[0])
    )
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, trained(ids).logits)
    share = (neurons[0] != 0).float().mean().item()
    assert active[0] <= share <= active[1]


def test_a_topk_model_is_never_read_as_something_else(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.activations import ACT2FN

    tokenizer = train.train_tokenizer(fixed_documents())
    train.save(train.build_model("topk", 7, 0.0, tokenizer), tokenizer, tmp_path)
    monkeypatch.delitem(ACT2FN, "relu_top7")
    with pytest.raises(KeyError, match="relu_top7"):
        AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=False)


def test_the_script_says_how_good_the_model_is(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = fixed_documents()
    monkeypatch.setattr(train, "read_documents", lambda validate: (texts[:20], texts[20:]))
    train.main(["--out", str(tmp_path), "--steps", "1"])
    printed = capsys.readouterr().out
    assert "| unigram |" in printed and "| bigram |" in printed and "| this model |" in printed


def test_the_same_seed_makes_the_same_weights(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = fixed_documents()
    monkeypatch.setattr(train, "read_documents", lambda validate: (texts[:20], texts[20:]))
    for folder, seed in (("one", 1), ("again", 1), ("other", 2)):
        train.main(["--out", str(tmp_path / folder), "--steps", "2", "--seed", str(seed)])
    one, again, other = ((tmp_path / f / "model.safetensors").read_bytes() for f in ("one", "again", "other"))
    assert one == again
    assert one != other


def test_the_fixed_text_is_what_its_readme_says() -> None:
    texts = fixed_documents()
    assert len(texts) == len(set(texts)) == 26
    assert any("def " in text for text in texts)
    assert any(ord(character) > 0xFFFF for text in texts for character in text)
    paragraphs = (SAMPLES / "text" / "paragraphs.txt").read_text(encoding="utf-8").split("\n\n")
    assert len(paragraphs) == 8


def fixed_documents() -> list[str]:
    lines = (SAMPLES / "text" / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]
