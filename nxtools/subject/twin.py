"""Twins of a subject: the same shape and tokenizer, nothing learned, to see what a method finds there.

A permuted twin has the subject's own numbers, shuffled within each matrix; a random one is initialised anew,
as before training. Both follow from the seed and the architecture alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

KINDS = ("permuted", "random")
TWIN_VERSION = 1  # raise it when the same seed would give other weights


@dataclass(frozen=True)
class Twin:
    kind: str
    seed: int

    def name(self, subject: str) -> str:
        return f"{subject}~{self.kind}-{self.seed}"

    def fingerprint(self, subject: str) -> str:
        """`sha256:…` of a twin of the subject with that fingerprint."""
        parts = f"{TWIN_VERSION} {self.kind} {self.seed} {subject}"
        return "sha256:" + hashlib.sha256(parts.encode()).hexdigest()

    def take_over(self, model: nn.Module, speaker: nn.Module | None = None) -> None:
        """Give a model its twin's weights, in place. speaker: what the model is a part of; what else it has,
        an unembedding of its own, becomes the twin's as well.
        """
        renew = _permute if self.kind == "permuted" else _draw_anew
        renew(model, dict(model.named_parameters()), self.seed)
        if speaker is not None:
            done = {id(parameter) for parameter in model.parameters()}
            rest = {name: one for name, one in speaker.named_parameters() if id(one) not in done}
            if rest:
                renew(speaker, rest, self.seed)


def subject_of(name: str) -> tuple[str, Twin | None]:
    """What `Twin.name` made a name of; a name that is no twin's stays."""
    match = re.fullmatch(rf"(.+)~({'|'.join(KINDS)})-(\d+)", name, re.ASCII)
    return (name, None) if match is None else (match[1], Twin(match[2], int(match[3])))


def _permute(model: nn.Module, parameters: Mapping[str, nn.Parameter], seed: int) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.ndim >= 2:
                order = torch.randperm(parameter.numel(), generator=_chance(seed, name))
                shuffled = parameter.detach().cpu().reshape(-1)[order]
                parameter.copy_(shuffled.view_as(parameter))


def _draw_anew(model: nn.Module, parameters: Mapping[str, nn.Parameter], seed: int) -> None:
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        fresh = dict(type(model)(model.config).named_parameters())
        for name, parameter in parameters.items():
            parameter.copy_(fresh[name])


def _chance(seed: int, name: str) -> torch.Generator:
    import torch

    number = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little", signed=True)
    return torch.Generator().manual_seed(number)
