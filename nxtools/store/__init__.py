"""The content-addressed store: blobs (sha256 -> bytes) and a memo (question -> digest of its answer).

    with Store() as store:
        question = question_digest("simulate", 1, {"model": fingerprint, "ids": ids, "explanation": text})
        answer = store.get(question)
        if answer is None:
            answer = ask_the_model()
            store.put(question, answer, kind="simulation")  # committed when it returns

It knows nothing about what it keeps, and no trouble with it fails a run: see `nxtools.store.core`.
"""

from __future__ import annotations

from nxtools.store.core import Mode, Store, default_path
from nxtools.store.errors import MissingBlob, NotInStore, StoreError, StoreFull
from nxtools.store.identity import file_digest
from nxtools.store.question import Value, question_digest

__all__ = [
    "MissingBlob",
    "Mode",
    "NotInStore",
    "Store",
    "StoreError",
    "StoreFull",
    "Value",
    "default_path",
    "file_digest",
    "question_digest",
]
