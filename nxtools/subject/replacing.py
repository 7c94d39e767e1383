"""What is asked of a subject: to put other values in a unit's place, and what that does to its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

VERSION = 1  # of the question: raise it when an answer would come out differently

# How far a value may be from that on the unit line, in shares of the excerpt's largest, by the dtype that it
# was recorded in: lines have four digits and come from float16; bfloat16 has eight bits.
TOLERANCE = {"float32": 1e-2, "float16": 5e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Replacement:
    """Other values for one unit on n excerpts.

    contexts: token ids of each with all that the subject saw before it, `before` tokens of them;
    dtype: what the subject computes with;
    truth: (n, tokens) the activations on the line, NaN where left out: there the unit stays as it is;
    tolerance: how far those of the subject may be from them, in shares of the excerpt's largest;
    replaced: (n, tokens) the other values, or None to take the unit out and put it back, which is rounding;
    moves: which excerpts are asked for the tokens whose logits move.
    """

    subject: str  # its name on the line; what it is called says nothing about the answer
    fingerprint: str
    site: str
    dtype: str
    layer: int
    index: int
    contexts: Sequence[NDArray[np.int32]]
    before: Sequence[int]
    truth: Floats
    tolerance: float
    replaced: Floats | None
    moves: Sequence[bool]

    def question(self) -> dict[str, Any]:
        """All that the answer depends on. The true activations are what the subject says again."""
        return {
            "weights": self.fingerprint,
            "site": self.site,
            "dtype": self.dtype,
            "unit": [self.layer, self.index],
            "contexts": [np.asarray(ids) for ids in self.contexts],
            "before": list(self.before),
            "left_out": np.isnan(self.truth),
            "replaced": "itself" if self.replaced is None else self.replaced,
            "moves": list(self.moves),
        }
