"""Loading a subject: its layers without the unembedding, and its tokenizer, through transformers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import nn

from nxtools.errors import ModelError, UsageError
from nxtools.subject.identity import checkpoint_dtype, tokenizer_files, weight_files
from nxtools.subject.sites import Site, mlp_sites

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Subject:
    """A model without its unembedding, ready to be read at its sites.

    `speaker`: with the unembedding, where it was asked for; `model` is a part of it.
    """

    model: nn.Module
    device: torch.device
    dtype: str
    sites: list[Site]
    speaker: nn.Module | None = None


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is cuda where there is one, then mps, then cpu."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"no device is called {name!r}", hint="auto, cpu, cuda or mps") from error
    if not available.get(device.type, False):
        raise ModelError(f"this machine has no {device.type} that torch can use", hint="--device cpu")
    return device


def pick_dtype(name: str | None, device: torch.device, path: Path) -> str:
    """What is asked for; else the checkpoint's own on cuda, and float32 where that is as quick."""
    if name is None:
        name = checkpoint_dtype(path) if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise UsageError(f"the dtype {name!r} cannot be used", hint="--dtype " + ", ".join(DTYPES))
    return name


def load_subject(
    path: Path,
    *,
    device: str = "auto",
    dtype: str | None = None,
    module: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    speaking: bool = False,
) -> Subject:
    """The model in a folder, in evaluation mode and without gradients; of a multimodal one, the text model.

    `speaking`: together with its unembedding.

    Weights are read from safetensors, and from pickles only where `allow_pickle` says so, and then with
    nothing but tensors in them. Raises ModelError in one line for whatever transformers cannot make of the
    folder, for weights that are missing from it, which transformers would fill with random numbers, and for
    an architecture without known sites, unless `module` names them: see `mlp_sites`.
    """
    target = pick_device(device)
    dtype = pick_dtype(dtype, target, path)
    weight_files(path, allow_pickle=allow_pickle)
    with quietly(), explained(path):
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        if config.is_encoder_decoder:
            raise ModelError("has an encoder", where=str(path), hint="a subject is a causal language model")
        auto = transformers.AutoModelForCausalLM if speaking else _auto_class(config)
        model, info = auto.from_pretrained(
            path,
            config=config,
            dtype=DTYPES[dtype],
            trust_remote_code=trust_remote_code,
            use_safetensors=None if allow_pickle else True,
            weights_only=True,
            output_loading_info=True,
        )
        lacking = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            hint = "do config.json and the weights belong together?"
            raise ModelError(f"no weights that fit {sorted(lacking)[0]}{more}", where=str(path), hint=hint)
        trunk = _text_model(model.base_model)
        whole = model if speaking else trunk
        whole.to(target).eval().requires_grad_(False)
    return Subject(trunk, target, dtype, mlp_sites(trunk, module), model if speaking else None)


def _auto_class(config: Any) -> Any:
    """Models that bring their own code often name it for the causal model alone."""
    own = getattr(config, "auto_map", None) or {}
    if "AutoModelForCausalLM" in own and "AutoModel" not in own:
        return transformers.AutoModelForCausalLM
    return transformers.AutoModel


def _text_model(model: Any) -> Any:
    return model if model.config.get_text_config() is model.config else model.get_decoder()


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a folder, as transformers' PreTrainedTokenizerBase. ModelError when there is none."""
    tokenizer_files(path)
    with quietly(), explained(path):
        return transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)


def bos_id(tokenizer: Any, policy: Literal["auto", "always", "never"] = "auto") -> int | None:
    """The token to put in front of every context, or None.

    "auto" is what the tokenizer itself puts in front of a text, "always" its BOS token. Raises ModelError
    when it has no BOS token, or puts several tokens in front.
    """
    if policy == "never":
        return None
    if policy == "always":
        if tokenizer.bos_token_id is None:
            raise ModelError("the tokenizer has no BOS token", hint="--bos auto or --bos never")
        return int(tokenizer.bos_token_id)
    front = _front(tokenizer)
    if len(front) > 1:
        names = ", ".join(tokenizer.convert_ids_to_tokens(front))
        raise ModelError(
            f"the tokenizer begins with several tokens: {names}", hint="--bos always or --bos never"
        )
    return front[0] if front else None


def _front(tokenizer: Any) -> list[int]:
    """What stands before a text's own tokens; some tokenizers put an end-of-text behind them as well."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    full = tokenizer.encode("a")
    starts = (start for start in range(len(full)) if full[start : start + len(bare)] == bare)
    return [int(token) for token in full[: next(starts)]]


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' progress bars and advice: what matters is raised."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """transformers and what it loads raise nearly any class of error about a folder that is not right."""
    try:
        yield
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            hint = "--trust-remote-code runs the code that comes with the model"
            raise ModelError("needs code of its own", where=str(path), hint=hint) from error
        if isinstance(error, torch.OutOfMemoryError):
            hint = "--dtype bfloat16 halves it, --device cpu has more"
            raise ModelError("does not fit on the device", where=str(path), hint=hint) from error
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise ModelError(f"transformers cannot load it: {reason}", where=str(path)) from error
