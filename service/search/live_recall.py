"""Live recall: a few searches are repeated exactly while the service is idle, and what they had found is counted."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median_low

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import SearchError
from eigenlens.index.metrics import recall_interval
from eigenlens.index.plans.calibration import DEFAULT_TARGET, measured_count
from eigenlens.index.plans.plan import Plan
from eigenlens.service.gallery.store.records import Position
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.request import SearchRequest
from eigenlens.service.search.snapshot import SearchResult, Snapshot

log = logging.getLogger(__name__)

# Share of a core that the exact searches may take: of a service that has idle moments, and of one that has none.
_MAX_LOAD, _MAX_BUSY_LOAD = 0.01, 0.0025
# Searches that wait to be repeated; a newer one takes the place of the oldest.
_MAX_PENDING = 64
# Recall is told of so many searches of a promise, the last ones; and of so many promises, those that were checked last.
_WINDOW, _MAX_PROMISES = 1000, 50
# Pause before the next look whether the service is idle. After so long without an idle moment, it is enough that no
# search waits for a thread.
_POLL_S, _PATIENCE_S = 0.1, 1.0
# A pause is as long as the median of the last searches asks: one of them may include a collection of all garbage.
_TIMED = 3
# A promise counts as broken where recall is certainly lower by more than this: so exactly it was measured.
_TOLERANCE = 0.005


@dataclass(frozen=True)
class Promise:
    """What searches were promised. Searches with the same promise are counted together.

    Attributes:
        plan: that they ran.
        k: number of results; the next that calibration measures.
        filtered: whether they had a filter.
        target: recall that they asked for, or that holds where nothing is asked for; None for a plan that they fixed.
        expected: recall that calibration measured; None where it did not.
    """

    plan: Plan
    k: int
    filtered: bool
    target: float | None
    expected: float | None

    @property
    def recall(self) -> float | None:
        """The recall that was promised: the target, or what was expected; None if nothing was."""
        return self.expected if self.target is None else self.target


@dataclass(frozen=True)
class ReachedRecall:
    """Recall that the last searches of a promise reached, with its confidence interval of 95 %."""

    promise: Promise
    checks: int
    mean: float
    low: float
    high: float

    @property
    def below_promise(self) -> bool:
        """Whether recall is certainly below what was promised, by more than half a point."""
        promised = self.promise.recall
        return promised is not None and self.high < promised - _TOLERANCE


@dataclass(frozen=True)
class _Sample:
    """A search that was answered, and the position in the gallery's history that its engine had before it."""

    snapshot: Snapshot
    position: Position
    code: NDArray[np.float32]
    request: SearchRequest
    result: SearchResult


class RecallChecker:
    """Repeats a random share of the searches exactly, in a thread of its own, and keeps what they had found.

    checker = RecallChecker(0.05, snapshots)
    checker.start(is_idle=lambda: batcher.depth == 0, has_room=lambda: batcher.waiting == 0)
    """

    def __init__(self, share: float, snapshots: SnapshotManager, *, seed: int | None = None) -> None:
        """Check a share of the searches of what is served; 0 for none."""
        self.share = share
        self._snapshots = snapshots
        self._random = random.Random(seed)
        self._pending: deque[_Sample] = deque(maxlen=_MAX_PENDING)
        self._offered, self._closed = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._generation = 0
        self._recalls: OrderedDict[Promise, deque[float]] = OrderedDict()
        self._thread: threading.Thread | None = None

    def offer(
        self,
        snapshot: Snapshot,
        position: Position,
        code: NDArray[np.float32],
        request: SearchRequest,
        result: SearchResult,
    ) -> None:
        """Take a search that was just answered, with the probability of `share`. Costs microseconds.

        Args:
            position: of the snapshot manager, read before the search.
        """
        if not self.share or self._random.random() >= self.share:
            return
        is_exact = result.measured is not None and result.measured.exact
        if request.offset or request.duplicate_cosine is not None or is_exact:
            return
        self._pending.append(_Sample(snapshot, position, code, request, result))
        self._offered.set()

    def start(self, *, is_idle: Callable[[], bool], has_room: Callable[[], bool]) -> None:
        """Start the thread.

        Args:
            is_idle: whether no search is in progress.
            has_room: whether no search waits for a thread.
        """
        if self.share:
            self._thread = threading.Thread(
                target=self._run, args=(is_idle, has_room), name="recall-checker", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """End the thread, after the search that it repeats now."""
        self._closed.set()
        self._offered.set()
        if self._thread is not None:
            self._thread.join()

    def reached(self) -> list[ReachedRecall]:
        """Return the recall of each promise in the generation that is served, the last checked first."""
        number = self._snapshots.current.number
        with self._lock:
            recalls = [] if number != self._generation else [(p, list(r)) for p, r in self._recalls.items()]
        return [
            ReachedRecall(promise, len(values), sum(values) / len(values), *recall_interval(np.array(values)))
            for promise, values in reversed(recalls)
        ]

    def forget(self) -> None:
        """Forget the searches that wait to be repeated; they hold codes of queries."""
        self._pending.clear()

    def _run(self, is_idle: Callable[[], bool], has_room: Callable[[], bool]) -> None:
        waiting_since = time.monotonic()
        spent_s: deque[float] = deque(maxlen=_TIMED)
        while not self._closed.is_set():
            if not self._pending:
                self._offered.clear()
                if not self._pending:
                    self._offered.wait()
                waiting_since = time.monotonic()
                continue
            idle = is_idle()
            if not idle and not (has_room() and time.monotonic() - waiting_since > _PATIENCE_S):
                self._closed.wait(_POLL_S)
                continue
            begun = time.thread_time()
            try:
                self._check(self._pending.pop())
            except IndexError:  # it was forgotten meanwhile
                continue
            except SearchError as error:
                log.warning("a search could not be repeated to measure recall: %s", error)
            except Exception:
                log.exception("a search could not be repeated to measure recall")
            # An exact search runs in this thread alone: with this pause, it takes the allowed share of a core. What it
            # waits for a busy machine does not count.
            load = _MAX_LOAD if idle else _MAX_BUSY_LOAD
            spent_s.append(time.thread_time() - begun)
            self._closed.wait(median_low(spent_s) * (1 / load - 1))
            waiting_since = time.monotonic()

    def _check(self, sample: _Sample) -> None:
        """Repeat a search exactly and count what it had found, unless the images have changed since."""
        snapshot, request = sample.snapshot, sample.request
        if not self._is_unchanged(sample):
            return
        true_keys = snapshot.exact_keys(sample.code, request)
        self._snapshots.sync()  # ends a change that the exact search may have seen in part, and tells its position
        if not true_keys or not self._is_unchanged(sample):
            return
        keys = {hit.record.key for hit in sample.result.hits}
        recall = len(keys.intersection(true_keys)) / len(true_keys)
        self._record(snapshot.number, promise_of(request, sample.result), recall)

    def _is_unchanged(self, sample: _Sample) -> bool:
        """Return whether the engine that answered is served, with the images that it had."""
        return sample.snapshot is self._snapshots.current and sample.position == self._snapshots.position

    def _record(self, generation: int, promise: Promise, recall: float) -> None:
        with self._lock:
            if generation != self._generation:  # plans of another generation are other plans
                self._recalls.clear()
                self._generation = generation
            self._recalls.setdefault(promise, deque(maxlen=_WINDOW)).append(recall)
            self._recalls.move_to_end(promise)
            if len(self._recalls) > _MAX_PROMISES:
                self._recalls.popitem(last=False)


def promise_of(request: SearchRequest, result: SearchResult) -> Promise:
    """Return what a search was promised."""
    plan, target = request.plan, request.plan.target_recall
    if target is None and plan.length is None and plan.max_latency_ms is None:
        target = DEFAULT_TARGET
    recall = None if result.measured is None else result.measured.recall_for(request.depth)
    return Promise(
        plan=result.plan,
        k=measured_count(request.depth),
        filtered=request.filter is not None,
        target=target,
        expected=None if recall is None else recall.mean,
    )
