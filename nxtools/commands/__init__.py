"""One file per nx-* command: `nx-top` is `nxtools.commands.top:main`."""

from __future__ import annotations


def names() -> list[str]:
    """The commands that there are, without nx-."""
    import pkgutil

    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
