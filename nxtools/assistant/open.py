"""From what a user types to an assistant: `llama:FILE`, `hf:MODEL`, `openai:MODEL`.

Opening one reads no weights but for their digest, which the store remembers, and calls no server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from nxtools.errors import ModelError, UsageError

if TYPE_CHECKING:
    from nxtools.assistant.protocol import Assistant
    from nxtools.store import Store

ENGINES = ("llama", "hf", "openai")
FORMS = "llama:FILE.gguf, llama:org/repo/FILE.gguf, hf:FOLDER, hf:org/name or openai:MODEL"

HUB_FILE = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)/(?P<file>.+\.gguf)")
PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")


def open_assistant(
    spec: str, store: Store, *, base_url: str | None = None, options: Mapping[str, str] | None = None
) -> Assistant:
    """The assistant that `spec` names; `options` are those of `--with-option`, as they were typed.

    Raises UsageError for what names no assistant and for options that the engine does not have, ModelError
    for one that cannot be found or whose packages are not installed.
    """
    engine, _, name = spec.partition(":")
    if engine not in ENGINES or not name:
        raise UsageError(f"{spec!r} names no assistant", hint=FORMS)
    if base_url is not None and engine != "openai":
        raise UsageError(f"--base-url is for openai:MODEL, not for {engine}:")
    if engine == "llama":
        return _open_llama(name, store, options or {})
    if engine == "hf":
        return _open_transformers(name, store, options or {})
    return _open_api(name, base_url, options or {})


def split_options(given: Iterable[str]) -> dict[str, str]:
    """`key=value`s as they are typed. Raises UsageError."""
    options = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not key or not equals:
            raise UsageError(f"--with-option takes key=value, not {one!r}", hint="--with-option n_ctx=8192")
        options[key.strip()] = value.strip()
    return options


def _open_llama(name: str, store: Store, options: Mapping[str, str]) -> Assistant:
    _need("llama_cpp", "llama")
    from nxtools.assistant.llama import LlamaAssistant
    from nxtools.store import file_digest

    path = _gguf(name)
    digests = []
    for part in _parts(path):
        try:
            digests.append(file_digest(part, store))
        except OSError as error:
            raise ModelError(f"cannot be read: {error.strerror}", where=str(part)) from error
    return LlamaAssistant(path, "sha256:" + "+".join(digests), store, options)


def _open_transformers(name: str, store: Store, options: Mapping[str, str]) -> Assistant:
    from nxtools.assistant.transformer import TransformersAssistant
    from nxtools.store import file_digest
    from nxtools.subject.identity import resolve, tokenizer_fingerprint, weights_fingerprint

    resolved = resolve(name)
    weights = weights_fingerprint(resolved.path, _Remembered(store))
    template = resolved.path / "chat_template.jinja"
    files = [tokenizer_fingerprint(resolved.path).removeprefix("sha256:")]
    files += [file_digest(template, store)] if template.exists() else []
    digest = "+".join([weights, *files])
    return TransformersAssistant(resolved.path, resolved.name, digest, store, options)


def _open_api(name: str, base_url: str | None, options: Mapping[str, str]) -> Assistant:
    _need("openai", "api")
    from nxtools.assistant.openai_api import OpenAIAssistant

    return OpenAIAssistant(name, base_url, {key: _value(text) for key, text in options.items()})


def _value(text: str) -> Any:
    """A field of a request: JSON where it is that, otherwise text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _need(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise ModelError(f"{package} is not installed", hint=f"pip install 'nxtools[{extra}]'")


# Files of llama.cpp


def _gguf(name: str) -> Path:
    """The file of that name here, or the local copy of one on the hub, which is downloaded if need be."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ModelError("a folder, not a file", where=name, hint="name the .gguf file in it")
    match = HUB_FILE.fullmatch(name)
    if match is None:
        raise ModelError("no such file", where=name, hint=FORMS)
    first = _from_hub(name, match["repo"], match["file"])
    part = PART.fullmatch(match["file"])
    for number in range(2, int(part["parts"]) + 1 if part else 2):
        assert part is not None
        _from_hub(name, match["repo"], f"{part['stem']}-{number:05d}-of-{part['parts']}.gguf")
    return first


def _from_hub(name: str, repository: str, file: str) -> Path:
    import huggingface_hub.constants  # which the package alone does not load

    reason = ""
    for local in (True,) if huggingface_hub.constants.HF_HUB_OFFLINE else (True, False):
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file, local_files_only=local))
        except Exception as error:  # httpx's errors and the hub's share no base class
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    raise ModelError(
        f"no such file here, and the hub's {repository} did not give {file} ({reason})",
        where=name,
        hint="check the name",
    )


def _parts(path: Path) -> list[Path]:
    """All files of a model that was split into several."""
    match = PART.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["parts"])
    return [
        path.with_name(f"{match['stem']}-{number:05d}-of-{match['parts']}.gguf")
        for number in range(1, count + 1)
    ]


class _Remembered:
    """The store's small facts in the form that fingerprints ask for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: str, /) -> str | None:
        return self._store.recall(key)

    def put(self, key: str, value: str, /) -> None:
        self._store.remember(key, value)
