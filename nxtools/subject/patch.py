"""What a subject says when a unit says something else: forward passes that restart at the unit's layer.

An original pass keeps what every block gives and what every site gets. A restarted pass skips the blocks up
to the patched one, whose output is the stored one and what the replacement adds to it, and runs those above.
Skipping is done to the model as it is, so its own code makes masks, positions, the last norm and the logits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nxtools.errors import ModelError
from nxtools.subject.load import Subject
from nxtools.subject.skipping import entering, skipping

# The norm that stands between some down projections and the residual stream.
NORM_BEHIND = "post_feedforward_layernorm"


@dataclass(frozen=True)
class Handle:
    """A unit as it is read and written at a site: its value is `read` of what the site gets, and replacing it
    moves that along `write`. Both (width,), float32, on the subject's device. A neuron is one coordinate, a
    direction the same vector twice, a latent its encoder and decoder vectors.
    """

    layer: int
    read: Tensor
    write: Tensor

    def value(self, values: Tensor) -> Tensor:
        """values (..., width) -> (...)"""
        return values.float() @ self.read


def neuron(layer: int, index: int, width: int, device: torch.device) -> Handle:
    one = torch.zeros(width, device=device)
    one[index] = 1.0
    return Handle(layer, one, one)


@dataclass(frozen=True)
class Original:
    """What the unpatched subject leaves behind of one context of T tokens, on its own device.

    states: what goes into the first block, at -1, and what comes out of each, (T, d) in its dtype;
    values: what each site gets, (T, width);
    written: what a down projection gives that is normalised behind it, (T, d);
    logits: of the last `kept` tokens, (kept, vocabulary).
    """

    ids: Tensor
    states: dict[int, Tensor]
    values: dict[int, Tensor]
    written: dict[int, Tensor]
    logits: Tensor

    @property
    def bytes(self) -> int:
        tensors = [self.logits, *self.states.values(), *self.values.values(), *self.written.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class Row:
    """One restarted pass: `replacement` (T,) float32 in place of the unit's value, NaN where it stays.

    A replacement of None takes the unit out and puts it back: what comes of it is rounding.
    """

    original: Original
    handle: Handle
    replacement: Tensor | None


class Patcher:
    """A subject with its unembedding. `passes` counts original and restarted ones."""

    def __init__(self, subject: Subject) -> None:
        """subject: from `load_subject(..., speaking=True)`. ModelError where its layers are no list."""
        assert subject.speaker is not None
        self.model, self.device = subject.speaker, subject.device
        self.sites = {site.layer: site for site in subject.sites}
        self.blocks = blocks(subject)
        self.passes = {"original": 0, "restarted": 0}
        self._parts: dict[int, int | None] = {}  # how many parts a block's output has, None for a bare tensor
        self._adds: dict[int, bool] = {}  # whether what a site says is just added to what its block gives

    @property
    def vocabulary(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]

    def handle(self, layer: int, index: int) -> Handle:
        return neuron(layer, index, self.sites[layer].width, self.device)

    # Original passes

    def original(self, ids: Tensor, kept: int) -> list[Original]:
        """One pass over contexts (n, T), for each what it leaves behind."""
        self.passes["original"] += 1
        states: dict[int, list[Tensor]] = {}
        values: dict[int, list[Tensor]] = {}
        written: dict[int, list[Tensor]] = {}

        def each(tensor: Tensor) -> list[Tensor]:
            """By context, each with memory of its own: they are kept for different times."""
            return [row.clone() for row in tensor.reshape(*ids.shape, -1)]

        def enters(module: nn.Module, args: tuple[Any, ...]) -> None:
            states[-1] = each(args[0])

        def gives(layer: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._parts[layer] = len(output) if isinstance(output, tuple) else None
            states[layer] = each(output[0] if isinstance(output, tuple) else output)

        def says(layer: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            values[layer] = each(args[0])
            if norm_behind(self.blocks[layer]) is not None:
                written[layer] = each(output)

        with ExitStack() as hooks:
            hooks.callback(self.blocks[0].register_forward_pre_hook(enters).remove)
            for layer, block in enumerate(self.blocks):
                hooks.callback(block.register_forward_hook(partial(gives, layer)).remove)
            for layer, site in self.sites.items():
                hooks.callback(site.module.register_forward_hook(partial(says, layer)).remove)
            logits = self._logits(ids, kept)
        return [
            Original(
                ids[n],
                states={layer: rows[n] for layer, rows in states.items()},
                values={layer: rows[n] for layer, rows in values.items()},
                written={layer: rows[n] for layer, rows in written.items()},
                logits=logits[n].clone(),
            )
            for n in range(len(ids))
        ]

    def _logits(self, ids: Tensor, kept: int) -> Tensor:
        """Logits (n, kept, vocabulary) of the last `kept` tokens; no others are computed."""

        def cut(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0][:, -kept:], *args[1:])

        unembedding = self.model.get_output_embeddings()  # type: ignore[operator]
        handle = unembedding.register_forward_pre_hook(cut)
        try:
            with torch.inference_mode():
                logits: Tensor = self.model(input_ids=ids.to(self.device), use_cache=False).logits
        finally:
            handle.remove()
        return logits

    # Restarted passes

    def restart(self, layer: int, rows: Sequence[Row], kept: int) -> Tensor:
        """Logits (rows, kept, vocabulary), each row with its unit replaced.

        All rows are of that layer and have as many tokens.
        """
        self.passes["restarted"] += 1
        ids = torch.stack([row.original.ids for row in rows])
        with torch.inference_mode():
            if self.is_added(layer, rows[0].original):
                with self._skipped(layer, self._patched_state(layer, rows)):
                    return self._logits(ids, kept)
            with self._replayed(layer, rows):
                return self._logits(ids, kept)

    def _changes(self, layer: int, rows: Sequence[Row]) -> Tensor:
        """By how much each unit's value changes: (rows, T) float32; where it is taken out, by all of it."""
        found = []
        for row in rows:
            value = row.handle.value(row.original.values[layer])
            if row.replacement is None:
                found.append(-value)
            else:
                wanted = row.replacement.to(value.device)
                found.append(torch.where(torch.isnan(wanted), 0.0, wanted - value))
        return torch.stack(found)

    def _patched_state(self, layer: int, rows: Sequence[Row]) -> Tensor:
        """What the block gives (rows, T, d)."""
        state = torch.stack([row.original.states[layer] for row in rows])
        added = self._added(layer, rows, self._changes(layer, rows))
        patched = state.float() + added
        back = torch.tensor([row.replacement is None for row in rows], device=state.device)
        patched = torch.where(back[:, None, None], patched.to(state.dtype).float() - added, patched)
        return patched.to(state.dtype)

    def _added(self, layer: int, rows: Sequence[Row], changes: Tensor) -> Tensor:
        """What changed values (rows, T) add to the residual stream: (rows, T, d) float32."""
        added = changes[..., None] * self._writes(layer, rows)[:, None]
        behind = norm_behind(self.blocks[layer])
        if behind is None:
            return added
        written = torch.stack([row.original.written[layer] for row in rows])
        return _difference(behind, written, written.float() + added)

    def _writes(self, layer: int, rows: Sequence[Row]) -> Tensor:
        """What one more of each unit's value adds to what its site's projection gives: (rows, d) float32."""
        module = self.sites[layer].module
        vectors = torch.stack([row.handle.write for row in rows])
        dtype = next(module.parameters()).dtype
        out: Tensor = module(vectors.to(dtype)) - module(torch.zeros_like(vectors[:1], dtype=dtype))
        return out.float()

    def is_added(self, layer: int, original: Original) -> bool:
        """Whether a block gives what it gave before plus what its site's projection (and the norm behind it)
        gives more: tried out once with other values, since some blocks normalise or scale the sum.
        """
        if layer not in self._adds:
            old = original.values[layer][None]
            new = old.roll(1, dims=-1) + 1.0
            behind, module = norm_behind(self.blocks[layer]), self.sites[layer].module
            before, after = (module(values) for values in (old, new))
            added = (after - before).float() if behind is None else _difference(behind, before, after)
            expected = original.states[layer][None].float() + added
            got = self._block_output(layer, original, new).float()
            tolerance = {torch.float32: 1e-4, torch.float16: 1e-2}.get(old.dtype, 5e-2)
            self._adds[layer] = bool((got - expected).abs().max() <= tolerance * got.abs().max())
        return self._adds[layer]

    def _block_output(self, layer: int, original: Original, values: Tensor) -> Tensor:
        """What a block gives with other values (1, T, width) at its site."""
        found: list[Tensor] = []

        def gives(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)
            raise _Enough

        state = original.states[layer - 1][None]
        handle = self.blocks[layer].register_forward_hook(gives)
        try:
            with self._skipped(layer - 1, state), self._entered(layer, state, values):
                self._logits(original.ids[None], 1)
        except _Enough:
            pass
        finally:
            handle.remove()
        return found[0]

    def _skipped(self, last: int, state: Tensor) -> AbstractContextManager[None]:
        """Blocks up to `last` give the state (n, T, d) and run nothing."""
        skipped = self.blocks[: last + 1]
        return skipping(skipped, [self._parts[layer] for layer in range(len(skipped))], state)

    def _entered(self, layer: int, state: Tensor, values: Tensor) -> AbstractContextManager[None]:
        """A block gets the state (n, T, d), and its site the values (n, T, width)."""
        return entering(self.blocks[layer], self.sites[layer].module, state, values)

    @contextmanager
    def _replayed(self, layer: int, rows: Sequence[Row]) -> Iterator[None]:
        """The patched block runs again, with its site's values replaced."""
        state = torch.stack([row.original.states[layer - 1] for row in rows])
        values = torch.stack([row.original.values[layer] for row in rows])
        changes = self._changes(layer, rows)
        back = torch.tensor([row.replacement is None for row in rows], device=state.device)[:, None]
        taken = torch.where(back, changes, 0.0)[..., None] * self._writes(layer, rows)[:, None]
        rounded = ((state.float() + taken).to(state.dtype).float() - taken).to(state.dtype)
        writes = torch.stack([row.handle.write for row in rows])
        moved = values.float() + torch.where(back, 0.0, changes)[..., None] * writes[:, None]
        state = torch.where(back[..., None], rounded, state)
        with self._skipped(layer - 1, state), self._entered(layer, state, moved.to(values.dtype)):
            yield


class _Enough(Exception):
    """The block gave what was asked for."""


def norm_behind(block: nn.Module) -> Callable[[Tensor], Tensor] | None:
    return getattr(block, NORM_BEHIND, None)


def _difference(norm: Callable[[Tensor], Tensor], before: Tensor, after: Tensor) -> Tensor:
    return norm(after.to(before.dtype)).float() - norm(before).float()


def blocks(subject: Subject) -> list[nn.Module]:
    """The modules that the sites' layers are numbered by."""
    name = subject.sites[0].name
    match = re.match(r"(.*?)\.\d+\.", name)
    stack = subject.model.get_submodule(match[1]) if match else None
    if not isinstance(stack, nn.ModuleList):
        raise ModelError(f"the layers of {name} are no list: passes cannot restart in it")
    return list(stack)
