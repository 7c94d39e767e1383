"""`python -m nxtools top …` is `nx-top …`."""

from __future__ import annotations

import importlib
import sys

from nxtools.commands import names


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in names():
        print(f"nxtools: name a command: {', '.join(names())}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"nx-{name}", *sys.argv[2:]]
    importlib.import_module(f"nxtools.commands.{name}").main()


if __name__ == "__main__":
    main()
