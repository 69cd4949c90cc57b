"""Queries a second with all cores: batches of several sizes, by one caller or by as many as there are cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eigenlens.benchmarks.search.interleaved import Search
from eigenlens.benchmarks.search.setup import CORES, Ids, Vectors

RECALLS = (0.95, 0.99)
_LEAST_QUERIES, _TRIES = 2000, 2  # of a turn; of each way


@dataclass(frozen=True)
class BatchTrial:
    """Batches that all cores search.

    Attributes:
        prepare: makes a search of so many threads, queries (q, d) to ids (q, 10).
        queries: of all, (n, d).
        batch: queries of a call.
        callers: threads that call; with one, the search has a thread for each core, and one thread otherwise.
    """

    name: str
    prepare: Callable[[int], Search]
    queries: Vectors
    batch: int
    callers: int
    params: Mapping[str, Any] = field(default_factory=dict)
    passes: int = 1

    def take_turn(self, turn: int) -> tuple[list[float], list[Ids]]:
        """Return the milliseconds of a query, its share of all; and in the first turn the ids of each query."""
        calls = max(-(-_LEAST_QUERIES // self.batch), self.callers)
        rows = np.arange(calls * self.batch).reshape(calls, self.batch) % len(self.queries)
        batches = [self.queries[numbers] for numbers in rows]
        # The calls of a caller are its own, so that callers share nothing.
        searches = [self.prepare(CORES if self.callers == 1 else 1) for _ in range(self.callers)]
        shares = [range(n, calls, self.callers) for n in range(self.callers)]
        ids: list[Ids] = [np.empty(0, np.int64)] * calls

        def call(search: Search, share: range) -> None:
            for number in share:
                ids[number] = search(batches[number])

        for search in searches:
            search(batches[-1])
        with ThreadPoolExecutor(self.callers) as pool:
            begun = time.perf_counter()
            for job in [pool.submit(call, *pair) for pair in zip(searches, shares, strict=True)]:
                job.result()
            took = time.perf_counter() - begun
        first = list(np.concatenate(ids)[: len(self.queries)]) if turn == 0 else []
        return [1000 * took / rows.size], first


def batch_trials(
    prepare: Callable[[int], Search], queries: Vectors, batches: Sequence[int], *, target: float, **params: Any
) -> Iterator[BatchTrial]:
    """Yield a trial for each size of batch, with one caller or one for each core: what is quicker when tried."""
    for batch in batches:
        described = {"target": target, "batch": batch} | params
        trial = BatchTrial(f"batch {batch} recall {target}", prepare, queries, batch, 1, described)
        ways = [trial, *([replace(trial, callers=CORES)] if CORES > 1 else [])]
        tried = [(way.take_turn(1)[0], way) for _ in range(_TRIES) for way in ways]
        best = min(tried, key=lambda pair: pair[0])[1]
        yield replace(best, params=described | {"callers": best.callers})
