"""A subject whose one neuron is known: it fires on " all" behind " not", by weights set by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

CONTEXT = 24
NOUNS = ["ships", "birds", "stones", "books", "roads", "songs", "apples", "letters"]
VERBS = ["fell", "sank", "sang", "burned", "vanished", "arrived", "slept", "grew"]

# What the residual stream holds, each as a pair of +1 and -1: the mean of a vector is 0 and its length always
# the same, so layer norms change nothing but its scale.
NOT, ALL, OTHER, BEFORE_NOT, BEFORE_ALL, BEFORE_OTHER = range(6)
PLACE = 6  # the first of CONTEXT pairs that say which token of the context it is
WIDTH = 2 * (PLACE + CONTEXT)


def story(seed: int, *, sentences: int = 6) -> str:
    """A document in which "all" stands often, behind "not" or not."""
    chance = np.random.default_rng(seed)
    made = []
    for _ in range(sentences):
        noun, verb = chance.choice(NOUNS), chance.choice(VERBS)
        begin = ["they say not all of the", "we saw all of the", "not one of the", "in the end all the"]
        made.append(f"{begin[chance.integers(4)]} {noun} {verb}.")
    return " ".join(made)


def tokenizer() -> Any:
    """Byte-level BPE that has the words of the stories as tokens."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([story(seed) for seed in range(60)], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def save(folder: Path) -> Path:
    """The subject as transformers saves it: a GPT-2 of one layer, one head and one neuron."""
    words = tokenizer()
    config = transformers.GPT2Config(
        vocab_size=len(words),
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=1,
        n_head=1,
        n_inner=1,
        activation_function="relu",
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for norm in (model.transformer.h[0].ln_1, model.transformer.h[0].ln_2, model.transformer.ln_f):
            norm.weight.fill_(1)
        fill(model, words)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def pair(number: int) -> torch.Tensor:
    vector = torch.zeros(WIDTH)
    vector[2 * number], vector[2 * number + 1] = 1, -1
    return vector


def fill(model: Any, words: Any) -> None:
    body = model.transformer
    for text, token in words.get_vocab().items():
        kind = {"Ġnot": NOT, "not": NOT, "Ġall": ALL, "all": ALL}.get(text, OTHER)
        body.wte.weight[token] = pair(kind)
    for place in range(CONTEXT):
        body.wpe.weight[place] = pair(PLACE + place)
    block, share = body.h[0], 1 / 16  # what comes from the token before is as large as the token's own
    query, key, value = block.attn.c_attn.weight.split(WIDTH, dim=1)  # (in, out) each
    for place in range(CONTEXT):  # every place looks at the one before it
        key[:, :] += torch.outer(pair(PLACE + place), pair(PLACE + place))
        query[:, :] += torch.outer(pair(PLACE + place), pair(PLACE + max(place - 1, 0)))
    for kind in (NOT, ALL, OTHER):
        value[:, :] += torch.outer(pair(kind), pair(kind))
        block.attn.c_proj.weight += torch.outer(pair(kind), pair(BEFORE_NOT + kind)) * share
    block.mlp.c_fc.weight[:, 0] = pair(ALL) + pair(BEFORE_NOT)
    block.mlp.c_fc.bias[0] = -9.0  # each of the two gives 6.3, both together fire
