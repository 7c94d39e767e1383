"""`python -m nxtools top …` is `nx-top …`."""

from __future__ import annotations

import importlib
import pkgutil
import sys


def main() -> None:
    from nxtools import commands

    names = sorted(m.name for m in pkgutil.iter_modules(commands.__path__) if not m.name.startswith("_"))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"nxtools: name a command: {', '.join(names)}")
    command = importlib.import_module(f"nxtools.commands.{sys.argv[1]}")
    sys.argv = [f"nx-{sys.argv[1]}", *sys.argv[2:]]
    command.main()


if __name__ == "__main__":
    main()
