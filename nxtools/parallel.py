"""Work in several processes. Imported only where more than one job was asked for."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor

from nxtools.errors import WorkerError
from nxtools.stage import Answered, Ask, Compute


class Workers:
    """Processes that answer asks with one function, which each of them receives once: it may be large.

    loky pickles it, so it may be a closure or a method of any object.
    """

    def __init__(self, function: Compute, jobs: int) -> None:
        """Starts nothing yet."""
        self.function = function
        self.jobs = jobs
        self._executor: ProcessPoolExecutor | None = None

    def answer(self, pull: Callable[[], list[Ask]]) -> Iterator[Answered]:
        """Chunks of asks, each as soon as it is done.

        Two chunks per process are under way, so that none idles while results are stored. Raises WorkerError.
        """
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                max_workers=self.jobs, initializer=_receive, initargs=(self.function,)
            )
        under_way: dict[Future[list[Any]], list[Ask]] = {}
        try:
            while True:
                while len(under_way) < 2 * self.jobs and (asks := pull()):
                    with _deaf_to_interrupts():
                        future = self._executor.submit(_compute, [ask.payload for ask in asks])
                    under_way[future] = asks
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    asks = under_way.pop(future)
                    yield list(zip(asks, future.result(), strict=True))
        except BrokenProcessPool as error:
            self._stop()
            raise WorkerError(
                "a worker process died", hint="for want of memory? fewer --jobs need less"
            ) from error
        except BaseException:  # an error, Ctrl-C, or nobody wants more
            self._stop()
            raise

    def _stop(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, kill_workers=True)
            self._executor = None


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes begun in the block never see Ctrl-C, which a terminal sends to all: this one stops them."""
    resource_tracker.ensure_running()  # before Python 3.13 its start would end our mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_function: Compute | None = None


def _receive(function: Compute) -> None:
    global _function
    _function = function


def _compute(payloads: list[Any]) -> list[Any]:
    assert _function is not None
    return _function(payloads)
