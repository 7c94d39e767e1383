"""GPT-2 whose MLPs let only the k largest activations of each token through, after a ReLU.

Travels in the folder of a model trained with `train.py --activation topk`, so that transformers loads that
folder with `trust_remote_code=True`. Without it, loading fails: a plain GPT-2 does not know the activation.
"""

import torch
from torch import nn
from transformers import GPT2LMHeadModel, GPT2Model
from transformers.activations import ACT2FN


class TopK(nn.Module):
    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:  # (..., neurons) -> (..., neurons)
        largest = torch.relu(hidden).topk(self.k, dim=-1)
        return torch.zeros_like(hidden).scatter(-1, largest.indices, largest.values)


def _know_activation(name: str) -> None:
    """GPT-2 looks its activation up by name: `relu_top32` is TopK(32)."""
    ACT2FN[name] = (TopK, {"k": int(name.removeprefix("relu_top"))})


class TopKGPT2Model(GPT2Model):
    def __init__(self, config):
        _know_activation(config.activation_function)
        super().__init__(config)


class TopKGPT2LMHeadModel(GPT2LMHeadModel):
    def __init__(self, config):
        _know_activation(config.activation_function)
        super().__init__(config)
