"""Dynamic batching: concurrent requests are prepared in parallel and finished together, off the event loop.

Every thread does what is most urgent: finish a batch that is full or has waited long enough, or else prepare the next
request. So an idle service waits for nothing, and a busy one fills its batches while it prepares.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect

from service.errors import DeadlineError, OverloadedError

Q = TypeVar("Q")
A = TypeVar("A")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Observe = Callable[[str, float], None]

# Waiting for company is never worth more than this, nor more than the work that it may save.
_MAX_WINDOW_S = 0.005
_SWEEP_S = 0.05
_SMOOTHING = 0.1


class _Job(Generic[Q, A]):
    """A request that was accepted. It is over when its future is done, whoever did that."""

    __slots__ = ("arrived", "future", "place", "query", "ready", "receive", "watch")

    def __init__(self, query: Q, future: asyncio.Future[A], receive: Receive | None, *, place: int) -> None:
        """Take the place-th of the places for requests in progress."""
        self.query, self.future, self.receive, self.place = query, future, receive, place
        self.arrived = self.ready = time.perf_counter()
        self.watch: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
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

    A request that is over, because its client left or its deadline passed, is dropped where it is next looked at: it
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
        max_batch: int,
        deadline_s: float,
        observe: Observe = lambda name, value: None,
    ) -> None:
        self._prepare, self._finish, self._observe = prepare, finish, observe
        self._max_waiting, self._max_batch, self._deadline_s = max_waiting, max_batch, deadline_s
        self._jobs: dict[_Job[Q, A], None] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._changed = threading.Condition()
        self._waiting: deque[_Job[Q, A]] = deque()
        self._ready: list[_Job[Q, A]] = []
        self._preparing = 0
        self._window_s = 0.0
        self._pace_s = 0.0
        self._closed = False
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
        """Raises: OverloadedError, if as many requests as can be answered in time are in progress."""
        if self.full:
            raise OverloadedError(f"{self.depth} searches are in progress already; try again in a moment")

    async def run(self, query: Q, *, receive: Receive | None = None) -> A:
        """The answer to a request, as the work gives it.

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
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        try:
            return await job.future
        finally:
            del self._jobs[job]
            if job.watch is not None:
                job.watch.cancel()

    def close(self) -> None:
        """Finish what was accepted, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
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
        while True:
            jobs, prepared = self._next()
            if not jobs:
                return
            if prepared:
                self._finish_batch(jobs)
            else:
                self._prepare_one(jobs[0])

    def _next(self) -> tuple[list[_Job[Q, A]], bool]:
        """A batch to finish (True), or one request to prepare (False); nothing when closed and all is done."""
        with self._changed:
            while True:
                while self._waiting and self._waiting[0].over:
                    self._waiting.popleft()
                pending = self._waiting or self._preparing
                if self._ready:
                    left_s = self._ready[0].ready + self._window_s - time.perf_counter()
                    if not pending or len(self._ready) >= self._max_batch or left_s <= 0:
                        batch = self._ready[: self._max_batch]
                        del self._ready[: self._max_batch]
                        return batch, True
                if self._waiting:
                    self._preparing += 1
                    return [self._waiting.popleft()], False
                if self._closed and not pending:
                    return [], False
                self._changed.wait(left_s if self._ready else None)

    def _prepare_one(self, job: _Job[Q, A]) -> None:
        begun = time.perf_counter()
        error: Exception | None = None
        try:
            self._prepare(job.query)
        except Exception as raised:  # it is this request's answer, whatever it is
            error = raised
        job.ready = time.perf_counter()
        self._observe("queue", begun - job.arrived)
        with self._changed:
            self._preparing -= 1
            if error is None:
                self._ready.append(job)
            self._changed.notify()
        if error is not None:
            _deliver([job], [error])

    def _finish_batch(self, batch: list[_Job[Q, A]]) -> None:
        jobs = [job for job in batch if not job.over]
        if not jobs:
            return
        begun = time.perf_counter()
        outcomes: Sequence[A | Exception]
        try:
            outcomes = self._finish([job.query for job in jobs])
        except Exception as raised:
            outcomes = [raised] * len(jobs)
        _deliver(jobs, outcomes)
        ended = time.perf_counter()
        self._observe("batch", len(jobs))
        took, each = ended - begun, (ended - jobs[0].arrived) / jobs[0].place
        self._window_s += _SMOOTHING * (min(took, _MAX_WINDOW_S) - self._window_s)
        self._pace_s += _SMOOTHING * (each - self._pace_s)


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
