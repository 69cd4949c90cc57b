"""Timing plans while a generation is built: one query after the other, each by queries that no plan had just before.

Codes larger than what may stay mapped are searched a few queries at a time, their pages let go of in between: a build
of any number of codes takes bounded memory. What such a search reads is mapped before it is timed, since a service
that runs has it mapped too, and what that left in the processor's cache is displaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex
from eigenlens.index.plans.plan import Plan
from eigenlens.index.threads import all_cores
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

Latencies = dict[str, float]

_TIMED_QUERIES = 150
MIN_TIMED = 10
_TIMED_S = 0.25
_WARM_UP = 3
# A line through the times of so many plans says more than the times.
_MIN_PLANS_FOR_LINE = 8
# Of large codes: rows of shortlists that are mapped at once, each with what the system maps around it, up to 450 KB;
# and queries whatever their shortlists.
_MAPPED_ROWS, _MIN_MAPPED = 2048, 3
_SCANS = 3
# Larger than any cache of a processor that this will run on, or nearly.
_DISPLACING_BYTES = 1 << 26


class Timer:
    """Times plans of indexes over some codes.

    Attributes:
        queries: that a plan is worth timing by.
    """

    def __init__(
        self,
        codes: Codes,
        queries: NDArray[np.float32],
        scores: NDArray[np.float32],
        *,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        """Time by queries, (q, code_length), of which the exact scores are known, (q, k), best first; (0, k) if not."""
        self._codes, self._asked, self._scores = codes, queries, scores
        self._turn, self._tuning = 0, tuning
        self.queries = min(_TIMED_QUERIES, max(MIN_TIMED, len(codes) // 100))

    def latencies(self, index: PrefixIndex, plan: Plan, *, queries: int | None = None) -> Latencies:
        """Percentiles of the milliseconds of one plan."""
        return percentiles(self.times(index, plan, queries=queries or self.queries))

    def times(self, index: PrefixIndex, plan: Plan, *, queries: int) -> list[float]:
        """Milliseconds of one query after the other; of at least one."""
        if self._codes.exceeds_memory_budget and not index.kind.has_file:
            return self._times_of_parts(index.count, plan.shortlist or min(10, index.count))
        if self._codes.exceeds_memory_budget:
            queries = min(queries, max(_MIN_MAPPED, _MAPPED_ROWS // (plan.shortlist or 10) - _WARM_UP))
        places = [(self._turn + number) % len(self._asked) for number in range(queries + _WARM_UP)]
        search = self._search(index, plan)
        if self._codes.exceeds_memory_budget:
            places = _mapped(search, places)
        times = []
        warm_up = min(_WARM_UP, len(places) - 1)
        started = time.perf_counter()
        for number, place in enumerate(places):
            begun = time.perf_counter()
            search(place)
            ended = time.perf_counter()
            if number >= warm_up or ended - started > _TIMED_S:
                times.append(1000 * (ended - begun))
            if ended - started > _TIMED_S:
                break
        self._codes.release_pages()
        self._turn += number + 1  # the same queries again would find their lists in the cache
        return times

    def _search(self, index: PrefixIndex, plan: Plan) -> Callable[[int], object]:
        """A search by the query at a place."""
        k = min(10, index.count)
        full = index.spec.length == self._codes.code_length
        if index.kind.prunes and full and len(self._scores):
            # A quick search tells the k-th score, or nearly, in no time.
            return lambda place: index.search_above(self._asked[place][None], k, least=self._scores[place, k - 1 : k])
        return lambda place: index.run(self._asked[place][None], plan=plan, k=k)

    def _times_of_parts(self, count: int, k: int) -> list[float]:
        """Milliseconds of scans of large codes, part by part: one of all at once would have them all in memory."""
        asked = self._asked[:_SCANS]
        times = np.zeros(len(asked))
        step = self._tuning.timed_scan_rows
        for start in range(0, count, step):
            part = self._codes.scan(min(start + step, count), start=start)
            with all_cores(False):
                part.search(asked[:1], k)  # maps it
                for number in range(len(asked)):
                    begun = time.perf_counter()
                    part.search(asked[number : number + 1], k)
                    times[number] += 1000 * (time.perf_counter() - begun)
            self._codes.release_pages()
        return [float(ms) for ms in times]


def _mapped(search: Callable[[int], object], places: list[int]) -> list[int]:
    """Search at the places, as many as there is time for, so that what they read is mapped; it does not stay cached.

    Returns: those places.
    """
    started = time.perf_counter()
    searched: list[int] = []
    while len(searched) < len(places) and time.perf_counter() - started < _TIMED_S:
        searched.append(places[len(searched)])
        search(searched[-1])
    np.ones(_DISPLACING_BYTES, dtype=np.uint8).sum()
    return searched


def percentiles(times: Sequence[float]) -> Latencies:
    """Median, 95th and 99th percentile."""
    return {f"p{q}": round(float(np.percentile(times, q)), 4) for q in (50, 95, 99)}


def smoothed(measured: Mapping[Plan, Latencies]) -> dict[Plan, Latencies]:
    """Latencies of plans of one index, medians on one line, the other percentiles as far from them as measured."""
    if len(measured) < _MIN_PLANS_FOR_LINE:
        return dict(measured)
    guess = line_through([(plan, latencies["p50"]) for plan, latencies in measured.items()])
    return {
        plan: {q: round(ms * guess(plan) / latencies["p50"], 4) for q, ms in latencies.items()}
        for plan, latencies in measured.items()
    }


def line_through(tried: Sequence[tuple[Plan, float]]) -> Callable[[Plan], float]:
    """Latency as what a call, a step of effort and a place of the shortlist take: few trials each, but many together.

    Least squares of relative errors.
    """
    terms = np.array([_terms(plan) for plan, _ in tried])
    latencies = np.array([latency for _, latency in tried])[:, None]
    costs = np.linalg.lstsq(terms / latencies, np.ones(len(tried)), rcond=None)[0].clip(min=0)
    return lambda plan: float(np.dot(_terms(plan), costs))


def _terms(plan: Plan) -> tuple[float, float, float]:
    return 1.0, float(plan.effort or 0), float(plan.shortlist or 0)
