"""What the subject saw before an excerpt, for those that run it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from types import NoneType

import numpy as np
from numpy.typing import NDArray

from nxtools.records import field
from nxtools.stream import Record
from nxtools.subject.excerpts import Plan, excerpt_name

OpenBlob = Callable[[str], memoryview]


class Contexts:
    """The contexts of the units that were recorded alike: `recorded` as it stands on their lines.

    Raises InputError where that is not said as it should be. Opening the plans, which only contexts longer
    than their excerpts need, raises MissingBlob where one is gone.
    """

    def __init__(self, recorded: Record, open_blob: OpenBlob) -> None:
        for name, kind in (("dtype", str), ("context", int), ("bos", (int, NoneType)), ("plans", list)):
            field({"recorded": recorded}, f"recorded.{name}", kind)
        self._recorded = recorded
        self._open_blob = open_blob

    @property
    def dtype(self) -> str:
        return str(self._recorded["dtype"])

    @cached_property
    def _plans(self) -> list[tuple[Plan, dict[str, int]]]:
        plans = [Plan.from_bytes(self._open_blob(digest)) for digest in self._recorded["plans"]]
        return [
            (plan, {excerpt_name(name): place for place, name in enumerate(plan.id.tolist())})
            for plan in plans
        ]

    def before(self, excerpt: str, tokens: int) -> NDArray[np.int32]:
        """Token ids that stood before an excerpt of so many tokens, the BOS token with them."""
        bos = self._recorded["bos"]
        lead: Sequence[int] = [] if bos is None else [int(bos)]
        if self._recorded["context"] > tokens:
            for plan, places in self._plans:
                if excerpt in places:
                    place = places[excerpt]
                    first = int(plan.slot[place]) * plan.excerpt
                    lead = [*lead, *plan.contexts[plan.context[place], :first].tolist()]
                    break
        return np.array(lead, np.int32)
