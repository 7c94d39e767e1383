"""Digests of large files, such as a model's weights, without reading them again in every run."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nxtools.store.core import Store

# Two writes within the grain of a file system's time stamps look like one.
_SETTLED_SECONDS = 2.0


def file_digest(path: Path, store: Store) -> str:
    """The sha256 of a file, remembered by its path, size, times and inode. OSError passes through."""
    with path.open("rb") as file:
        seen = os.fstat(file.fileno())
        facts = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, path.resolve())
        name = "file " + " ".join(map(str, facts))
        digest = store.recall(name)
        if digest is None:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if time.time() - max(seen.st_mtime, seen.st_ctime) > _SETTLED_SECONDS:
                store.remember(name, digest)
    return digest
