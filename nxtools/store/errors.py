"""What a store raises."""

from __future__ import annotations

from nxtools.errors import InputError, NxError


class StoreError(NxError):
    """The store cannot keep what this command cannot go on without, or cannot be looked after."""


class StoreFull(StoreError):
    """There is no room for a blob that this command cannot go on without."""


class MissingBlob(InputError):
    """A blob that the input names is not in the store, or was damaged there."""


class NotInStore(NxError):
    """For callers of an offline store: an answer would have to be computed."""
