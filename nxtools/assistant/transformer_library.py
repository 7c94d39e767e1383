"""A causal language model of transformers that goes on from what it has read."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from nxtools.errors import ModelError
from nxtools.subject.identity import weight_files
from nxtools.subject.load import DTYPES, explained, pick_device, quietly

PADDING = -1  # in the place of a token


@dataclass(frozen=True)
class State:
    """What a model knows of the tokens that it has read: keys and values.

    mask: (rows, tokens), 0 at padding; None where there is none.
    """

    cache: Any
    mask: torch.Tensor | None = None

    def rows(self, count: int) -> State:
        """The same for so many rows, from one; memory is shared until they go on."""
        made = copy.copy(self.cache)
        made.layers = [_repeated(layer, count) for layer in self.cache.layers]
        return State(made, None if self.mask is None else self.mask.expand(count, -1))

    def chosen(self, rows: Sequence[int]) -> State:
        """Some of the rows, any of them several times."""
        made = copy.deepcopy(self.cache)
        made.reorder_cache(torch.tensor(list(rows), device=_device(made)))
        return State(made, None if self.mask is None else self.mask[list(rows)])

    @property
    def can_pad(self) -> bool:
        """Whether rows may be padded in front: not where a window or a recurrence would count the padding."""
        return all(type(layer) is DynamicLayer for layer in self.cache.layers)


def _device(cache: Any) -> Any:
    return next((layer.device for layer in cache.layers if getattr(layer, "device", None)), None)


def _repeated(layer: Any, count: int) -> Any:
    """A layer's memory for `count` rows. One that only grows by concatenation is not copied."""
    if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer):
        made = copy.copy(layer)
        if made.is_initialized and made.keys.numel():
            made.keys = made.keys.expand(count, *made.keys.shape[1:])
            made.values = made.values.expand(count, *made.values.shape[1:])
        return made
    made = copy.deepcopy(layer)
    made.reorder_cache(torch.zeros(count, dtype=torch.long, device=getattr(layer, "device", None)))
    return made


class Model:
    """The model in a folder, with its unembedding. Raises ModelError as `nxtools.subject.load` does."""

    def __init__(
        self, path: Path, *, device: str, dtype: str, threads: int | None, trust_remote_code: bool
    ) -> None:
        self.device = pick_device(device)
        if threads:
            torch.set_num_threads(threads)
        weight_files(path)
        with quietly(), explained(path):
            self.model, info = transformers.AutoModelForCausalLM.from_pretrained(
                path,
                dtype=DTYPES[dtype],
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
            )
            if lacking := sorted(info["missing_keys"]):
                hint = "do config.json and the weights belong together?"
                raise ModelError(f"no weights for {lacking[0]}", where=str(path), hint=hint)
            self.model.to(self.device).eval().requires_grad_(False)
        self._unembedding = self.model.get_output_embeddings()
        if self._unembedding is None:
            raise ModelError("has no unembedding that transformers can name", where=str(path))
        self.ends = _ends(self.model)
        self._pads = (
            "position_ids" in inspect.signature(self.model.forward).parameters
            and getattr(self.model.config, "window_size", None) is None  # GPT-Neo's, unknown to its cache
        )

    def empty(self) -> State:
        """What is known before the first token."""
        return State(DynamicCache(config=self.model.config))

    def read(self, state: State, ids: Sequence[int]) -> State:
        """What is known after more tokens of one row."""
        return self._run(state.rows(1), [ids], [])[1]

    def read_rows(
        self, state: State, rows: Sequence[Sequence[int]], reads: Sequence[tuple[int, int]]
    ) -> npt.NDArray[np.float32]:
        """Logits (reads, vocabulary) behind (row, place)s of rows that go on from the same state."""
        return self._run(state.rows(len(rows)), rows, reads)[0]

    def embed(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The mean of the last hidden states of each row: (rows, width). Rows are padded behind their end."""
        ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
        mask = torch.zeros(ids.shape)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1 / len(tokens)
        with torch.inference_mode(), self._unembedding_only([(0, 0)]), _memory_errors():
            made = self.model(ids.to(self.device), use_cache=False, output_hidden_states=True)
        hidden = made.hidden_states[-1].float()
        found: npt.NDArray[np.float32] = (
            torch.einsum("rtw,rt->rw", hidden, mask.to(self.device)).cpu().numpy()
        )
        return found

    def can_pad(self, state: State) -> bool:
        """Whether rows that go on from a state may have different lengths, see `begin`."""
        return self._pads and state.can_pad

    def begin(
        self, state: State, rows: Sequence[Sequence[int]], batch: int
    ) -> tuple[npt.NDArray[np.float32], State]:
        """Logits (rows, vocabulary) behind the last token of rows that go on from a state of one row, and
        what is known then. Shorter rows are padded in front, which `can_pad` must allow.

        batch: tokens in one call, padding included.
        """
        width = max(map(len, rows))
        state = state.rows(len(rows))
        if any(len(row) < width for row in rows):
            seen = int(state.cache.get_seq_length())
            state = State(state.cache, torch.ones((len(rows), seen), dtype=torch.long, device=self.device))
        step = max(1, batch // len(rows))
        padded = [[*[PADDING] * (width - len(row)), *row] for row in rows]
        logits = np.zeros((0, 0), np.float32)
        for start in range(0, width, step):
            part = [row[start : start + step] for row in padded]
            last = start + step >= width
            reads = [(row, len(part[0]) - 1) for row in range(len(rows))] if last else []
            logits, state = self._run(state, part, reads)
        return logits, state

    def next_tokens(self, state: State, tokens: Sequence[int]) -> tuple[npt.NDArray[np.float32], State]:
        """Logits (rows, vocabulary) behind one more token in each row of a state, and what is known then.

        The state that is given is used up.
        """
        return self._run(state, [[token] for token in tokens], [(row, 0) for row in range(len(tokens))])

    def _run(
        self, state: State, rows: Sequence[Sequence[int]], reads: Sequence[tuple[int, int]]
    ) -> tuple[npt.NDArray[np.float32], State]:
        ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        ids = ids.to(self.device)
        mask, said = state.mask, {}
        if mask is not None:
            mask = torch.cat([mask, (ids != PADDING).long()], dim=1)
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            said = {"attention_mask": mask, "position_ids": positions}
            ids = ids.clamp(min=0)
        with torch.inference_mode(), self._unembedding_only(reads), _memory_errors():
            made = self.model(ids, past_key_values=state.cache, use_cache=True, **said)
        cache = getattr(made, "past_key_values", None)
        if cache is None:
            raise ModelError("keeps nothing of what it has read, so prompts cannot be shared")
        return made.logits[0].float().cpu().numpy(), State(cache, mask)

    @contextmanager
    def _unembedding_only(self, reads: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Has the unembedding see only hidden states (1, reads, width) of these (row, place)s."""
        rows = torch.tensor([row for row, _ in reads], dtype=torch.long, device=self.device)
        places = torch.tensor([place for _, place in reads], dtype=torch.long, device=self.device)

        def pick(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden, *others = inputs
            return (hidden[rows, places].unsqueeze(0), *others)

        hook = self._unembedding.register_forward_pre_hook(pick)
        try:
            yield
        finally:
            hook.remove()


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Whatever a device calls it, no room for a call is a MemoryError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if "allocate memory" in str(error) or "not enough memory" in str(error):
            raise MemoryError(str(error)) from error
        raise


def _ends(model: Any) -> frozenset[int]:
    """The tokens with which a model says that it is done."""
    settings = getattr(model, "generation_config", None)
    ids = getattr(settings, "eos_token_id", None)
    if ids is None:
        ids = model.config.get_text_config().eos_token_id
    return frozenset(ids if isinstance(ids, list) else [ids] if ids is not None else [])
