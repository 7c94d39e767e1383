"""The random pools that unit lines name, opened when they are needed, in this process or in a worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nxtools.progress import warn

if TYPE_CHECKING:
    from nxtools.recordings.pool import Pool
    from nxtools.store import Mode, Store
    from nxtools.stream import Record

KEPT = 2  # pools in memory: units come layer by layer


class Pools:
    """Opens pools by digest; None where the store has them no longer, which is said once.

    Pickled, it takes only the places along and opens the stores anew.
    """

    def __init__(self, command: str, cache: Path | str | None, mode: Mode, bulk: str | None) -> None:
        self.command = command
        self.cache, self.mode, self.bulk = cache, mode, bulk
        self._open: dict[str, Pool | None] = {}
        self._stores: list[Store] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_stores": None}

    def of(self, unit: Record) -> Pool | None:
        """The pool that a unit line names."""
        named = unit.get("pool")
        return self.get(named["blob"]) if isinstance(named, dict) and "blob" in named else None

    def get(self, digest: str) -> Pool | None:
        if digest not in self._open:
            while len(self._open) >= KEPT:
                del self._open[next(iter(self._open))]
            self._open[digest] = self._load(digest)
        return self._open[digest]

    def _load(self, digest: str) -> Pool | None:
        from nxtools.recordings.pool import Pool
        from nxtools.store import MissingBlob

        try:
            return Pool(digest, self._blob)
        except MissingBlob as error:
            warn(
                f"{self.command}: {error.message}: going on without the random pool "
                "(nx-record and nx-top bring it back)"
            )
            return None

    def _blob(self, digest: str) -> memoryview:
        from nxtools.store import Store

        if self._stores is None:
            mode: Mode = "normal" if self.mode == "refresh" else self.mode
            self._stores = [Store(folder) for folder in (self.bulk,) if folder] + [Store(self.cache, mode=mode)]
        for store in self._stores[:-1]:
            if store.has(digest):
                return store.open_blob(digest)
        return self._stores[-1].open_blob(digest)
