"""Work that is done in order in a thread of its own, a little behind whoever hands it over.

The subject's next layer is computed while the last one is recorded: both spend their time in torch and numpy,
which let other threads run.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from threading import Event, Thread
from types import TracebackType
from typing import Self

import torch

Work = Callable[[], None]

WAITING = 1  # pieces of work that may wait while one is done: they hold on to their activations


class Behind:
    """A context manager. What goes wrong in the thread is raised to whoever hands over or waits next."""

    def __init__(self) -> None:
        self._queue: Queue[Work | None] = Queue(WAITING)
        self._error: BaseException | None = None
        self._ready = Event()
        self._thread = Thread(target=self._run, name="recorder", daemon=True)

    def __call__(self, work: Work) -> None:
        """Hand over a piece of work; waits while others do."""
        self._raise()
        self._queue.put(work)

    def wait(self) -> None:
        """Until all is done."""
        self._queue.join()
        self._raise()

    def __enter__(self) -> Self:
        threads = torch.get_num_threads()
        self._thread.start()
        self._ready.wait()
        torch.set_num_threads(threads)  # the thread has changed what others begin with
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._error = self._error or error  # what still waits is skipped
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def _run(self) -> None:
        # Pieces are too small to be shared among cores, which the subject needs anyway. A thread takes the
        # number that is set when it first asks, and so must ask before it sets its own.
        torch.get_num_threads()
        torch.set_num_threads(1)
        self._ready.set()
        with torch.inference_mode():
            while (work := self._queue.get()) is not None:
                try:
                    if self._error is None:
                        work()
                except BaseException as error:
                    self._error = error
                finally:
                    del work
                    self._queue.task_done()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
