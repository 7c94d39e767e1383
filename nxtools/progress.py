"""How far a command is, on stderr: a line that renews itself on a terminal, one line at the end elsewhere.

Several commands of one pipe share a terminal, so each writes its name, and not more than twice a second.
"""

from __future__ import annotations

import os
import sys
import time


class Progress:
    def __init__(self, command: str, noun: str, *, quiet: bool = False, total: int | None = None) -> None:
        self.command = command
        self.noun = noun
        self.quiet = quiet
        self.total = total
        self.done = 0
        self._begun = time.monotonic()
        self._shown = self._begun
        self._live = not quiet and sys.stderr.isatty()

    def step(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if self._live and now - self._shown >= 0.5:
            self._shown = now
            of = f"/{self.total}" if self.total else ""
            rate = self.done / (now - self._begun)
            sys.stderr.write(f"\r\x1b[K{self.command}: {self.done}{of} {self.noun}, {rate:.0f}/s")
            sys.stderr.flush()

    def say(self, line: str) -> None:
        """A line that stays, unless the user asked for quiet."""
        if not self.quiet:
            warn(f"{self.command}: {line}")


def warn(line: str) -> None:
    """A whole line on stderr, clear of a progress line. A closed stderr is nobody's error."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    try:
        sys.stderr.write(f"{clear}{line}\n")
        sys.stderr.flush()
    except OSError:
        pass


def colours() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
