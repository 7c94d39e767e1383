"""The random pools and tables that unit lines name, opened when they are needed, here or in a worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nxtools.errors import UsageError
from nxtools.progress import warn_once
from nxtools.recordings.table import Column, Table

if TYPE_CHECKING:
    from nxtools.pattern.lexicon import Lexicon
    from nxtools.pool import Shared
    from nxtools.store import Mode, Store
    from nxtools.unit import Unit

KEPT = 2  # pools in memory: units come layer by layer


def check_bulk(folder: str | None) -> None:
    """UsageError: whoever reads recordings makes no folder for them.

    To be asked when lines have come: the nx-record of the same pipe makes the folder before it writes any.
    """
    if folder and not Path(folder).is_dir():
        raise UsageError(f"--bulk {folder} is no folder", hint="where nx-record --bulk put the recordings")


class Pools:
    """Opens pools by unit; None where the unit has none or the store has it no longer, which is said once.

    Pickled, it takes only the places along and opens the stores anew.
    """

    def __init__(self, command: str, cache: Path | str | None, mode: Mode, bulk: str | None) -> None:
        self.command = command
        self.cache, self.mode, self.bulk = cache, mode, bulk
        self._open: dict[str, Shared | None] = {}
        self._tables: dict[str, Table | None] = {}
        self._there: dict[str, bool] = {}
        self._stores: list[Store] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_tables": {}, "_stores": None}

    def of(self, unit: Unit) -> Shared | None:
        """The pool that a unit names."""
        if unit.pool is None:
            return None
        digest = str(unit.pool["blob"])
        if digest not in self._open:
            while len(self._open) >= KEPT:
                del self._open[next(iter(self._open))]
            self._open[digest] = self._load(digest)
        return self._open[digest]

    def digest(self, unit: Unit) -> str | None:
        """The digest of the unit's pool where it is at hand: part of the questions that use the pool."""
        return None if unit.pool is None or not self._has(str(unit.pool["blob"])) else str(unit.pool["blob"])

    def table(self, unit: Unit, name: str) -> Column | None:
        """The unit's column of a table; None where it has none or the store has it no longer."""
        place = unit.tables.get(name)
        if place is None:
            return None
        digest = str(place["blob"])
        if digest not in self._tables:
            while len(self._tables) >= KEPT:
                del self._tables[next(iter(self._tables))]
            self._tables[digest] = self._load_table(name, digest)
        table = self._tables[digest]
        return None if table is None else Column(table, int(place["column"]))

    def table_digest(self, unit: Unit, name: str) -> list[Any] | None:
        """What answers that use a table depend on: the digest of it and the column, where it is at hand."""
        place = unit.tables.get(name)
        if place is None or not self._has(str(place["blob"])):
            return None
        return [place["blob"], place["column"]]

    def lexicon(self, unit: Unit) -> Lexicon:
        """The texts of tokens: of all that the subject has, or else of those on the line."""
        from nxtools.pattern.lexicon import Lexicon

        pool = self.of(unit)
        return Lexicon(unit.vocabulary) if pool is None else pool.lexicon

    def _has(self, digest: str) -> bool:
        for opened in (self._open, self._tables):
            if digest in opened:
                return opened[digest] is not None
        if digest not in self._there:
            self._there[digest] = any(store.has(digest) for store in self._places())
        return self._there[digest]

    def _load(self, digest: str) -> Shared | None:
        from nxtools.pool import Shared
        from nxtools.recordings.pool import Pool
        from nxtools.store import MissingBlob

        try:
            like = next((opened for opened in self._open.values() if opened is not None), None)
            return Shared(Pool(digest, self.blob, like.pool if like else None), like)
        except MissingBlob as error:
            warn_once(
                f"{self.command}: {error.message}: going on without the random pool "
                "(nx-record and nx-top bring it back)"
            )
            return None

    def _load_table(self, name: str, digest: str) -> Table | None:
        from nxtools.store import MissingBlob

        try:
            return Table(digest, self.blob)
        except MissingBlob as error:
            again = "(nx-record and nx-top bring it back)"
            warn_once(f"{self.command}: {error.message}: going on without the {name} table {again}")
            return None

    def blob(self, digest: str) -> memoryview:
        """A blob from where recordings lie. MissingBlob where it is gone, UsageError where the folder is."""
        *first, last = self._places()
        for store in first:
            if store.has(digest):
                return store.open_blob(digest)
        return last.open_blob(digest)

    def _places(self) -> list[Store]:
        from nxtools.store import Store

        if self._stores is None:
            check_bulk(self.bulk)
            mode: Mode = "normal" if self.mode == "refresh" else self.mode
            bulk = [Store(self.bulk, warn=self._warn)] if self.bulk else []
            self._stores = [*bulk, Store(self.cache, mode=mode, warn=self._warn)]
        return self._stores

    def _warn(self, line: str) -> None:
        warn_once(f"{self.command}: {line}")
