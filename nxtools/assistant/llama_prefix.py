"""What a model knows after a prefix, kept in the store: the next run need not read instructions and examples.

That is worth its bytes (keys and values of a thousand tokens, some megabytes to some hundred) where reading
takes long: a model of billions of parameters on a processor.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np
import orjson

from nxtools.assistant.llama_library import Memory
from nxtools.store import MissingBlob

if TYPE_CHECKING:
    from nxtools.store import Store

WORTH = 2.0  # seconds of reading from which on a state is kept
SEQUENCE = 0  # that of the prefix


class PrefixStates:
    """States of one model in a store. settings: of the memory; a state only fits one that is made alike."""

    def __init__(self, store: Store, identity: dict[str, Any], settings: dict[str, Any]) -> None:
        self._store = store
        self._model = orjson.dumps([llama_cpp.__version__, identity, settings], option=orjson.OPT_SORT_KEYS)

    def restore(self, memory: Memory, prefix: tuple[int, ...]) -> bool:
        """Puts the prefix into an empty memory; False where no state of it is at hand."""
        digest = self._store.recall(self._name(prefix))
        if digest is None:
            return False
        try:
            return memory.restore(SEQUENCE, self._store.open_blob(digest))
        except MissingBlob:
            return False

    def keep(self, memory: Memory, prefix: tuple[int, ...], seconds: float) -> None:
        """Keeps the state of a prefix that took so long to read."""
        if seconds >= WORTH:
            digest = self._store.put_blob(memory.state(SEQUENCE).data, kind="prefix", compress=False)
            self._store.remember(self._name(prefix), digest)

    def _name(self, prefix: tuple[int, ...]) -> str:
        ids = np.array(prefix, "<i4").tobytes()
        return f"prefix {hashlib.sha256(self._model + ids).hexdigest()}"
