"""Dynamic batching: concurrent requests are prepared in parallel and finished together, off the event loop.

Each thread prepares one waiting request after the other and then finishes those together. It goes on preparing for as
long as requests wait, the batch has room, and no longer than finishing a batch takes: so an idle service waits for
nothing, and a busy one fills its batches without making the first of a batch wait for long.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect

from eigenlens.service.errors import DeadlineError, OverloadedError

Q = TypeVar("Q")
A = TypeVar("A")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Observe = Callable[[str, float], None]

_MAX_WINDOW_S = 0.01
_SWEEP_S = 0.05
# So many requests are done together whatever is gained by it in the work itself: threads that take requests one by one
# wait for the interpreter, and for each other, longer than the first of so many waits for the last.
MIN_BATCH = 4
_SMOOTHING = 0.1


class _Job(Generic[Q, A]):
    """A request that was accepted. It is done when its future is, whoever ended it."""

    __slots__ = ("arrived", "future", "place", "query", "receive", "watch")

    def __init__(self, query: Q, future: asyncio.Future[A], receive: Receive | None, *, place: int) -> None:
        """Take the place-th of the places for requests in progress."""
        self.query, self.future, self.receive, self.place = query, future, receive, place
        self.arrived = time.perf_counter()
        self.watch: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        return self.future.done()

    def end(self, outcome: A | BaseException) -> None:
        """Answer it, on the event loop."""
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Batcher(Generic[Q, A]):
    """Threads that prepare and finish requests; a bounded number of requests in progress, each with a deadline.

    A request that is done, because its client left or its deadline passed, is dropped where it is next looked at: it
    is neither prepared nor finished.

    `prepare` does what can be done for one request alone; what it raises is that request's answer. `finish` gives the
    answers to several prepared requests, in their order; an error among them is the answer to its request alone. Both
    are called from several threads at once, and so is `observe`, with what was measured: "batch" (requests that were
    finished together) and "queue" (seconds that a request waited for a thread).
    """

    def __init__(
        self,
        prepare: Callable[[Q], None],
        finish: Callable[[Sequence[Q]], Sequence[A | Exception]],
        *,
        threads: int,
        max_waiting: int,
        max_batch: Callable[[], int],
        deadline_s: float,
        observe: Observe = lambda name, value: None,
    ) -> None:
        self._prepare, self._finish, self._observe = prepare, finish, observe
        self._max_waiting, self._max_batch, self._deadline_s = max_waiting, max_batch, deadline_s
        self._jobs: dict[_Job[Q, A], None] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._waiting: SimpleQueue[_Job[Q, A] | None] = SimpleQueue()
        self._window_s = 0.0
        self._pace_s = 0.0
        self._threads = [
            threading.Thread(target=self._run, name=f"batcher-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """Requests in progress: accepted, and not answered yet."""
        return len(self._jobs)

    @property
    def full(self) -> bool:
        """Whether another request would be refused."""
        return self.depth >= self._max_waiting or self.depth * self._pace_s > self._deadline_s

    def check(self) -> None:
        """Refuse a request that could not be answered in time. Raises: OverloadedError."""
        if self.full:
            raise OverloadedError(f"{self.depth} searches are in progress already; try again in a moment")

    async def run(self, query: Q, *, receive: Receive | None = None) -> A:
        """Answer a request, as the work does.

        Args:
            receive: of the request's connection, whose body was read; tells when the client leaves.

        Raises: OverloadedError, at once; DeadlineError; ClientDisconnect; what the work raised for this request.
        """
        self.check()
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        job = _Job(query, future, receive, place=len(self._jobs) + 1)
        self._jobs[job] = None
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep())
        self._waiting.put(job)
        try:
            return await job.future
        finally:
            del self._jobs[job]
            if job.watch is not None:
                job.watch.cancel()

    def close(self) -> None:
        """Finish what was accepted, then end the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    async def _sweep(self) -> None:
        """End requests whose deadline passed; watch the clients of those that wait, which most never do long enough."""
        every_s = min(_SWEEP_S, self._deadline_s / 4)
        while self._jobs:
            await asyncio.sleep(every_s)
            now = time.perf_counter()
            for job in list(self._jobs):
                if now - job.arrived >= self._deadline_s:
                    job.end(DeadlineError(f"the search was not answered within {self._deadline_s:g} s; try again"))
                elif job.watch is None and job.receive is not None and now - job.arrived >= every_s:
                    job.watch = asyncio.create_task(_watch(job, job.receive))
        self._sweeper = None

    def _run(self) -> None:
        while (job := self._waiting.get()) is not None:
            batch: list[_Job[Q, A]] = []
            begun = time.perf_counter()
            while job is not None:
                if not job.is_done and self._prepare_one(job):
                    batch.append(job)
                if len(batch) >= self._batch_limit(len(batch)) or time.perf_counter() - begun > self._window_s:
                    break
                job = self._next_waiting()
            self._finish_all(batch)

    def _batch_limit(self, taken: int) -> int:
        """Return how many requests a batch holds at most: a few, or this thread's share of those that wait."""
        return min(self._max_batch(), max(MIN_BATCH, -(-(taken + self._waiting.qsize()) // len(self._threads))))

    def _next_waiting(self) -> _Job[Q, A] | None:
        try:
            job = self._waiting.get_nowait()
        except Empty:
            return None
        if job is None:  # it ends some thread, and this one is busy
            self._waiting.put(None)
        return job

    def _prepare_one(self, job: _Job[Q, A]) -> bool:
        self._observe("queue", time.perf_counter() - job.arrived)
        try:
            self._prepare(job.query)
        except Exception as error:  # it is this request's answer, whatever it is
            _deliver([job], [error])
            return False
        return True

    def _finish_all(self, batch: Sequence[_Job[Q, A]]) -> None:
        jobs = [job for job in batch if not job.is_done]
        if not jobs:
            return
        begun = time.perf_counter()
        outcomes: Sequence[A | Exception]
        try:
            outcomes = self._finish([job.query for job in jobs])
        except Exception as error:
            outcomes = [error] * len(jobs)
        _deliver(jobs, outcomes)
        ended = time.perf_counter()
        self._observe("batch", len(jobs))
        self._window_s += _SMOOTHING * (min(ended - begun, _MAX_WINDOW_S) - self._window_s)
        self._pace_s += _SMOOTHING * ((ended - jobs[0].arrived) / jobs[0].place - self._pace_s)


async def _watch(job: _Job[Any, Any], receive: Receive) -> None:
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
    job.end(ClientDisconnect())


def _deliver(jobs: Sequence[_Job[Any, Any]], outcomes: Sequence[Any]) -> None:
    """Hand answers to the event loop, all at once: waking it costs more than an answer."""

    def end() -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.end(outcome)

    try:
        jobs[0].future.get_loop().call_soon_threadsafe(end)
    except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
        return
