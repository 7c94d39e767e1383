"""llama.cpp's own calls, as few as are needed: a model, its tokenizer, and a memory that sequences share."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from nxtools.assistant.sharing import Step
from nxtools.errors import ModelError

PAD = 256  # llama.cpp rounds a memory up to this many tokens

_errors: list[str] = []


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_errors(level: int, text: bytes, _: object) -> None:
    """Instead of pages on stderr: what went wrong goes into the error that is raised."""
    if level == 4 and text:  # GGML_LOG_LEVEL_ERROR
        _errors[:] = [*_errors[-9:], text.decode("utf-8", "replace").strip()]


llama_cpp.llama_log_set(_keep_errors, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def _reason() -> str:
    return f": {_errors[0]}" if _errors else ""


def processors() -> int:
    """How many threads this process may run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether this build of llama.cpp can use one."""
    return bool(llama_cpp.llama_supports_gpu_offload())


class Model:
    """A GGUF file, or only its tokenizer. Raises ModelError where llama.cpp cannot read it."""

    def __init__(self, path: Path, *, vocabulary_only: bool = False, gpu_layers: int = -1) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = vocabulary_only
        parameters.n_gpu_layers = gpu_layers
        _errors.clear()
        self.handle: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.handle:
            raise ModelError(f"llama.cpp cannot load it{_reason()}", where=str(path))
        weakref.finalize(self, llama_cpp.llama_model_free, self.handle)
        self.vocabulary: Any = llama_cpp.llama_model_get_vocab(self.handle)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)

    def encode(self, text: str, markers: bool = False) -> list[int]:
        """Ids of a text as it stands, control tokens only read where `markers` says so."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 2
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocabulary, data, len(data), ids, room, False, markers)
        if count < 0:
            raise ModelError(f"llama.cpp cannot tokenise {text[:40]!r}")
        return list(ids[:count])

    def begin(self) -> tuple[int, ...]:
        """What the tokenizer puts in front of any text."""
        if llama_cpp.llama_vocab_get_add_bos(self.vocabulary):
            return (int(llama_cpp.llama_vocab_bos(self.vocabulary)),)
        return ()

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens in running text; control tokens are nothing."""
        return b"".join(self._piece(token, markers=False) for token in tokens).decode("utf-8", "replace")

    def special(self) -> dict[str, str]:
        """What chat templates call bos_token and eos_token."""
        ends = {
            "bos_token": llama_cpp.llama_vocab_bos(self.vocabulary),
            "eos_token": llama_cpp.llama_vocab_eos(self.vocabulary),
        }
        return {
            name: self._piece(token, markers=True).decode("utf-8", "replace") if token >= 0 else ""
            for name, token in ends.items()
        }

    def ends(self, token: int) -> bool:
        """Whether the model says with it that it is done."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocabulary, token))

    def chat_template(self) -> str | None:
        template = llama_cpp.llama_model_chat_template(self.handle, None)
        return template.decode("utf-8") if template else None

    def metadata(self, key: str) -> str | None:
        buffer = ctypes.create_string_buffer(1024)
        size = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if size >= 0 else None

    def trained_context(self) -> int:
        """How many tokens the model was made for."""
        return int(self.metadata(f"{self.metadata('general.architecture')}.context_length") or 0)

    def _piece(self, token: int, *, markers: bool) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        size = llama_cpp.llama_token_to_piece(self.vocabulary, token, buffer, len(buffer), 0, markers)
        return buffer.raw[: max(size, 0)]


def _bytes(data: npt.NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def pooled() -> dict[str, Any]:
    """Settings of a memory that gives the mean hidden state of a sequence."""
    return {"embeddings": True, "pooling_type": llama_cpp.LLAMA_POOLING_TYPE_MEAN}


class Memory:
    """A unified KV cache of `cells` tokens for `sequences` sequences, and the calls that fill it.

    settings: fields of llama_context_params. Raises ModelError where there is no room for it.
    """

    def __init__(
        self, model: Model, *, cells: int, sequences: int, batch: int, settings: dict[str, Any]
    ) -> None:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = cells
        parameters.n_seq_max = sequences
        batch = max(batch, sequences)  # llama.cpp wants room for one token of each
        parameters.n_batch = parameters.n_ubatch = batch
        parameters.n_threads = parameters.n_threads_batch = processors()
        parameters.kv_unified = True
        parameters.swa_full = True  # a sequence that is copied goes on from its middle
        parameters.no_perf = True
        for name, value in settings.items():
            setattr(parameters, name, value)
        _errors.clear()
        self.handle: Any = llama_cpp.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise ModelError(f"no memory for {cells:,} tokens{_reason()}")
        self._free = weakref.finalize(self, llama_cpp.llama_free, self.handle)
        self._model = model
        self._sequences: Any = llama_cpp.llama_get_memory(self.handle)
        self._batch = llama_cpp.llama_batch_init(batch, 0, 1)
        self._free_batch = weakref.finalize(self, llama_cpp.llama_batch_free, self._batch)
        self.cells = cells
        self._views = {
            name: np.ctypeslib.as_array(getattr(self._batch, name), (batch,))
            for name in ("token", "pos", "n_seq_id", "logits")
        }
        self._views["n_seq_id"][:] = 1

    def close(self) -> None:
        self._free_batch()
        self._free()

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(self._sequences, False)

    def drop(self, sequence: int) -> None:
        if not llama_cpp.llama_memory_seq_rm(self._sequences, sequence, -1, -1):
            raise ModelError("llama.cpp does not let go of a sequence")

    def copy(self, source: int, to: int) -> None:
        llama_cpp.llama_memory_seq_cp(self._sequences, source, to, -1, -1)

    def state(self, sequence: int) -> npt.NDArray[np.uint8]:
        """What the memory holds of a sequence, as bytes."""
        data = np.empty(llama_cpp.llama_state_seq_get_size(self.handle, sequence), np.uint8)
        size = llama_cpp.llama_state_seq_get_data(self.handle, _bytes(data), data.size, sequence)
        return data[:size]

    def restore(self, sequence: int, state: memoryview) -> bool:
        """Gives an empty sequence what another memory held; False where that does not fit this one."""
        data = np.frombuffer(state, np.uint8)
        if llama_cpp.llama_state_seq_set_data(self.handle, _bytes(data), data.size, sequence):
            return True
        self.drop(sequence)
        return False

    def run(self, step: Step) -> npt.NDArray[np.float32]:
        """Does what a step says; logits (reads, vocabulary) in memory that lasts until the next one."""
        for sequence in step.drops:
            self.drop(sequence)
        for source, to in step.copies:
            self.copy(source, to)
        reads = [place for place, _ in step.reads]
        return self.read(step.ids, step.positions, step.sequences, reads)

    def read(
        self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], reads: Sequence[int]
    ) -> npt.NDArray[np.float32]:
        """Evaluates tokens; logits (reads, vocabulary), as above."""
        if not ids:
            return np.zeros((0, self._model.size), np.float32)
        count = len(ids)
        self._views["token"][:count] = ids
        self._views["pos"][:count] = positions
        self._views["logits"][:count] = 0
        self._views["logits"][list(reads)] = 1
        for place, sequence in enumerate(sequences):
            self._batch.seq_id[place][0] = sequence
        self._batch.n_tokens = count
        _errors.clear()
        status = llama_cpp.llama_decode(self.handle, self._batch)
        if status:
            raise ModelError(f"llama.cpp cannot evaluate {count} tokens (status {status}){_reason()}")
        if not reads:
            llama_cpp.llama_synchronize(self.handle)
            return np.zeros((0, self._model.size), np.float32)
        shape = (len(reads), self._model.size)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.handle), shape)

    def embed(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """The mean hidden state (width,) of a text. The memory was made for embeddings, see `pooled`, and is
        cleared.
        """
        self.clear()
        count = len(ids)
        self._views["token"][:count] = ids
        self._views["pos"][:count] = np.arange(count)
        self._views["logits"][:count] = 1
        for place in range(count):
            self._batch.seq_id[place][0] = 0
        self._batch.n_tokens = count
        _errors.clear()
        status = llama_cpp.llama_decode(self.handle, self._batch)
        found = None if status else llama_cpp.llama_get_embeddings_seq(self.handle, 0)
        if not found:
            raise ModelError(f"llama.cpp cannot embed {count} tokens (status {status}){_reason()}")
        width = llama_cpp.llama_model_n_embd(self._model.handle)
        return np.ctypeslib.as_array(found, (width,)).copy()

    def logits(self, place: int) -> npt.NDArray[np.float32]:
        """The logits (vocabulary,) at a place of the last call that was among its reads."""
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.handle, place), (self._model.size,))
