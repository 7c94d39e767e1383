"""How a model is made to restart in the middle: blocks that give what is stored, and one that gets it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn


@contextmanager
def skipping(blocks: Sequence[nn.Module], parts: Sequence[int | None], state: Tensor) -> Iterator[None]:
    """In the block, these modules give the state (n, T, d) and run nothing.

    parts: of how many the output of each consists; None where it is the state itself.
    """

    def give(parts: int | None, *args: Any, **kwargs: Any) -> Any:
        return state if parts is None else (state, *[None] * (parts - 1))

    try:
        for block, count in zip(blocks, parts, strict=True):
            block.forward = partial(give, count)
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


@contextmanager
def entering(block: nn.Module, site: nn.Module, state: Tensor, values: Tensor) -> Iterator[None]:
    """In the block, a module gets the state (n, T, d), and the site within it the values (n, T, width)."""

    def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (state, *args[1:])

    def replace(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (values.reshape(args[0].shape), *args[1:])

    with ExitStack() as hooks:
        hooks.callback(block.register_forward_pre_hook(enter).remove)
        hooks.callback(site.register_forward_pre_hook(replace).remove)
        yield
