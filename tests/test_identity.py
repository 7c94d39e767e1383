"""Names and fingerprints of subjects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import tiny_models
from safetensors.torch import load_file, save_file

from nxtools.errors import ModelError
from nxtools.subject import identity
from nxtools.subject.identity import (
    Resolved,
    checkpoint_dtype,
    resolve,
    tokenizer_fingerprint,
    weight_files,
    weights_fingerprint,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Memory(dict[str, str]):
    def put(self, key: str, value: str) -> None:
        self[key] = value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_models.save(tiny_models.build("llama"), tmp_path / "tiny")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read whole."""
    names: list[str] = []
    real = identity._hash

    def count(file: Path) -> str:
        names.append(file.name)
        return real(file)

    monkeypatch.setattr(identity, "_hash", count)
    return names


def error_of(function: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def age(file: Path, seconds: float = 10) -> None:
    os.utime(file, (time.time() - seconds,) * 2)


# The fingerprint of the weights


def test_a_model_keeps_its_fingerprint_when_it_is_moved_or_saved_again(folder: Path, tmp_path: Path) -> None:
    before = weights_fingerprint(folder)
    assert before.startswith("sha256:") and len(before) == 71
    assert weights_fingerprint(folder.rename(tmp_path / "moved")) == before
    assert weights_fingerprint(tiny_models.save(tiny_models.build("llama"), tmp_path / "again")) == before


def test_one_changed_weight_changes_it(folder: Path) -> None:
    before = weights_fingerprint(folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    assert weights_fingerprint(folder) != before


def test_of_the_config_only_what_matters_changes_it(folder: Path) -> None:
    before = weights_fingerprint(folder)
    change(folder / "config.json", transformers_version="0", dtype="float16", use_cache=False)
    assert weights_fingerprint(folder) == before
    change(folder / "config.json", rms_norm_eps=1e-3)
    assert weights_fingerprint(folder) != before


def test_code_that_comes_with_the_model_changes_it(folder: Path) -> None:
    (folder / "own.py").write_text("one")
    before = weights_fingerprint(folder)
    (folder / "own.py").write_text("two")
    assert weights_fingerprint(folder) == before  # nothing runs it
    change(folder / "config.json", auto_map={"AutoModel": "own.Own"})
    one = weights_fingerprint(folder)
    (folder / "own.py").write_text("three")
    assert weights_fingerprint(folder) != one


def test_a_model_in_shards_is_all_of_them(folder: Path, tmp_path: Path) -> None:
    model = tiny_models.build("llama")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = weight_files(tmp_path / "shards")
    assert len(shards) > 2 and shards == sorted(shards)
    before = weights_fingerprint(tmp_path / "shards")

    (tmp_path / "shards" / "consolidated.safetensors").write_bytes(b"another form of the same weights")
    assert weights_fingerprint(tmp_path / "shards") == before
    shards[-1].unlink()
    assert "a part of the weights is missing" in error_of(weights_fingerprint, tmp_path / "shards")


# Reading big files once


def test_a_file_is_read_once(folder: Path, hashed: list[str]) -> None:
    memory = Memory()
    file = folder / "model.safetensors"
    age(file)
    first = weights_fingerprint(folder, memory)
    assert weights_fingerprint(folder, memory) == first
    assert hashed == ["model.safetensors"]

    age(file, 100)  # written again, for all that its size says
    assert weights_fingerprint(folder, memory) == first
    assert hashed == ["model.safetensors"] * 2


def test_a_file_that_may_still_be_written_is_not_remembered(folder: Path, hashed: list[str]) -> None:
    memory = Memory()
    weights_fingerprint(folder, memory)
    weights_fingerprint(folder, memory)
    assert hashed == ["model.safetensors"] * 2 and not memory


def test_a_file_that_changes_while_it_is_read_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_hash", lambda file: file.open("ab").write(b"more") and "digest")
    assert "changed while it was read" in error_of(weights_fingerprint, folder)


# The fingerprint of the tokenizer


def test_the_tokenizer_has_a_fingerprint_of_its_own(folder: Path, tmp_path: Path) -> None:
    before = tokenizer_fingerprint(folder)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    assert tokenizer_fingerprint(folder.rename(tmp_path / "moved")) == before

    (tmp_path / "moved" / "tokenizer.model").write_bytes(b"sentencepiece")
    assert tokenizer_fingerprint(tmp_path / "moved") != before
    assert "has no tokenizer" in error_of(tokenizer_fingerprint, tmp_path)


# Weights that cannot be used


def test_pickles_count_only_where_they_are_allowed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "--allow-pickle" in error_of(weight_files, folder)
    assert weight_files(folder, allow_pickle=True) == [folder / "pytorch_model.bin"]
    assert weights_fingerprint(folder, allow_pickle=True).startswith("sha256:")


def test_a_pointer_is_no_file(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    assert "git lfs pull" in error_of(weight_files, folder)


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "has no weights" in error_of(weight_files, folder)


def test_a_config_that_is_cut(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla')
    assert "config.json: cannot be read" in error_of(weights_fingerprint, folder)
    (folder / "config.json").write_text("[]")
    assert "config.json: holds no JSON object" in error_of(weights_fingerprint, folder)


def test_the_dtype_of_a_checkpoint(folder: Path) -> None:
    config = folder / "config.json"
    change(config, dtype="bfloat16")
    assert checkpoint_dtype(folder) == "bfloat16"
    change(config, dtype=None, torch_dtype="float16")
    assert checkpoint_dtype(folder) == "float16"
    change(config, dtype=None, torch_dtype=None, text_config={"dtype": "float16"})
    assert checkpoint_dtype(folder) == "float16"
    change(config, dtype=None, torch_dtype=None, text_config=None)
    assert checkpoint_dtype(folder) == "float32"
    model = tiny_models.build("llama").bfloat16()
    save_file({"a": model.model.norm.weight.data}, folder / "model.safetensors")
    assert checkpoint_dtype(folder) == "bfloat16"


# Finding a subject


def test_a_folder_is_called_by_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(str(folder)) == Resolved(folder, "tiny")
    monkeypatch.chdir(folder)
    assert resolve(".") == Resolved(Path(), "tiny")


def test_a_folder_that_is_no_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert "holds a PEFT adapter" in error_of(resolve, str(folder))
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").unlink()
    assert "has no config.json" in error_of(resolve, str(folder))
    assert "a file, not a folder" in error_of(resolve, str(folder / "model.safetensors"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which itself cannot be reached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def keep_in_cache(hub: Path, folder: Path, repository: str, revision: str) -> Path:
    home = hub / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / revision).write_text(COMMIT)
    return shutil.copytree(folder, home / "snapshots" / COMMIT)


def test_a_hub_id_is_found_in_the_cache_of_the_hub(folder: Path, hub: Path) -> None:
    snapshot = keep_in_cache(hub, folder, "some/model", "main")
    found = resolve("some/model")
    assert found == Resolved(snapshot, f"some/model@{COMMIT[:12]}")
    assert weights_fingerprint(found.path) == weights_fingerprint(folder)


def test_a_revision_may_be_named(folder: Path, hub: Path) -> None:
    snapshot = keep_in_cache(hub, folder, "some/model", "step3000")
    assert resolve("some/model@step3000") == Resolved(snapshot, "some/model@step3000")
    assert resolve(f"some/model@{COMMIT}").path == snapshot
    with pytest.raises(ModelError, match="no such subject"):
        resolve("some/model")


def test_what_the_cache_holds_is_not_asked_for(
    folder: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_in_cache(hub, folder, "some/model", "main")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    asked: list[bool] = []
    real = huggingface_hub.snapshot_download

    def count(*arguments: Any, local_files_only: bool, **options: Any) -> str:
        asked.append(not local_files_only)
        return real(*arguments, local_files_only=local_files_only, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", count)
    resolve("some/model")
    assert asked == [False]


def test_a_snapshot_without_weights_is_completed(
    folder: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = keep_in_cache(hub, folder, "some/model", "main")
    weights = snapshot / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    assert "has no weights" in error_of(resolve, "some/model")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def download(
        repository: str, *, local_files_only: bool, allow_patterns: list[str], **options: Any
    ) -> str:
        if not local_files_only:
            weights.write_bytes(data)
        assert ("pytorch_model*.bin" in allow_patterns) == allow_pickle
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for allow_pickle in (False, True):
        assert resolve("some/model", allow_pickle=allow_pickle).path == snapshot


def test_what_was_tried_is_said(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of(resolve, "some/model")
    assert "some/model: no such subject: tried the folder some/model, the hub's cache" in error
    assert str(hub) in error and "not asked: HF_HUB_OFFLINE is set" in error

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def fail(*arguments: Any, local_files_only: bool, **options: Any) -> str:
        raise OSError("not cached" if local_files_only else "no route to host\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    error = error_of(resolve, "some/model@v1")
    assert "https://huggingface.co (no route to host)" in error and "\n" not in error

    assert "as a hub id the name is not valid" in error_of(resolve, "./no/such/folder")


def test_identity_loads_neither_torch_nor_transformers(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nxtools.subject.identity import *;"
        "found = resolve(sys.argv[1]); weights_fingerprint(found.path); tokenizer_fingerprint(found.path);"
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
