"""The state that the routes of one application share, and the timing of a request."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from eigenlens.service.errors import GalleryBusyError, NotReadyError
from eigenlens.service.gallery.dates import Dates
from eigenlens.service.gallery.facets import Facets
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.locks import Lock
from eigenlens.service.gallery.thumbnails import Thumbnails
from eigenlens.service.http.thread_limits import ThreadLimiter
from eigenlens.service.jobs.runner import Runner
from eigenlens.service.jobs.store import Jobs
from eigenlens.service.keys import Keyring
from eigenlens.service.search.gallery_map import GalleryMap
from eigenlens.service.search.live_recall import RecallChecker
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.pipeline import SearchBatcher
from eigenlens.service.search.recent_queries import RecentQueries
from eigenlens.service.settings import Settings
from eigenlens.service.telemetry.metrics import Metrics


@dataclass
class State:
    """The shared state: opened when the application starts, closed when it ends.

    Attributes:
        abandoned_ended: whether the jobs that a killed service left behind were ended.
        started: time of the start, ISO 8601.
        read_threads: limits threads that read images and thumbnails.
        ingest_threads: limits threads that add images.
        decoders: threads that decode added images.
        serving: the lock that keeps the gallery's directory from being replaced.
        queries: codes of recent searches, for recalibration.
        recall: repeats some searches exactly.
        map: places of the images by their leading coordinates; filled by its first use.
        facets: counts of the metadata's values; filled by their first use.
        dates: the images' order by date; filled by its first use.
        forgotten: when queries were last forgotten, as the gallery records it.
    """

    settings: Settings
    gallery: Gallery
    snapshots: SnapshotManager
    jobs: Jobs
    started: str
    abandoned_ended: bool
    runner: Runner
    keyring: Keyring
    metrics: Metrics
    read_threads: ThreadLimiter
    batcher: SearchBatcher
    ingest_threads: ThreadLimiter
    decoders: ThreadPoolExecutor
    serving: Lock
    queries: RecentQueries
    recall: RecallChecker
    thumbnails: Thumbnails = field(default_factory=Thumbnails)
    map: GalleryMap = field(default_factory=GalleryMap)
    facets: Facets = field(default_factory=Facets)
    dates: Dates = field(default_factory=Dates)
    forgotten: Hashable = None

    def forget_queries(self) -> None:
        """Forget the codes of all searches, in every worker; the others follow within a second."""
        self.gallery.store.record_forgetting()
        self.follow_forgetting()

    def hold_serving(self) -> None:
        """Take the lock of those that serve again, if it ended with a server that was started anew or replaced."""
        try:
            self.serving.verify()
        except GalleryBusyError:
            self.serving.close()
            self.serving = self.gallery.serving()

    def follow_forgetting(self) -> None:
        """Forget the codes of searches if any worker was told to since the last call."""
        forgotten = self.gallery.store.last_forgetting()
        if forgotten != self.forgotten:
            self.queries.forget()
            self.recall.forget()
            self.forgotten = forgotten


@dataclass
class Timing:
    """The time of each stage of a request, in milliseconds."""

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
        """Value of the Server-Timing header."""
        return ", ".join(f"{name};dur={ms}" for name, ms in self.stages.items())


def state_of(request: Request) -> State:
    """Return the application's state. Raises: NotReadyError, while it starts."""
    state: State | None = getattr(request.app.state, "eigenlens", None)
    if state is None:
        raise NotReadyError("the service is starting")
    return state


async def get_state(request: Request) -> State:
    """Return the state as a dependency; a coroutine, since FastAPI runs others in a thread. Raises: NotReadyError."""
    return state_of(request)


CurrentState = Annotated[State, Depends(get_state)]
