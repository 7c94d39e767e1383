"""Work in several processes. Imported only where more than one job is to be had."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any, Self, TypeVar

from nxtools import threads
from nxtools.errors import WorkerError

FORKS = sys.platform == "linux"  # elsewhere system libraries do not survive it

Item = TypeVar("Item")
Compute = Callable[[list[Any]], list[Any]]  # some payloads to as many results


class Workers:
    """Processes that run one function, which each of them receives once: it may be large.

    loky pickles it, so it may be a closure or a method of any object. As a context the processes end with it.
    """

    def __init__(self, function: Compute, jobs: int, *, fork: bool = False) -> None:
        """Starts nothing yet. `fork`: the processes may begin as copies of this one, saving half a second
        for each. No thread may hold anything then. Only Linux does so.
        """
        self.function = function
        self.jobs = jobs
        self._fork = fork and FORKS
        self._executor: Executor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def results(
        self, pull: Callable[[], Sequence[Item]], payload: Callable[[Item], Any]
    ) -> Generator[list[tuple[Item, Any]]]:
        """What `pull` gives, chunk by chunk, each item with the result of its payload as soon as it is done.

        Two chunks per process are under way, so that none idles while results are stored. An empty chunk
        means that there is nothing for now: `pull` is asked again when one under way is done. Raises
        WorkerError.
        """
        if self._executor is None:
            self._executor = self._begun()
        under_way: dict[Future[list[Any]], Sequence[Item]] = {}
        try:
            while True:
                while len(under_way) < 2 * self.jobs and (items := pull()):
                    with _deaf_to_interrupts():
                        future = self._executor.submit(_compute, [payload(item) for item in items])
                    under_way[future] = items
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    items = under_way.pop(future)
                    yield list(zip(items, future.result(), strict=True))
        except BrokenProcessPool as error:
            self._stop()
            raise WorkerError(
                "a worker process died", hint="for want of memory? fewer --jobs need less"
            ) from error
        except BaseException:  # an error, Ctrl-C, or nobody wants more
            self._stop()
            raise

    def _begun(self) -> Executor:
        if self._fork:
            fork = multiprocessing.get_context("fork")
            return ProcessPoolExecutor(self.jobs, fork, _receive_or_end, (self.function, os.getpid()))
        from joblib.externals import loky

        executor: Executor = loky.ProcessPoolExecutor(
            self.jobs, env=threads.ONE, initializer=_receive, initargs=(self.function,)
        )
        return executor

    def _stop(self) -> None:
        executor, self._executor = self._executor, None
        if isinstance(executor, ProcessPoolExecutor):
            executor.shutdown(cancel_futures=True)  # a result that is cut short would be waited for for ever
        elif executor is not None:
            executor.shutdown(wait=False, kill_workers=True)  # type: ignore[call-arg]


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


def _receive_or_end(function: Compute, parent: int) -> None:
    """In a fork, which holds both ends of its queue open and would wait for a parent that was killed."""
    ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGKILL)
    if os.getppid() != parent:  # before that was said
        os._exit(1)
    _receive(function)


_SIGNAL_WHEN_PARENT_ENDS = 1  # PR_SET_PDEATHSIG of prctl(2)


def _compute(payloads: list[Any]) -> list[Any]:
    assert _function is not None
    return _function(payloads)
