"""Train the sample subject, a GPT-2 of a million parameters, on the documentation of the Python at hand.

    python samples/train.py --out samples/pydoc-1m
    python samples/train.py --out /tmp/sparse --activation topk --keep 32

The model learns from four fifths of the documents. At the end its loss on the other fifth is printed, in nats
per token, beside those of a unigram and a bigram model fitted on the same training tokens. The schedule is
fixed in advance and nothing is chosen by looking at the held-out documents; `--validate` puts a tenth of the
*training* documents in their place, for trying settings out. Same seed, Python, libraries, machine and number
of threads: same weights.
"""

import argparse
import math
import shutil
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from modeling_topk import TopKGPT2LMHeadModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from nxtools.subject.pydoc import documents

END = "<|endoftext|>"  # stands in front of every document
VOCABULARY, CONTEXT, LAYERS, WIDTH, HEADS = 2000, 128, 4, 128, 4
BATCH, WARM_UP = 16, 100


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and its tokenizer")
    parser.add_argument("--activation", choices=["gelu", "relu", "topk"], default="gelu")
    parser.add_argument("--keep", type=int, default=32, help="activations per token that topk keeps (of 512)")
    parser.add_argument("--steps", type=int, default=5000, help=f"of {BATCH} x {CONTEXT} tokens")
    parser.add_argument("--lr", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validate", action="store_true", help="measure on training documents set aside")
    return parser.parse_args(arguments)


# -- text and tokens


def read_documents(validate: bool) -> tuple[list[str], list[str]]:
    """Texts to learn from, texts to measure on."""
    if not validate:
        return [text for _, text in documents("train")], [text for _, text in documents("held-out")]
    learn, measure = [], []
    for name, text in documents("train"):
        set_aside = sha256(b"validation " + name.encode()).digest()[0] < 26  # a tenth of 256
        (measure if set_aside else learn).append(text)
    return learn, measure


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2's: any text comes back exactly, and there are no unknown tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END,
        eos_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def to_tokens(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """All documents as one row of ids, END in front of each: (tokens,) int64."""
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return np.concatenate([[tokenizer.bos_token_id, *ids] for ids in encoded]).astype(np.int64)


def without_seen_paragraphs(texts: list[str], seen: list[str]) -> list[str]:
    """Topics of the reference quote each other: what is left when every seen paragraph is cut out."""
    paragraphs = {paragraph.strip() for text in seen for paragraph in text.split("\n\n")}
    kept = ["\n\n".join(p for p in text.split("\n\n") if p.strip() not in paragraphs) for text in texts]
    return [text for text in kept if text.strip()]


# -- losses, in nats per token; the first token has nothing in front of it and is not predicted


def unigram(train: np.ndarray, vocabulary: int = VOCABULARY) -> np.ndarray:
    """Add-one smoothed share of each token: (vocabulary,)."""
    return (np.bincount(train, minlength=vocabulary) + 1) / (len(train) + vocabulary)


def bigram(train: np.ndarray, vocabulary: int = VOCABULARY) -> np.ndarray:
    """P(next | token), backed by the unigram as Witten and Bell do: (token, next).

    (c + d * unigram) / (sum of c + d), with c the pair counts and d how many different tokens follow.
    """
    pairs = np.zeros((vocabulary, vocabulary))
    np.add.at(pairs, (train[:-1], train[1:]), 1)
    followers = np.maximum((pairs > 0).sum(1, keepdims=True), 1)
    return (pairs + followers * unigram(train, vocabulary)) / (pairs.sum(1, keepdims=True) + followers)


def unigram_loss(train: np.ndarray, test: np.ndarray) -> float:
    return float(-np.log(unigram(train)[test[1:]]).mean())


def bigram_loss(train: np.ndarray, test: np.ndarray) -> float:
    return float(-np.log(bigram(train)[test[:-1], test[1:]]).mean())


@torch.no_grad()
def model_loss(model: GPT2LMHeadModel, test: np.ndarray) -> float:
    """Every token but the first is predicted once, in windows side by side: from 64 others on average."""
    model.eval()
    ids = torch.from_numpy(test)
    total = 0.0
    for start in range(0, len(ids) - 1, BATCH * CONTEXT):
        chunk = ids[start : start + BATCH * CONTEXT + 1]
        whole = (len(chunk) - 1) // CONTEXT * CONTEXT
        for x, y in (
            (chunk[:whole].view(-1, CONTEXT), chunk[1 : whole + 1].view(-1, CONTEXT)),  # (windows, CONTEXT)
            (chunk[whole:-1][None], chunk[whole + 1 :][None]),  # what is left of the text at its end
        ):
            if x.numel():
                total += F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten(), reduction="sum").item()
    return total / (len(ids) - 1)


# -- the model


def build_model(
    activation: str, keep: int, dropout: float, tokenizer: PreTrainedTokenizerFast
) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        activation_function={"gelu": "gelu_new", "relu": "relu", "topk": f"relu_top{keep}"}[activation],
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=0.0,  # with it, CPUs have no fused attention and a step takes a third longer
        initializer_range=0.06,  # GPT-2's 0.02 is for widths of 768 and more
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    if activation != "topk":
        return GPT2LMHeadModel(config)
    config.auto_map = {
        "AutoModel": "modeling_topk.TopKGPT2Model",
        "AutoModelForCausalLM": "modeling_topk.TopKGPT2LMHeadModel",
    }
    return TopKGPT2LMHeadModel(config)


def train_model(model: GPT2LMHeadModel, train: np.ndarray, steps: int, peak: float, seed: int) -> None:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        fused=True,
    )
    ids = torch.from_numpy(train)
    draw = torch.Generator().manual_seed(seed)
    model.train()
    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        starts = torch.randint(len(ids) - CONTEXT, (BATCH, 1), generator=draw)
        windows = ids[starts + torch.arange(CONTEXT + 1)]  # (BATCH, CONTEXT + 1)
        loss = F.cross_entropy(model(windows[:, :-1]).logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            print(
                f"step {step + 1:5}  training loss {loss.item():.3f}  {time.monotonic() - started:6.0f} s",
                flush=True,
            )


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to a twentieth."""
    done = max(0.0, (step - WARM_UP) / max(1, steps - WARM_UP))
    return peak * min(1.0, (step + 1) / WARM_UP) * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """In half precision; the model keeps the rounded weights, so that what is measured is what was saved."""
    model.half().save_pretrained(folder)
    model.float()
    if isinstance(model, TopKGPT2LMHeadModel):
        shutil.copy(Path(__file__).with_name("modeling_topk.py"), folder)
    tokenizer.save_pretrained(folder)
    # transformers 5 writes a class name that version 4 does not know; both know this one.
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    torch.manual_seed(chosen.seed)
    learn, measure = read_documents(chosen.validate)
    tokenizer = train_tokenizer(learn)
    train, test = to_tokens(learn, tokenizer), to_tokens(measure, tokenizer)
    fresh = to_tokens(without_seen_paragraphs(measure, learn), tokenizer)
    model = build_model(chosen.activation, chosen.keep, chosen.dropout, tokenizer)
    print(f"{model.num_parameters():,} parameters, vocabulary of {len(tokenizer):,}")
    print(f"{len(train):,} tokens of {len(learn)} documents to learn from")
    print(f"{len(test):,} tokens of {len(measure)} documents to measure on")

    train_model(model, train, chosen.steps, chosen.lr, chosen.seed)

    save(model, tokenizer, chosen.out)
    print("\n| nats per token | all of it | paragraphs not in the training text |\n|---|---|---|")
    for name, loss in (("unigram", unigram_loss), ("bigram", bigram_loss)):
        print(f"| {name} | {loss(train, test):.3f} | {loss(train, fresh):.3f} |")
    print(f"| this model | {model_loss(model, test):.3f} | {model_loss(model, fresh):.3f} |")
    print(f"| this model, on its training text | {model_loss(model, train):.3f} | |")


if __name__ == "__main__":
    main()
