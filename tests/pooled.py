"""A random pool in a store, made by hand, and what its columns' unit lines say of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from nxtools.arrays import encode_rows, pack
from nxtools.records import SETS
from nxtools.store import Store

Activations = NDArray[np.float32]


def put_pool(store: Store, vocabulary: list[str], ids: dict[str, Any], rows: dict[str, Activations]) -> str:
    """The digest of a pool. ids: (excerpts, tokens) by set; rows: (units, excerpts, tokens) by set."""
    names = [which for which in SETS if which in ids]
    every = np.concatenate([np.asarray(ids[which], np.int32) for which in names])
    number = np.concatenate([np.full(len(ids[which]), SETS.index(which), np.uint8) for which in names])
    values, scale = encode_rows(np.concatenate([rows[which] for which in names], axis=1).astype(np.float32))
    excerpts = np.arange(1, len(every) + 1, dtype=np.uint64)

    def put(blob: bytes) -> str:
        return store.put_blob(blob, kind="pool")

    tokens = {"ids": every, "counted": np.ones(every.shape, bool), "set": number, "excerpt": excerpts}
    facts = {
        "tokens": put(pack(tokens, {"documents": [f"pool {n}" for n in range(len(every))]})),
        "vocabulary": put(orjson.dumps(vocabulary)),
        "embedding": None,
        "parts": [put(pack({"row": values, "scale": scale}))],
        "sizes": [1000, 1000, 1000],
    }
    source, place = np.zeros(len(every), np.int32), np.arange(len(every), dtype=np.int32)
    return put(pack({"source": source, "place": place}, facts))
