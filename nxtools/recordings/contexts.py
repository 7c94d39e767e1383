"""What the subject saw before an excerpt, for those that run it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nxtools.stream import Record
from nxtools.subject.excerpts import Plan, excerpt_name

OpenBlob = Callable[[str], memoryview]


class Contexts:
    """The contexts of the units that were recorded alike: `recorded` as it stands on their lines.

    Where a line says nothing of it, an excerpt is taken for all that was seen. Opening the plans, which only
    contexts longer than their excerpts need, raises InputError (MissingBlob) where one is gone.
    """

    def __init__(self, recorded: Record | None, open_blob: OpenBlob) -> None:
        self._recorded = recorded or {}
        self._open_blob = open_blob

    @property
    def dtype(self) -> str:
        return str(self._recorded.get("dtype", "float32"))

    @cached_property
    def _plans(self) -> list[tuple[Plan, dict[str, int]]]:
        plans = [Plan.from_bytes(self._open_blob(digest)) for digest in self._recorded["plans"]]
        return [
            (plan, {excerpt_name(name): place for place, name in enumerate(plan.id.tolist())})
            for plan in plans
        ]

    def before(self, excerpt: str, tokens: int) -> NDArray[np.int32]:
        """Token ids that stood before an excerpt of so many tokens, the BOS token with them."""
        bos = self._recorded.get("bos")
        lead: Sequence[int] = [] if bos is None else [int(bos)]
        if self._recorded.get("context", tokens) > tokens:
            for plan, places in self._plans:
                if excerpt in places:
                    place = places[excerpt]
                    first = int(plan.slot[place]) * plan.excerpt
                    lead = [*lead, *plan.contexts[plan.context[place], :first].tolist()]
                    break
        return np.array(lead, np.int32)
