"""Calls to a server: several under way at once, each answer handed on when it arrives."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from nxtools.assistant.protocol import Completion
from nxtools.progress import warn
from nxtools.stage import Answered, Ask, Failure, Pull

GRACE = 5.0  # seconds that calls under way get to arrive when a run is ended
_POLL = 0.1  # seconds until it is asked again whether there is more to do
TOGETHER = 16  # draws of one prompt that go into one call at most

# Makes one call; returns what it answered, and the asks that are to be made again, each in a call of its own.
Call = Callable[[list[Ask]], tuple[Answered, list[Ask]]]


class Calls:
    """Keeps up to `jobs` calls under way. most: of calls in all, 0 for any number.

    Draws of one prompt share a call as long as `together` is true. What `call` raises ends the run, after the
    calls that are under way.
    """

    def __init__(self, name: str, jobs: int, most: int, call: Call) -> None:
        self.name = name
        self.jobs = jobs
        self.most = most
        self.made = 0
        self.together = True
        self._call = call

    def answer(self, pull: Pull) -> Iterator[Answered]:
        """Yields answers as they arrive. Ctrl-C lets the calls under way arrive, for a few seconds; a second
        one does not."""
        arrived: SimpleQueue[tuple[Answered, list[Ask]] | BaseException] = SimpleQueue()
        waiting: deque[Ask] = deque()
        under_way = 0
        trouble: BaseException | None = None
        deadline: float | None = None
        with _interrupts() as interrupted:
            while True:
                while deadline is None and under_way < self.jobs and (asks := self._next(waiting, pull)):
                    if self.most and self.made >= self.most:
                        failure = Failure("assistant", "max-calls", f"--max-calls {self.most} were made")
                        yield [(ask, failure) for ask in asks]
                        continue
                    self.made += 1
                    under_way += 1
                    threading.Thread(target=self._work, args=(asks, arrived), daemon=True).start()
                if not under_way:
                    break
                for came in _take(arrived, _POLL):
                    under_way -= 1
                    if isinstance(came, BaseException):
                        trouble = trouble or came
                        continue
                    answered, again = came
                    waiting.extendleft(reversed(again))
                    if answered:
                        yield answered
                if trouble is None and interrupted.is_set():
                    trouble = KeyboardInterrupt()
                    warn(f"{self.name}: waiting for {under_way} calls that are paid for; Ctrl-C leaves them")
                if trouble is not None:
                    deadline = deadline or time.monotonic() + GRACE
                    if time.monotonic() >= deadline:
                        break
        if trouble is not None:
            raise trouble

    def _next(self, waiting: deque[Ask], pull: Pull) -> list[Ask]:
        """What goes into the next call: an ask, and other draws of its prompt that come right behind it."""
        if not waiting:
            waiting.extend(pull(1))
        together = [waiting.popleft()] if waiting else []
        while together and self.together and len(together) < TOGETHER:
            if not waiting:
                waiting.extend(pull(1))
            if not waiting or not _draws_of_one(together[0].payload, waiting[0].payload):
                break
            together.append(waiting.popleft())
        return together

    def _work(
        self, asks: list[Ask], arrived: SimpleQueue[tuple[Answered, list[Ask]] | BaseException]
    ) -> None:
        try:
            arrived.put(self._call(asks))
        except BaseException as error:  # it is raised where the answers are waited for
            arrived.put(error)


def _draws_of_one(one: Any, other: Any) -> bool:
    if not isinstance(one, Completion) or not isinstance(other, Completion) or not one.temperature:
        return False
    return replace(other, draw=one.draw) == one


def _take(arrived: SimpleQueue[Any], wait: float) -> list[Any]:
    """All that has arrived, after waiting for something."""
    found = []
    try:
        found.append(arrived.get(timeout=wait))
        while True:
            found.append(arrived.get_nowait())
    except Empty:
        return found


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Notes the first Ctrl-C instead of raising it; the second one is raised."""
    told = threading.Event()
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield told
        return

    def note(*_: object) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield told
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
