"""Dynamic batching: threads prepare requests one by one and finish them in batches, off the event loop.

A thread takes waiting requests and prepares each of them, until none is waiting, the batch is full, or it has spent as
long on this as finishing a batch takes. Then it finishes the batch. So a request to an idle service never waits for
others, and a busy service fills its batches without a long wait for the first request of each.

Light requests, which take less time than handing them to a thread and back, are answered on the event loop: those that
arrived in one of its turns together. Work that turns out to take longer goes to the threads after all.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect

from eigenlens.service.errors import DeadlineError, OverloadedError

Q = TypeVar("Q")
A = TypeVar("A")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Observe = Callable[[str, float], None]

# Longest time that a thread collects requests for one batch.
_MAX_WINDOW_S = 0.01
# Time between two looks for deadlines that passed.
_SWEEP_S = 0.05
# A batch may always hold this many requests, even if batching does not speed up the work itself: threads that take
# single requests wait for the interpreter and each other longer than a batch's first request waits for its last.
MIN_BATCH = 4
# Weight of the newest measurement in a moving average.
_SMOOTHING = 0.1
# Light requests that are answered in one turn of the event loop.
_MAX_LIGHT = 16
# Where such a turn takes longer than this in the mean, light requests go to the threads for a while.
_MAX_TURN_S, _PAUSE_S = 0.02, 1.0


class _Job(Generic[Q, A]):
    """An accepted request. It is done as soon as its future has a result or an error."""

    __slots__ = ("arrived", "future", "place", "query", "receive", "watch")

    def __init__(self, query: Q, future: asyncio.Future[A], receive: Receive | None, *, place: int) -> None:
        """Accept a request as number `place` of those in progress, counted from 1."""
        self.query, self.future, self.receive, self.place = query, future, receive, place
        self.arrived = time.perf_counter()
        self.watch: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        return self.future.done()

    def end(self, outcome: A | BaseException) -> None:
        """Set the result or the error of the request, unless it is done. Call this on the event loop only."""
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Batcher(Generic[Q, A]):
    """Threads that prepare and finish requests. The number of requests in progress is bounded; each has a deadline.

    A request whose client left or whose deadline passed is dropped: it is not prepared or finished any more.

    `prepare` does the work that needs one request only; an error that it raises is that request's answer. `finish`
    returns the answers to several prepared requests, in the same order; an error among them is the answer to that
    request only. Several threads call both at once, and also `observe`, with a name and a value: "batch" (number of
    requests in a batch) and "queue" (seconds that a request waited for a thread).
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
        self._is_light: Callable[[Q], bool] = lambda query: False
        self._answer_light = finish
        self._light: deque[_Job[Q, A]] = deque()
        self._turn_s = self._resume_at = 0.0
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

    def answer_at_once(
        self, is_light: Callable[[Q], bool], answer: Callable[[Sequence[Q]], Sequence[A | Exception]]
    ) -> None:
        """Answer light requests on the event loop from now on.

        Args:
            is_light: whether `answer` answers a request in less time than it takes to wake a thread.
            answer: returns answers as `finish` does, of requests that were not prepared. Where it raises anything,
                threads prepare and finish these requests.
        """
        self._is_light, self._answer_light = is_light, answer

    @property
    def depth(self) -> int:
        """Number of requests in progress: accepted and not yet answered."""
        return len(self._jobs)

    @property
    def waiting(self) -> int:
        """Number of requests that no thread has taken yet."""
        return self._waiting.qsize()

    @property
    def full(self) -> bool:
        """Whether the next request would be refused."""
        return self.depth >= self._max_waiting or self.depth * self._pace_s > self._deadline_s

    def check(self) -> None:
        """Check that one more request can be answered in time. Raises: OverloadedError."""
        if self.full:
            raise OverloadedError(f"{self.depth} searches are in progress already; try again in a moment")

    async def run(self, query: Q, *, receive: Receive | None = None) -> A:
        """Return the answer to a request, once a thread has prepared and finished it.

        Args:
            receive: ASGI's receive function of the connection, after the body was read; it reports that the client
                left.

        Raises: OverloadedError, at once; DeadlineError; ClientDisconnect; any error of this request's own work.
        """
        self.check()
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        job = _Job(query, future, receive, place=len(self._jobs) + 1)
        self._jobs[job] = None
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep())
        if self._may_answer_at_once(job):
            self._light.append(job)
            if len(self._light) == 1:
                job.future.get_loop().call_soon(self._answer_some)
        else:
            self._waiting.put(job)
        try:
            return await job.future
        finally:
            del self._jobs[job]
            if job.watch is not None:
                job.watch.cancel()

    def close(self) -> None:
        """Finish all accepted requests, then end the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    async def _sweep(self) -> None:
        """End requests whose deadline passed, and watch the clients of the others.

        Most requests are answered before the first sweep, so they never cost a task that watches their client.
        """
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

    def _may_answer_at_once(self, job: _Job[Q, A]) -> bool:
        """Whether a request is light, and light requests took little time so far."""
        return job.arrived >= self._resume_at and self._is_light(job.query)

    def _answer_some(self) -> None:
        """Answer light requests on the event loop, those that arrived in its last turn together."""
        jobs = [self._light.popleft() for _ in range(min(_MAX_LIGHT, len(self._light)))]
        if self._light:  # let others have a turn before the rest
            jobs[0].future.get_loop().call_soon(self._answer_some)
        jobs = [job for job in jobs if not job.is_done]
        if not jobs:
            return
        begun = time.perf_counter()
        try:
            outcomes = self._answer_light([job.query for job in jobs])
        except Exception:  # whatever it is, such as work that has to wait: a thread can, and tells what is wrong
            for job in jobs:
                self._waiting.put(job)
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.end(outcome)
        ended = time.perf_counter()
        for job in jobs:
            self._observe("queue", begun - job.arrived)
        self._observe("batch", len(jobs))
        self._pace_s += _SMOOTHING * ((ended - jobs[-1].arrived) / jobs[-1].place - self._pace_s)
        self._turn_s += _SMOOTHING * (ended - begun - self._turn_s)
        if self._turn_s > _MAX_TURN_S:
            self._turn_s, self._resume_at = 0.0, ended + _PAUSE_S

    def _run(self) -> None:
        while self._run_batch():
            pass

    def _run_batch(self) -> bool:
        """Wait for a request, and answer a batch of those that wait; whether there was one, and not the signal to end.

        A method of its own, so that a thread that waits keeps nothing of its last batch, such as what it searched.
        """
        job = self._waiting.get()
        if job is None:
            return False
        batch: list[_Job[Q, A]] = []
        begun = time.perf_counter()
        while job is not None:
            if not job.is_done and self._prepare_one(job):
                batch.append(job)
            if len(batch) >= self._batch_limit(len(batch)) or time.perf_counter() - begun > self._window_s:
                break
            job = self._next_waiting()
        self._finish_all(batch)
        return True

    def _batch_limit(self, taken: int) -> int:
        """Return the size of a full batch: MIN_BATCH, or this thread's share of the waiting requests if larger."""
        return min(self._max_batch(), max(MIN_BATCH, -(-(taken + self._waiting.qsize()) // len(self._threads))))

    def _next_waiting(self) -> _Job[Q, A] | None:
        try:
            job = self._waiting.get_nowait()
        except Empty:
            return None
        if job is None:  # the signal that ends a thread: leave it to another, as this one still has a batch to finish
            self._waiting.put(None)
        return job

    def _prepare_one(self, job: _Job[Q, A]) -> bool:
        self._observe("queue", time.perf_counter() - job.arrived)
        try:
            self._prepare(job.query)
        except Exception as error:  # any error is the answer to this request
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
        self._observe("batch", len(jobs))  # who has an answer finds it counted
        _deliver(jobs, outcomes)
        ended = time.perf_counter()
        self._window_s += _SMOOTHING * (min(ended - begun, _MAX_WINDOW_S) - self._window_s)
        self._pace_s += _SMOOTHING * ((ended - jobs[0].arrived) / jobs[0].place - self._pace_s)


async def _watch(job: _Job[Any, Any], receive: Receive) -> None:
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
    job.end(ClientDisconnect())


def _deliver(jobs: Sequence[_Job[Any, Any]], outcomes: Sequence[Any]) -> None:
    """Hand the answers to the event loop in one call, since waking the loop costs more than delivering an answer."""

    def end() -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.end(outcome)

    try:
        jobs[0].future.get_loop().call_soon_threadsafe(end)
    except RuntimeError:  # the loop is closed: no client is waiting any more
        return
