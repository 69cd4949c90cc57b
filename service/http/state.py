"""What the routes of one application share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

from eigenlens.service.errors import NotReadyError, OverloadedError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.thumbnails import Thumbnails
from eigenlens.service.jobs.runner import Runner
from eigenlens.service.jobs.store import Jobs
from eigenlens.service.keys import Keyring
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.pipeline import SearchBatcher
from eigenlens.service.settings import Settings
from eigenlens.service.telemetry.metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")


class Compute:
    """Runs decoding, encoding and search off the event loop, a bounded number at once, a bounded number waiting."""

    def __init__(self, *, threads: int, max_waiting: int) -> None:
        self._limiter = CapacityLimiter(threads)
        self._max_waiting = max_waiting
        self._waiting = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result. Raises: OverloadedError, at once, if too many are in progress."""
        if self._waiting >= self._max_waiting:
            raise OverloadedError(
                f"{self._waiting} requests of this kind are in progress already; try again in a moment"
            )
        self._waiting += 1
        try:
            return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._limiter)
        finally:
            self._waiting -= 1


@dataclass
class State:
    """Opened when the application starts, closed when it ends."""

    settings: Settings
    gallery: Gallery
    snapshots: SnapshotManager
    jobs: Jobs
    started: str
    abandoned_ended: bool
    runner: Runner
    keyring: Keyring
    metrics: Metrics
    compute: Compute
    batcher: SearchBatcher
    ingest: Compute
    decoders: ThreadPoolExecutor
    serving: int
    thumbnails: Thumbnails = field(default_factory=Thumbnails)


@dataclass
class Timing:
    """How long each stage of a request took, in milliseconds."""

    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = round((time.perf_counter() - start) * 1000, 3)

    @property
    def header(self) -> str:
        """Value of a Server-Timing header."""
        return ", ".join(f"{name};dur={ms}" for name, ms in self.stages.items())


def state_of(request: Request) -> State:
    """The application's state. Raises: NotReadyError, while it starts."""
    state: State | None = getattr(request.app.state, "eigenlens", None)
    if state is None:
        raise NotReadyError("the service is starting")
    return state


async def get_state(request: Request) -> State:
    """As a dependency; one that is no coroutine would cost a change of thread. Raises: NotReadyError."""
    return state_of(request)


CurrentState = Annotated[State, Depends(get_state)]
