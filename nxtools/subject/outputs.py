"""How far apart two next-token distributions are, from their logits, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Apart:
    """Per token (T,), in nats: Jensen-Shannon divergence and KL(original ‖ other); and by how much the loss
    on the token that comes next is higher (T - 1,).
    """

    jsd: Tensor
    kl: Tensor
    loss: Tensor


class Output:
    """What a subject said after each token of an excerpt: logits (T, vocabulary); ids (T,) of the tokens."""

    def __init__(self, logits: Tensor, ids: Tensor) -> None:
        self.logits = logits
        self.log = _log_probabilities(logits)
        self.probability = self.log.exp()
        self._next = ids[1:, None].to(self.log.device)

    def apart(self, other: Tensor) -> Apart:
        """Of the same excerpt with something replaced: logits (T, vocabulary).

        With r = log m/p for the mean m of both, JSD = -½ Σ (p r + q (r + log p/q)). Terms of the first order
        cancel: in float64 that leaves eleven digits where logits differ in their sixth.
        """
        log = _log_probabilities(other)
        ratio = self.log - log
        probability = log.exp()
        mixed = functional.softplus(-ratio) - math.log(2)
        kl = (self.probability * ratio).sum(-1)
        jsd = -0.5 * (self.probability * mixed + probability * (mixed + ratio)).sum(-1)
        loss = (self.log - log)[:-1].gather(1, self._next)[:, 0]
        return Apart(jsd, kl, loss)

    def moved(self, other: Tensor) -> Tensor:
        """By how much each logit is higher (T, vocabulary), less the mean over the vocabulary, which says
        nothing."""
        change = (other - self.logits).double()
        return change - change.mean(-1, keepdim=True)


def _log_probabilities(logits: Tensor) -> Tensor:
    device = "cpu" if logits.device.type == "mps" else logits.device  # mps has no float64
    return functional.log_softmax(logits.to(device).double(), dim=-1)
