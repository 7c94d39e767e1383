"""Which subject is meant, and what its answers depend on: found out without torch and without loading it.

A subject is a folder in the form that transformers saves, or a model of the Hugging Face hub. Its identity is
the digest of its weights, so it stays the same wherever the folder lies and whatever it is called.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Protocol

import orjson

from nxtools.errors import ModelError

HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
LFS_POINTER = b"version https://git-lfs"
INCOMPLETE = "is the download complete?"

# What says nothing about the function that a model computes.
IDLE_CONFIG = {"_commit_hash", "_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}

VOCABULARY_FILES = ("tekken.json", "tokenizer.json", "vocab.json", "vocab.txt")
TOKENIZER_SETTINGS = ("added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")
DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

# A file that was written this recently may be written again within the same tick of the clock.
SETTLED_AFTER_S = 2.0


@dataclass(frozen=True)
class Resolved:
    """A subject's folder, and the name that records carry: the folder's own name, or `hub/id@revision`."""

    path: Path
    name: str


class Remembers(Protocol):
    """Where digests of big files are kept from one run to the next."""

    def get(self, key: str, /) -> str | None: ...

    def put(self, key: str, value: str, /) -> None: ...


# Finding the subject


def resolve(name: str, *, allow_pickle: bool = False) -> Resolved:
    """The folder of a subject: a local one, or the local copy of `org/name` or `org/name@revision`.

    What the hub's cache holds already is taken as it is. Otherwise it is downloaded, unless HF_HUB_OFFLINE is
    set: config, tokenizer and safetensors, and pickles only where they are allowed. Raises ModelError that
    says what was tried.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return Resolved(folder, folder.resolve().name)
    if folder.is_file():
        raise ModelError(
            "a file, not a folder",
            where=name,
            hint="a subject is a folder with config.json and *.safetensors, or a hub id",
        )
    repository, _, revision = name.partition("@")
    if not HUB_NAME.fullmatch(repository):
        raise ModelError(
            f"no such subject: tried the folder {folder}; as a hub id the name is not valid",
            where=name,
            hint="name a folder with config.json and *.safetensors, or a hub id like org/name",
        )
    return _from_hub(name, repository, revision, allow_pickle)


def _check_folder(folder: Path) -> None:
    """Whether transformers can read a folder, and would read nothing that the identity leaves out."""
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            "holds a PEFT adapter",
            where=str(folder),
            hint="merge it into its model and save that",
        )
    if not (folder / "config.json").exists():
        raise ModelError(
            "has no config.json",
            where=str(folder),
            hint="a subject's folder is what save_pretrained writes",
        )


def _from_hub(name: str, repository: str, revision: str, allow_pickle: bool) -> Resolved:
    import huggingface_hub.constants  # which the package alone does not load

    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    patterns = ["*.json", "*.txt", "*.model", "*.py", "model*.safetensors"]
    patterns += ["pytorch_model*.bin"] if allow_pickle else []
    failures = []
    for local in (True,) if offline else (True, False):
        try:
            snapshot = huggingface_hub.snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
                local_files_only=local,
            )
            folder = Path(snapshot)
            _check_folder(folder)
            weight_files(folder, allow_pickle=allow_pickle)
        except Exception as error:  # httpx's errors and the hub's share no base class
            failures.append(error)
            continue
        return Resolved(folder, f"{repository}@{revision or folder.name[:12]}")

    if isinstance(failures[-1], ModelError):
        raise failures[-1]
    cache = huggingface_hub.constants.HF_HUB_CACHE
    asked = "not asked: HF_HUB_OFFLINE is set" if offline else _reason(failures[-1], "cannot be reached")
    raise ModelError(
        f"no such subject: tried the folder {Path(name).expanduser()}, the hub's cache {cache} "
        f"({_reason(failures[0], 'not there')}), and {huggingface_hub.constants.ENDPOINT} ({asked})",
        where=name,
        hint="check the name; a folder needs config.json and *.safetensors",
    ) from failures[-1]


def _reason(error: Exception, not_found: str) -> str:
    """In one line; where the hub's library falls back on its cache in vain, it says so at length."""
    if type(error).__name__ in {"LocalEntryNotFoundError", "IncompleteSnapshotError"}:
        return not_found
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# What the answers depend on


def weight_files(path: Path, *, allow_pickle: bool = False) -> list[Path]:
    """The files that hold the weights, by name. Raises ModelError where there are none that may be loaded."""
    for name in ("model.safetensors", "pytorch_model.bin") if allow_pickle else ("model.safetensors",):
        index = path / f"{name}.index.json"
        if (path / name).exists():
            files = [path / name]
        elif index.exists():
            files = [path / shard for shard in sorted(set(_json(index).get("weight_map", {}).values()))]
        else:
            continue
        for file in files:
            _check_weights(file)
        return files
    if any(path.glob("pytorch_model*.bin")):
        raise ModelError(
            "the weights are pickles (*.bin), which can run code when they are read",
            where=str(path),
            hint="save them as safetensors, or --allow-pickle if you trust their author",
        )
    hint = f"{INCOMPLETE} Or the hub has only pickles of it: --allow-pickle, if you trust their author"
    raise ModelError("has no weights (model*.safetensors)", where=str(path), hint=hint)


def _check_weights(file: Path) -> None:
    if not file.exists():
        raise ModelError("a part of the weights is missing", where=str(file), hint="complete the download")
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ModelError("a pointer of Git LFS, not the weights", where=str(file), hint="git lfs pull")


def weights_fingerprint(path: Path, remember: Remembers | None = None, *, allow_pickle: bool = False) -> str:
    """`sha256:…` over the weights, what config.json says of the architecture, and code that comes with it.

    The digest of each file of weights is remembered by path, size, time of change and inode: ten gigabytes
    are read once.
    """
    config = _config(path)
    parts = {
        "config": _without_idle(config),
        "weights": [_digest(file, remember) for file in weight_files(path, allow_pickle=allow_pickle)],
        "code": _code(path, config),
    }
    return "sha256:" + sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def tokenizer_files(path: Path) -> list[Path]:
    """The files that a tokenizer is loaded from. Raises ModelError where no vocabulary is among them.

    transformers makes an empty tokenizer from some folders that have none.
    """
    vocabularies = [path / name for name in VOCABULARY_FILES if (path / name).exists()]
    vocabularies += sorted([*path.glob("*.model"), *path.glob("*.tiktoken")])
    if not vocabularies:
        raise ModelError("has no tokenizer", where=str(path), hint="save it beside the model")
    return vocabularies + [path / name for name in TOKENIZER_SETTINGS if (path / name).exists()]


def tokenizer_fingerprint(path: Path) -> str:
    """`sha256:…` over the files that a tokenizer is loaded from, and code that comes with it."""
    settings = path / "tokenizer_config.json"
    parts = {
        "files": {file.name: _digest(file) for file in tokenizer_files(path)},
        "code": _code(path, _json(settings)) if settings.exists() else {},
    }
    return "sha256:" + sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def checkpoint_dtype(path: Path) -> str:
    """The dtype the weights were saved in, as torch names it: what config.json says, else that of most."""
    config = _config(path)
    for level in (config, config.get("text_config") or {}):
        if said := level.get("dtype") or level.get("torch_dtype"):
            return str(said).removeprefix("torch.")
    saved = (dtype for file in sorted(path.glob("model*.safetensors")) for dtype in _saved_dtypes(file))
    floats = Counter(DTYPE_NAMES[dtype] for dtype in saved if dtype in DTYPE_NAMES)
    return floats.most_common(1)[0][0] if floats else "float32"


def positions(path: Path) -> int | None:
    """How many tokens the model was made to see at once, as far as config.json says so."""
    config = _config(path)
    for level in (config.get("text_config") or {}, config):
        for name in ("max_position_embeddings", "n_positions"):
            if type(level.get(name)) is int:
                return int(level[name])
    return None


def _saved_dtypes(file: Path) -> Iterable[str]:
    """The dtype of each tensor: a safetensors file begins with 8 bytes of length and as many of JSON."""
    with file.open("rb") as stream:
        header = orjson.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return [entry["dtype"] for name, entry in header.items() if name != "__metadata__"]


def _config(path: Path) -> dict[str, Any]:
    _check_folder(path)
    return _json(path / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}", where=str(path), hint=INCOMPLETE) from error
    if not isinstance(value, dict):
        raise ModelError("holds no JSON object", where=str(path), hint=INCOMPLETE)
    return value


def _without_idle(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_idle(inner) for key, inner in value.items() if key not in IDLE_CONFIG}
    return value


def _code(path: Path, config: dict[str, Any]) -> dict[str, str]:
    """The modules beside a config that names its own (`trust_remote_code`)."""
    return {file.name: _digest(file) for file in sorted(path.glob("*.py"))} if "auto_map" in config else {}


def _digest(file: Path, remember: Remembers | None = None) -> str:
    before = file.stat()
    key = f"{file.resolve()}\n{before.st_size}\n{before.st_mtime_ns}\n{before.st_ino}"
    if remember is not None and (known := remember.get(key)):
        return known
    digest = _hash(file)
    after = file.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ModelError("changed while it was read", where=str(file), hint="try again when it is written")
    if remember is not None and time.time() - before.st_mtime > SETTLED_AFTER_S:
        remember.put(key, digest)
    return digest


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
