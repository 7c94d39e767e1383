"""Tiny models with random weights, one of each family, as the folders that a user would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

WIDTH, NEURONS, LAYERS, VOCABULARY = 16, 40, 3, 300

COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
LLAMA_LIKE = COMMON | {
    "hidden_size": WIDTH,
    "intermediate_size": NEURONS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
GPT2_LIKE = COMMON | {
    "n_embd": WIDTH,
    "n_inner": NEURONS,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.3,
}
GEMMA_LIKE = LLAMA_LIKE | {"head_dim": 4}

# Settings by `model_type`, small enough to run in milliseconds.
FAMILIES: dict[str, dict[str, Any]] = {
    "falcon": COMMON
    | {
        "hidden_size": WIDTH,
        "ffn_hidden_size": NEURONS,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
    },
    "gemma": GEMMA_LIKE,
    "gemma2": GEMMA_LIKE | {"query_pre_attn_scalar": 4, "sliding_window": 8},
    "gemma3_text": GEMMA_LIKE | {"query_pre_attn_scalar": 4, "sliding_window": 8},
    "gpt2": GPT2_LIKE,
    "gpt_bigcode": GPT2_LIKE,
    "gpt_neo": COMMON
    | {
        "hidden_size": WIDTH,
        "intermediate_size": NEURONS,
        "num_layers": LAYERS,
        "num_heads": 4,
        "attention_types": [[["global", "local", "global"], 1]],
        "window_size": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    },
    "gpt_neox": LLAMA_LIKE,
    "gptj": GPT2_LIKE | {"rotary_dim": 2},
    "llama": LLAMA_LIKE,
    "mistral": LLAMA_LIKE | {"sliding_window": 8},
    "olmo2": LLAMA_LIKE,
    "opt": COMMON
    | {
        "hidden_size": WIDTH,
        "ffn_dim": NEURONS,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": WIDTH,
        "init_std": 0.3,
        "pad_token_id": 1,
    },
    "phi": LLAMA_LIKE,
    "phi3": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE | {"head_dim": 4},
    "smollm3": LLAMA_LIKE,
    "starcoder2": LLAMA_LIKE,
}


def build(model_type: str, *, seed: int = 0, **changes: Any) -> Any:
    """The model with its unembedding. Settings that are not given are those of the family, if it is here."""
    config = transformers.AutoConfig.for_model(model_type, **(FAMILIES.get(model_type, {}) | changes))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def save(model: Any, folder: Path) -> Path:
    """A folder as `save_pretrained` leaves it, with a tokenizer beside the model."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def stories(folder: Path, documents: int) -> Path:
    """A file of so many documents of sixty words each."""
    chance = np.random.default_rng(0)
    words = ["the", "cat", "sat", "on", "mat", "and", "dog", "a", "red", "house", "under", "sun"]
    file = folder / "stories.txt"
    file.write_text("\n\n".join(" ".join(chance.choice(words, 60).tolist()) for _ in range(documents)))
    return file


def tokenizer(bos: bool = False, eos: bool = False) -> Any:
    """Byte-level BPE of 300 tokens whose 0 is `<|endoftext|>`, put before and behind a text if asked."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the cat sat on the mat, and the dog sat on the cat"] * 2, trainer)
    ends = ["<|endoftext|>"]
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join(ends * bos + ["$A"] + ends * eos), special_tokens=[("<|endoftext|>", 0)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
