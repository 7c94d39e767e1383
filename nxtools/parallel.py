"""Work in several processes. Imported only where more than one job was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from joblib.externals.loky import get_reusable_executor

from nxtools.stage import Answer, Ask, Compute, Failure


def unordered(
    function: Compute, pull: Callable[[], list[Ask]], jobs: int
) -> Iterator[list[tuple[Ask, Answer | Failure]]]:
    """Chunks of asks answered by `jobs` processes, each chunk as soon as it is done.

    Two chunks per process are under way, so that none idles while results are stored.
    """
    executor = get_reusable_executor(max_workers=jobs)
    under_way: dict[Future[list[Any]], list[Ask]] = {}
    try:
        while True:
            while len(under_way) < 2 * jobs and (asks := pull()):
                under_way[executor.submit(function, [ask.payload for ask in asks])] = asks
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                asks = under_way.pop(future)
                yield list(zip(asks, future.result(), strict=True))
    finally:
        for future in under_way:
            future.cancel()
