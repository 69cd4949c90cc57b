"""The timer of plans during a build: one query at a time, and never with queries that the plan before has just used.

Codes larger than the memory budget are searched a few queries at a time, and their pages are released in between, so
that a build of any number of codes takes bounded memory. Such a search first runs untimed, so that the pages it reads
are mapped, as they are in a running service. Then the processor's cache is overwritten, and the search is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex
from eigenlens.index.live.prefix_index import AnyPrefixIndex
from eigenlens.index.plans.plan import Plan
from eigenlens.index.threads import all_cores
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

Latencies = dict[str, float]

MIN_TIMED = 10
_TIMED_S = 0.25
_WARM_UP = 3
# From this number of plans on, a line through their times is more accurate than the times themselves.
_MIN_PLANS_FOR_LINE = 8
# For codes beyond the memory budget: rows of shortlists that are mapped at once (the system maps up to 450 KB around
# each), and the least number of queries.
_MAPPED_ROWS, _MIN_MAPPED = 2048, 3
_SCANS = 3
# Larger than the cache of nearly any processor.
_DISPLACING_BYTES = 1 << 26


class Timer:
    """Times plans of indexes over some codes.

    Attributes:
        queries: number of queries that time a plan.
    """

    def __init__(
        self,
        codes: Codes,
        queries: NDArray[np.float32],
        scores: NDArray[np.float32],
        *,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        """Time with queries (q, code_length) and their exact scores (q, k), best first; (0, k) if these are unknown."""
        self._codes, self._queries, self._scores = codes, queries, scores
        self._turn, self._tuning = 0, tuning
        self.queries = min(tuning.timed_queries, max(MIN_TIMED, len(codes) // 100))

    def latencies(self, index: AnyPrefixIndex, plan: Plan, *, queries: int | None = None) -> Latencies:
        """Return the percentiles of a plan's times, in milliseconds."""
        return percentiles(self.times(index, plan, queries=queries or self.queries))

    def times(self, index: AnyPrefixIndex, plan: Plan, *, queries: int) -> list[float]:
        """Return the milliseconds of each of several queries, one at a time; at least one is timed."""
        if self._codes.exceeds_memory_budget and not index.kind.has_file:
            return self._times_of_parts(index.count, plan.shortlist or min(10, index.count))
        if self._codes.exceeds_memory_budget:
            queries = min(queries, max(_MIN_MAPPED, _MAPPED_ROWS // (plan.shortlist or 10) - _WARM_UP))
        indices = [(self._turn + number) % len(self._queries) for number in range(queries + _WARM_UP)]
        search = self._search(index, plan)
        # A first search may open or compile something, which can take longer than all the others.
        if self._codes.exceeds_memory_budget:
            indices = _map_pages(search, indices)
        else:
            search((self._turn - 1) % len(self._queries))
        times = []
        warm_up = min(_WARM_UP, len(indices) - 1)
        started = time.perf_counter()
        for number, query in enumerate(indices):
            begun = time.perf_counter()
            search(query)
            ended = time.perf_counter()
            if number >= warm_up or ended - started > _TIMED_S:
                times.append(1000 * (ended - begun))
            if ended - started > _TIMED_S:
                break
        self._codes.release_pages()
        self._turn += number + 2  # the same queries again would find their lists in the cache
        return times

    def _search(self, index: AnyPrefixIndex, plan: Plan) -> Callable[[int], object]:
        """Return a function that searches with the query of an index."""
        k = min(10, index.count)
        full = index.spec.length == self._codes.code_length
        if isinstance(index, PrefixIndex) and index.kind.prunes and full and len(self._scores):
            # In a service, a quick search gives nearly this bound in negligible time.
            return lambda query: index.search_above(self._queries[query][None], k, least=self._scores[query, k - 1 : k])
        return lambda query: index.run(self._queries[query][None], plan=plan, k=k)

    def _times_of_parts(self, count: int, k: int) -> list[float]:
        """Return the milliseconds of whole scans of large codes, timed part by part to keep only a part in memory."""
        queries = self._queries[:_SCANS]
        times = np.zeros(len(queries))
        step = self._tuning.timed_scan_rows
        for start in range(0, count, step):
            part = self._codes.scan(min(start + step, count), start=start)
            with all_cores(False):
                part.search(queries[:1], k)  # maps its pages
                for number in range(len(queries)):
                    begun = time.perf_counter()
                    part.search(queries[number : number + 1], k)
                    times[number] += 1000 * (time.perf_counter() - begun)
            self._codes.release_pages()
        return [float(ms) for ms in times]


def _map_pages(search: Callable[[int], object], indices: list[int]) -> list[int]:
    """Search with queries, as many as there is time for, to map the pages that they read; then displace the cache.

    Returns: the indices of those queries.
    """
    started = time.perf_counter()
    searched: list[int] = []
    while len(searched) < len(indices) and time.perf_counter() - started < _TIMED_S:
        searched.append(indices[len(searched)])
        search(searched[-1])
    np.ones(_DISPLACING_BYTES, dtype=np.uint8).sum()
    return searched


def percentiles(times: Sequence[float]) -> Latencies:
    """Return the median, the 95th and the 99th percentile, as "p50", "p95" and "p99"."""
    return {f"p{q}": round(float(np.percentile(times, q)), 4) for q in (50, 95, 99)}


def smoothed(measured: Mapping[Plan, Latencies]) -> dict[Plan, Latencies]:
    """Return latencies of one index's plans with their medians moved onto lines; the others keep their ratio.

    Plans whose compact codes leave as many candidates share a line.
    """
    alike: dict[int, dict[Plan, Latencies]] = {}
    for plan, latencies in measured.items():
        alike.setdefault(plan.final_shortlist, {})[plan] = latencies
    return {plan: moved for plans in alike.values() for plan, moved in _on_a_line(plans).items()}


def _on_a_line(measured: Mapping[Plan, Latencies]) -> dict[Plan, Latencies]:
    if len(measured) < _MIN_PLANS_FOR_LINE:
        return dict(measured)
    guess = line_through([(plan, latencies["p50"]) for plan, latencies in measured.items()])
    return {
        plan: {q: round(ms * guess(plan) / latencies["p50"], 4) for q, ms in latencies.items()}
        for plan, latencies in measured.items()
    }


def line_through(tried: Sequence[tuple[Plan, float]]) -> Callable[[Plan], float]:
    """Fit a line to the latencies of plans: a constant, plus a time per step of effort and per shortlist candidate.

    The fit is by least squares of relative errors. Nothing takes less than no time: a term that would is left out.

    Returns: a function that estimates the latency of a plan.
    """
    terms = np.array([_terms(plan) for plan, _ in tried])
    relative = terms / np.array([latency for _, latency in tried])[:, None]
    costs, kept = np.zeros(terms.shape[1]), list(range(terms.shape[1]))
    while kept:
        costs[kept] = np.linalg.lstsq(relative[:, kept], np.ones(len(tried)), rcond=None)[0]
        least = min(kept, key=lambda term: costs[term])
        if costs[least] >= 0:
            break
        kept.remove(least)
        costs[least] = 0
    return lambda plan: float(np.dot(_terms(plan), costs))


def _terms(plan: Plan) -> tuple[float, float, float]:
    return 1.0, float(plan.effort or 0), float(plan.shortlist or 0)
