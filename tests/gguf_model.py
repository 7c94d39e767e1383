"""Real models with random weights in the Llama shape, written for both runtimes from the same numbers.

    python tests/gguf_model.py model.gguf           a file for llama.cpp, with the sample subject's tokenizer

llama.cpp reads a GGUF file, transformers a folder: what one says of a prompt, the other must say as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, normalizers

SAMPLE = Path(__file__).parent.parent / "samples" / "pydoc-1m"
CHAT = (
    "{% for message in messages %}<|endoftext|>{{ message['role'] }}\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|endoftext|>assistant\n{% endif %}"
)

Weights = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Shape:
    """A small Llama; `thirty_million` is the one that is measured."""

    layers: int = 2
    width: int = 64
    heads: int = 4
    neurons: int = 128
    context: int = 8192


THIRTY_MILLION = Shape(layers=8, width=512, heads=8, neurons=1536, context=32768)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as both runtimes can read it: `json` is that of tokenizers, the rest goes into the GGUF."""

    kind: str
    json: str
    tokens: list[str]
    types: list[int]
    special: dict[str, int]
    merges: Sequence[str] = ()
    scores: Sequence[float] = ()
    begins: bool = False  # whether the tokenizer puts <s> in front of a text


def byte_level() -> Vocabulary:
    """The sample subject's: byte-level BPE of 2,000 tokens, "10" is one of them."""
    text = (SAMPLE / "tokenizer.json").read_text(encoding="utf-8")
    model = json.loads(text)["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return Vocabulary(
        kind="gpt2",
        json=text,
        tokens=tokens,
        types=[gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (len(tokens) - 1)],
        special={"bos": 0, "eos": 0},
        merges=[" ".join(pair) for pair in model["merges"]],
    )


MERGES = (
    "▁t th he ▁th ▁the an ▁a ▁an nd ▁and in ing un kn kno now unkno own wn know unknow unknown ▁▁ ▁c at ▁cat"
)


def sentencepiece(more: str = "") -> Vocabulary:
    """What Llama 2 has in small: ▁ in front of a text, bytes for what it does not know, digits one by one.

    more: further tokens, each made of two others.
    """
    specials = ["<unk>", "<s>", "</s>"]
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["▁", *map(chr, range(33, 127))]
    pieces: list[str] = []
    pairs: list[tuple[str, str]] = []
    for piece in (MERGES + " " + more).split():
        known = [*letters, *pieces]
        splits = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        made = [pair for pair in splits if pair[0] in known and pair[1] in known]
        pairs += made
        pieces += [piece] if made else []
    tokens = [*specials, *data, *letters, *pieces]
    backend = tokenizers.Tokenizer(
        models.BPE(
            {token: number for number, token in enumerate(tokens)},
            pairs,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(specials)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    kinds = gguf.TokenType
    return Vocabulary(
        kind="llama",
        json=backend.to_str(),
        tokens=tokens,
        types=[kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
        + [kinds.NORMAL] * (len(letters) + len(pieces)),
        special={"unk": 0, "bos": 1, "eos": 2},
        scores=[0.0] * 259 + [-1e6] * len(letters) + [-float(rank) for rank in range(len(pieces))],
        begins=True,
    )


def random_weights(shape: Shape, vocabulary: Vocabulary, seed: int = 0) -> Weights:
    """By transformers' names; large enough that logits differ by whole units from token to token."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> npt.NDArray[np.float32]:
        return (random.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    width, size = shape.width, len(vocabulary.tokens)
    weights = {
        "model.embed_tokens.weight": matrix(size, width, np.sqrt(width)),
        "model.norm.weight": np.ones(width, np.float32),
        "lm_head.weight": matrix(size, width, 2.0),
    }
    for layer in range(shape.layers):
        block = f"model.layers.{layer}"
        weights |= {
            f"{block}.self_attn.q_proj.weight": matrix(width, width, 1.5),
            f"{block}.self_attn.k_proj.weight": matrix(width, width, 1.5),
            f"{block}.self_attn.v_proj.weight": matrix(width, width),
            f"{block}.self_attn.o_proj.weight": matrix(width, width),
            f"{block}.mlp.gate_proj.weight": matrix(shape.neurons, width),
            f"{block}.mlp.up_proj.weight": matrix(shape.neurons, width),
            f"{block}.mlp.down_proj.weight": matrix(width, shape.neurons),
            f"{block}.input_layernorm.weight": np.ones(width, np.float32),
            f"{block}.post_attention_layernorm.weight": np.ones(width, np.float32),
        }
    return weights


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def write_gguf(
    path: Path,
    shape: Shape = Shape(),
    vocabulary: Vocabulary | None = None,
    *,
    seed: int = 0,
    half: bool = False,
    chat: str | None = None,
) -> Path:
    """A GGUF file. `half` stores the matrices as float16; `chat` is a chat template."""
    vocabulary = vocabulary or byte_level()
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(shape.context)
    out.add_embedding_length(shape.width)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.neurons)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(shape.width // shape.heads)
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(len(vocabulary.tokens))
    _add_vocabulary(out, vocabulary)
    if chat:
        out.add_chat_template(chat)
    for name, value in random_weights(shape, vocabulary, seed).items():
        if "q_proj" in name or "k_proj" in name:
            value = _interleaved(value, shape.heads)
        value = value.astype(np.float16) if half and value.ndim == 2 else value
        out.add_tensor(_gguf_name(name), np.ascontiguousarray(value))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def _add_vocabulary(out: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    out.add_tokenizer_model(vocabulary.kind)
    if vocabulary.kind == "gpt2":
        out.add_tokenizer_pre("gpt-2")
        out.add_token_merges(vocabulary.merges)
    else:
        out.add_token_scores(vocabulary.scores)
        out.add_add_space_prefix(True)
    out.add_token_list(vocabulary.tokens)
    out.add_token_types(vocabulary.types)
    out.add_bos_token_id(vocabulary.special["bos"])
    out.add_eos_token_id(vocabulary.special["eos"])
    out.add_add_bos_token(vocabulary.begins)


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        layer, _, part = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{GGUF_NAMES[part]}.weight"
    return f"{GGUF_NAMES[stem]}.weight"


def _interleaved(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """transformers turns the halves of a head against each other, llama.cpp neighbouring rows."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write_folder(
    folder: Path,
    shape: Shape = Shape(),
    vocabulary: Vocabulary | None = None,
    *,
    seed: int = 0,
    chat: str | None = None,
) -> Path:
    """The same model as transformers saves it."""
    import torch
    import transformers

    vocabulary = vocabulary or byte_level()
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary.tokens),
        hidden_size=shape.width,
        intermediate_size=shape.neurons,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=vocabulary.special["bos"],
        eos_token_id=vocabulary.special["eos"],
    )
    with torch.device("meta"):
        model: Any = transformers.LlamaForCausalLM(config)
    state = {k: torch.from_numpy(v) for k, v in random_weights(shape, vocabulary, seed).items()}
    model.save_pretrained(folder, state_dict=state)
    names = {f"{role}_token": vocabulary.tokens[number] for role, number in vocabulary.special.items()}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(vocabulary.json), **names
    )
    if chat:
        tokenizer.chat_template = chat
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    write_gguf(Path(sys.argv[1]))
