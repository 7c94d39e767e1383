"""How far a command is, on stderr: a line that renews itself on a terminal, one line at the end elsewhere.

Several commands of one pipe share a terminal: each begins its line with its name, renews it twice a second at
most, and never writes a second row.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

CLEAR = "\r\x1b[K"


class Progress:
    def __init__(self, command: str, noun: str, *, quiet: bool = False, total: int | None = None) -> None:
        self.command = command
        self.noun = noun
        self.quiet = quiet
        self.total = total
        self.done = 0
        self._begun = time.monotonic()
        self._shown = self._begun
        self._live = not quiet and on_terminal()

    def step(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if self._live and now - self._shown >= 0.5:
            self._shown = now
            of = f"/{self.total:,}" if self.total else ""
            rate = self.done / (now - self._begun)
            line = f"{self.command}: {self.done:,}{of} {self.noun}, {rate:,.0f}/s"
            _write(CLEAR + line[: columns() - 1])

    def say(self, line: str) -> None:
        """A line that stays, unless the user asked for quiet."""
        if not self.quiet:
            warn(f"{self.command}: {line}")


def warn(line: str) -> None:
    """A whole line on stderr, clear of a progress line."""
    if _kept is None:
        _write(f"{CLEAR if on_terminal() else ''}{line}\n")
    else:
        _kept.append(line)


def warn_once(line: str) -> None:
    """The same, unless it has been said so before."""
    if line not in _warned:
        _warned.add(line)
        warn(line)


@contextlib.contextmanager
def kept() -> Iterator[list[str]]:
    """What is warned of in the block: another process is to say it."""
    global _kept
    before, _kept = _kept, []
    try:
        yield _kept
    finally:
        _kept = before


_warned: set[str] = set()
_kept: list[str] | None = None


def on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


def _write(text: str) -> None:
    """At once, so that lines of several commands do not mix. A closed stderr is nobody's error."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()
