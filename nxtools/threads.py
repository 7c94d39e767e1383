"""How many threads the library takes that multiplies for numpy."""

from __future__ import annotations

import os

ONE = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def one_for_products() -> None:
    """For what runs no model, before numpy is loaded.

    Our products have a few hundred rows. On two threads they take several times as long as on one where other
    processes want the cores, too, and hardly less where none does.
    """
    for name, value in ONE.items():
        os.environ.setdefault(name, value)
