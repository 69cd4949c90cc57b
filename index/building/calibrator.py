"""Measuring: recall and latency of the plans of each index while a generation is built.

Recall is against exact search by full codes, on codes that are held out of the indexes while they are measured: the
last rows of a gallery are a random sample of it. A first pass is run once for each effort, for the longest shortlist: a
rerank by full codes finds exactly those of the true neighbours that are in the shortlist, so the recall of every
shorter one is counted from the same list.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.building.row_order import sample_size
from eigenlens.index.building.timing import MIN_TIMED, Timer, line_through, percentiles, smoothed
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.exact import best_of_runs
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex, Rows
from eigenlens.index.plans.calibration import COUNTS, Calibration, Measured, Recall, effort_name, is_plain
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

_DEEPEST = 300
# Shortlists grow by a fourteenth.
_SHORTLISTS = sorted({1, *(round(10 * 2 ** (i / 10)) for i in range(50)), _DEEPEST})
_TRIAL = 9
_REPEATS = 3
# Efforts grow by a seventh, five times to double.
_STEPS_TO_DOUBLE = 5
# A latency is guessed to so much, beside one of another index and beside one of the same.
_TOLERANCE, _TOLERANCE_WITHIN_INDEX = 1.1, 1.01
# Queries that are rescored at once, of large codes.
_RESCORED_AT_ONCE = 10
# Recall below which no plan is offered.
_MIN_RECALL = 0.5
# The default effort of a length finds this share of what the highest measured effort finds.
_SUFFICIENT_SHARE = 0.99


class Calibrator:
    """Measures one index after the other while a generation is built.

    Attributes:
        held_in: rows that the indexes hold while they are measured; the later ones are the queries.
    """

    def __init__(
        self,
        codes: Codes,
        *,
        indexes: int,
        queries: NDArray[np.float32] | None = None,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        """Prepare to measure so many indexes, by the given queries or codes that are held out."""
        self._codes, self._indexes, self._tuning = codes, indexes, tuning
        held_out = sample_size(len(codes)) if queries is None else 0
        self.held_in = len(codes) - held_out
        started = time.monotonic()
        given = codes.read(self.held_in, len(codes)) if queries is None else queries
        self._queries = unit_prefix(given, codes.code_length)
        k = min(COUNTS[-1], self.held_in)
        self._scores, self._exact = best_of_runs(
            codes.runs(0, self.held_in), self._queries, length=codes.code_length, k=k
        )
        timed = self._queries if len(self._queries) else unit_prefix(codes.read(0, 1), codes.code_length)
        self._timer = Timer(codes, timed, self._scores, tuning=tuning)
        self._measured: dict[IndexSpec, list[Measured]] = {}
        self._efforts: dict[str, int] = {}
        self._spent_s = time.monotonic() - started
        self._searched_s = 0.0

    def measure(self, index: PrefixIndex) -> None:
        """Measure the plans of one index that holds the rows below `held_in`."""
        started = time.monotonic()
        self._measure(index)
        self._spent_s += time.monotonic() - started

    def _measure(self, index: PrefixIndex) -> None:
        spec = index.spec
        if _is_exact(index, Plan(spec.length, spec.kind, index.max_effort)) and index.max_effort is None:
            self._measured[spec] = self._plain(index)
            return
        full = spec.length == self._codes.code_length
        started = time.monotonic()
        # Each index gets an equal share of what is left of the time for searches.
        tuning = self._tuning
        budget_s = tuning.calibration_s * max(1.0, len(self._codes) / tuning.calibration_codes) - self._searched_s
        budget_s /= max(1, self._indexes - len(self._measured))
        candidates: list[tuple[Plan, dict[int, Recall]]] = []
        reached: list[tuple[int, float]] = []
        for effort in _efforts(index):
            deepest = _depth(index, effort)
            _, rows = index.search(self._queries, deepest, effort=effort)
            found = _hits(rows, self._exact, count=self.held_in)
            recalls = {s: _recalls(found, s, self._exact.shape[1]) for s in _shortlists(deepest)}
            candidates += [
                (Plan(spec.length, spec.kind, effort, s, self._codes.code_length), recall)
                for s, recall in recalls.items()
                if not (full and not index.kind.lossy)
            ]
            mean = recalls[max(recalls)][10].mean
            reached.append((effort or 0, mean))
            if full and not index.kind.lossy:
                candidates.append((Plan(spec.length, spec.kind, effort), _plain_recalls(found, self._exact.shape[1])))
            before = reached[-1 - _STEPS_TO_DOUBLE][1] if len(reached) > _STEPS_TO_DOUBLE else -1.0
            if (mean - before < tuning.min_recall_gain and mean > 0) or time.monotonic() - started > budget_s:
                break
        self._searched_s += time.monotonic() - started
        measured = self._time_front(index, candidates)
        if index.max_effort is not None:
            enough = _SUFFICIENT_SHARE * max(mean for _, mean in reached)
            self._efforts[effort_name(spec)] = next(effort for effort, mean in reached if mean >= enough)
        self._measured[spec] = [*measured, *self._plain(index)]

    def measure_again(self, open_index: Callable[[IndexSpec], PrefixIndex]) -> None:
        """Time the plans near the front again, in turn: a machine is not as fast from one index to the next.

        What is kept of the times of an index's plans is one line through them: plans that are next to each other differ
        by less than the times of either from one trial to the next.
        """
        started = time.monotonic()
        everything = [m for measured in self._measured.values() for m in measured if m.plan.shortlist is not None]
        chosen = list({m.plan: m for k in COUNTS for m in _near_front(everything, k=k, sure=_TOLERANCE)}.values())
        spec_of = {m.plan: spec for spec, measured in self._measured.items() for m in measured}
        indexes = {spec: open_index(spec) for spec in {spec_of[m.plan] for m in chosen}}
        times: dict[Plan, list[float]] = {m.plan: [] for m in chosen}
        order = np.random.default_rng(0)  # what disturbs the machine for a while meets plans of all indexes
        for _ in range(_REPEATS):
            for number in order.permutation(len(chosen)):
                plan = chosen[number].plan
                queries = self._timer.queries // _REPEATS
                times[plan] += self._timer.times(indexes[spec_of[plan]], plan, queries=queries)
        for spec, measured in self._measured.items():
            told = smoothed({m.plan: percentiles(times[m.plan]) for m in measured if m.plan in times})
            self._measured[spec] = [replace(m, latency_ms=told.get(m.plan, m.latency_ms)) for m in measured]
        self._spent_s += time.monotonic() - started

    def result(self, sizes: Mapping[IndexSpec, int], *, device: str = "cpu") -> Calibration:
        """The front over all indexes, and every plain plan.

        Args:
            sizes: of the indexes' files, in bytes.
            device: that searched.
        """
        everything = [
            replace(m, bytes_per_image=round(self._bytes(m.plan, size), 1))
            for spec, size in sizes.items()
            for m in self._measured[spec]
        ]
        front = {m.plan for k in COUNTS for m in _front(everything, k=k)}
        kept: dict[Plan, Measured] = {}
        for m in everything:
            if m.plan in front or is_plain(m.plan) or m.exact:
                kept[m.plan] = m
        measured, seconds = tuple(kept.values()), round(self._spent_s, 1)
        return Calibration(measured, self._efforts, len(self._queries), seconds, device)

    def _bytes(self, plan: Plan, size: int) -> float:
        codes = 2 * self._codes.code_length if plan.rerank_length is not None else 0
        return size / max(1, len(self._codes)) + codes

    def _time_front(self, index: PrefixIndex, candidates: Sequence[tuple[Plan, dict[int, Recall]]]) -> list[Measured]:
        """Latencies of the candidates that can lie on the front, judged from a short trial of each effort."""
        ends: dict[int | None, list[Plan]] = {}
        for plan, _ in candidates:
            of_effort = ends.setdefault(plan.effort, [plan, plan])
            of_effort[:] = min(of_effort[0], plan, key=_depth_of), max(of_effort[1], plan, key=_depth_of)
        tried = [plan for of_effort in ends.values() for plan in of_effort]
        guess = line_through([(plan, self._timer.latencies(index, plan, queries=_TRIAL)["p50"]) for plan in tried])
        guessed = [Measured(plan, recall, {"p50": guess(plan)}) for plan, recall in candidates]
        chosen = {m.plan: m for k in COUNTS for m in _near_front(guessed, k=k, sure=_TOLERANCE_WITHIN_INDEX)}
        # Enough to tell which are worth timing again.
        queries = max(MIN_TIMED, self._timer.queries // (2 * _REPEATS))
        times = smoothed({plan: self._timer.latencies(index, plan, queries=queries) for plan in chosen})
        return [
            replace(
                m,
                latency_ms=times[m.plan],
                exact=_is_exact(index, m.plan),
                recall={k: Recall(1.0, 1.0) for k in COUNTS} if _is_exact(index, m.plan) else m.recall,
            )
            for m in chosen.values()
        ]

    def _plain(self, index: PrefixIndex) -> list[Measured]:
        """The plan that searches this length alone, at its default effort."""
        spec = index.spec
        full = spec.length == self._codes.code_length
        effort = self._efforts.get(effort_name(spec))
        plan = Plan(spec.length, spec.kind, effort)
        if index.kind.lossy:
            plan = replace(plan, shortlist=COUNTS[-1], rerank_length=spec.length)
        if full and _is_exact(index, plan):
            return [
                Measured(plan, {k: Recall(1.0, 1.0) for k in COUNTS}, self._timer.latencies(index, plan), exact=True)
            ]
        rows = self._found(index, plan)
        recall = _plain_recalls(_hits(rows, self._exact, count=self.held_in), self._exact.shape[1])
        return [Measured(plan, recall, self._timer.latencies(index, plan))]

    def _found(self, index: PrefixIndex, plan: Plan) -> Rows:
        """Rows that a plan finds for each query, (q, at most 100)."""
        found = []
        step = _RESCORED_AT_ONCE if self._codes.exceeds_memory_budget else max(1, len(self._queries))
        for start in range(0, max(1, len(self._queries)), step):
            queries = self._queries[start : start + step]
            found.append(index.run(queries, plan=plan, k=min(COUNTS[-1], index.count))[1])
            self._codes.release_pages()
        return np.concatenate(found)


def _hits(rows: Rows, exact: Rows, *, count: int) -> NDArray[np.int32]:
    """For each true neighbour its place in a result, (q, k); far beyond the end where it is missing.

    Args:
        count: of rows that are searched.
    """
    far = np.iinfo(np.int32).max
    place_of = np.full(count + 1, far, dtype=np.int32)  # the last is of row -1, which is none
    places = np.empty(exact.shape, dtype=np.int32)
    order = np.arange(rows.shape[1], dtype=np.int32)
    for query, (found, wanted) in enumerate(zip(rows, exact, strict=True)):
        place_of[found] = order
        places[query] = place_of[wanted]
        place_of[found] = far
    return places


def _recalls(places: NDArray[np.int32], shortlist: int, available: int) -> dict[int, Recall]:
    """Recall@k when the first `shortlist` places are rescored exactly; a k beyond the shortlist finds that many."""
    return {
        k: Recall.of((places[:, : min(k, available)] < shortlist).mean(1) if len(places) else np.empty(0))
        for k in COUNTS
    }


def _plain_recalls(places: NDArray[np.int32], available: int) -> dict[int, Recall]:
    """Recall@k of the first k places themselves."""
    return {k: _recalls(places, k, available)[k] for k in COUNTS}


def _efforts(index: PrefixIndex) -> list[int | None]:
    """Efforts to measure, ascending."""
    if index.max_effort is None:
        return [None]
    steps = {round(2 ** (i / _STEPS_TO_DOUBLE)) for i in range(24 * _STEPS_TO_DOUBLE)}
    least = index.kind.min_measured_effort
    return [*sorted(step for step in steps if least <= step < index.max_effort), index.max_effort]


def _depth(index: PrefixIndex, effort: int | None) -> int:
    """The longest shortlist to look at; a graph search that keeps fewer candidates would change with a longer one."""
    return min(_DEEPEST, index.count, index.kind.max_shortlist(effort) or _DEEPEST)


def _shortlists(deepest: int) -> list[int]:
    return sorted({min(s, deepest) for s in _SHORTLISTS})


def _depth_of(plan: Plan) -> int:
    return plan.shortlist or 0


def _front(measured: Sequence[Measured], *, k: int) -> list[Measured]:
    """Those that no other beats in both latency and recall@k."""
    front: list[Measured] = []
    for m in sorted(measured, key=lambda m: (m.latency_ms["p50"], -m.recall[k].low)):
        if m.recall[k].low < _MIN_RECALL:
            continue
        if not front or m.recall[k].low > front[-1].recall[k].low:
            front.append(m)
    return front


def _near_front(measured: Sequence[Measured], *, k: int, sure: float) -> list[Measured]:
    """Those that no other beats in recall@k while it takes less by more than a guess is sure of."""
    front = _front(measured, k=k)
    recalls, latencies = [m.recall[k].low for m in front], [m.latency_ms["p50"] for m in front]
    return [
        m
        for m in measured
        if m.recall[k].low >= _MIN_RECALL
        and m.latency_ms["p50"] <= sure * latencies[bisect.bisect_left(recalls, m.recall[k].low)]
    ]


def _is_exact(index: PrefixIndex, plan: Plan) -> bool:
    """Whether a plan scores everything by full codes."""
    whole = plan.effort is None or plan.effort == index.max_effort
    return whole and index.kind.exact and plan.prefix_length == index.codes.code_length
