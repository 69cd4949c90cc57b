"""Limits of work off the event loop: a number of threads, and a number of callers that wait for one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

from eigenlens.service.errors import OverloadedError

P = ParamSpec("P")
T = TypeVar("T")


class ThreadLimiter:
    """Runs functions off the event loop in a bounded number of threads, with a bounded number of callers waiting."""

    def __init__(self, *, threads: int, max_waiting: int) -> None:
        self._limiter = CapacityLimiter(threads)
        self._max_waiting = max_waiting
        self._waiting = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function in a thread and return its result.

        Raises: OverloadedError, at once, if too many are in progress.
        """
        if self._waiting >= self._max_waiting:
            raise OverloadedError(
                f"{self._waiting} requests of this kind are in progress already; try again in a moment"
            )
        self._waiting += 1
        try:
            return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._limiter)
        finally:
            self._waiting -= 1
