"""Calibration: measured recall, latency and bytes of the plans of a generation, and the choice among them.

Recall is against exact search by full codes, on codes that are held out of the indexes while they are measured. The
last rows of a gallery are a random sample of it. A first pass is run once for each effort, for the
longest shortlist: a rerank by full codes finds exactly those of the true neighbours that are in the shortlist, so the
recall of every shorter one is counted from the same list.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.arrangement import sample_size
from index.codes import Codes, unit_prefix
from index.errors import TargetError
from index.kinds import IndexSpec
from index.plan import Plan
from index.prefix_index import PrefixIndex, Rows, Scores, most_results
from index.threads import all_cores

DEFAULT_TARGET = 0.99
_SHORTLISTS = (1, 10, 14, 20, 28, 40, 56, 80, 100, 120, 160, 220, 300)
_DEEPEST = 300
_COUNTS = (1, 10, 100)
_CHUNK = 131_072
_TIMED_QUERIES = 200
_FEWEST_TIMED = 10
_TRIAL = 9
_TIMED_S = 0.25
# An index's efforts are tried upwards until recall no longer grows, or for so long.
_SATURATED = 2e-4
_BUDGET_S = 8.0
# Recall below which no plan is offered.
_USELESS = 0.5
_WARM_UP = 3
# One-sided 95 %.
_Z = 1.645
# The default effort of a length finds this share of what the highest measured effort finds.
_ENOUGH = 0.99


@dataclass(frozen=True)
class Recall:
    """Mean recall@k over the queries, and the lower end of its one-sided 95 % confidence interval."""

    mean: float
    low: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Recall:
        """From each query's recall. One more query that found half is counted in, so that no sample proves 1."""
        if len(values) == 0:
            return cls(0.0, 0.0)
        smoothed = np.append(values, 0.5)
        low = smoothed.mean() - _Z * smoothed.std(ddof=1) / np.sqrt(len(smoothed))
        return cls(round(float(values.mean()), 5), round(max(0.0, float(low)), 5))


@dataclass(frozen=True)
class Measured:
    """A plan and what it was measured to give, one query at a time on one thread.

    Attributes:
        recall: by k, against exact search by full codes.
        latency_ms: "p50", "p95" and "p99" of a search, without decoding and encoding.
        bytes_per_image: what its index takes and, with a rerank, the codes.
        exact: whether it finds the true neighbours by construction.
    """

    plan: Plan
    recall: Mapping[int, Recall]
    latency_ms: Mapping[str, float]
    bytes_per_image: float = 0.0
    exact: bool = False

    def recall_for(self, k: int) -> Recall:
        """Recall@k, or that of the next k above that was measured, or of the largest."""
        return self.recall[next((count for count in _COUNTS if count >= k), _COUNTS[-1])]

    def for_k(self, k: int) -> Plan:
        """The plan for k results; beyond the largest k that was measured its shortlist grows in proportion."""
        plan = self.plan
        if plan.shortlist is None:
            return plan
        return replace(
            plan, shortlist=max(k, -(-plan.shortlist * k // _COUNTS[-1]) if k > _COUNTS[-1] else plan.shortlist)
        )


@dataclass(frozen=True)
class Calibration:
    """What was measured at the end of a build.

    Attributes:
        measured: plans on the front of recall against latency for some k, and the plain one of every length.
        efforts: default effort of each index, as "length kind".
        queries: how many queries recall was measured on.
        seconds: that measuring took.
    """

    measured: tuple[Measured, ...]
    efforts: Mapping[str, int]
    queries: int
    seconds: float = 0.0

    def default_effort(self, spec: IndexSpec) -> int:
        """The effort of an index where none is asked for."""
        return self.efforts[_name(spec)]

    def expected(self, plan: Plan, k: int) -> Measured | None:
        """What was measured of this very plan; None, if it was not, or only on a gallery too small for it."""
        found = next((measured for measured in self.measured if measured.for_k(k) == plan), None)
        return found if found is not None and (self.queries or found.exact) else None

    def plain(self, length: int) -> Measured | None:
        """The plan that searches a length without a rerank at more coordinates."""
        return next((m for m in self.measured if m.plan.prefix_length == length and _is_plain(m.plan)), None)

    def choose(
        self,
        *,
        k: int,
        target_recall: float | None = None,
        max_latency_ms: float | None = None,
        length: int | None = None,
    ) -> Measured:
        """The cheapest plan that meets a recall on its lower confidence bound, or the best that keeps to a latency.

        Args:
            target_recall: of the exact k best by full codes, 0 to 1; 0.99 when neither is given.
            max_latency_ms: which the plan's 95th percentile keeps to.
            length: only plans that search this prefix.

        Raises: TargetError, if no plan meets what was asked for; it says what can be had.
        """
        plans = [m for m in self.measured if length is None or m.plan.prefix_length == length]
        fitting = [m for m in plans if max_latency_ms is None or m.latency_ms["p95"] <= max_latency_ms]
        if target_recall is None and max_latency_ms is None:
            target_recall = DEFAULT_TARGET
        if target_recall is None:
            if not fitting:
                fastest = min(plans, key=lambda m: m.latency_ms["p95"])
                raise TargetError(
                    f"no plan keeps to {max_latency_ms:g} ms; the fastest takes {fastest.latency_ms['p95']:g} ms"
                )
            return max(fitting, key=lambda m: (m.recall_for(k).low, -m.latency_ms["p50"]))
        meeting = [m for m in plans if m.recall_for(k).low >= target_recall]
        both = [m for m in meeting if m in fitting]
        if both:
            return min(both, key=lambda m: (m.latency_ms["p50"], m.plan))
        best = max(plans, key=lambda m: m.recall_for(k).low)
        if not meeting:
            where = "" if length is None else f" of length {length}"
            raise TargetError(
                f"no plan{where} is sure to reach a recall of {target_recall:g}; "
                f"the best reaches {best.recall_for(k).low:g}"
            )
        cheapest = min(meeting, key=lambda m: m.latency_ms["p95"])
        reached = max((m.recall_for(k).low for m in fitting), default=0.0)
        raise TargetError(
            f"a recall of {target_recall:g} takes {cheapest.latency_ms['p95']:g} ms, and {max_latency_ms:g} ms "
            f"give {f'a recall of {reached:g}' if fitting else 'no result'}: they cannot both be met"
        )

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "queries": self.queries,
            "seconds": self.seconds,
            "efforts": dict(self.efforts),
            "measured": [
                {**asdict(m), "recall": {str(k): asdict(recall) for k, recall in m.recall.items()}}
                for m in self.measured
            ],
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """From a manifest."""
        measured = tuple(
            Measured(
                plan=Plan(**entry["plan"]),
                recall={int(k): Recall(**recall) for k, recall in entry["recall"].items()},
                latency_ms=entry["latency_ms"],
                bytes_per_image=entry["bytes_per_image"],
                exact=entry["exact"],
            )
            for entry in given["measured"]
        )
        return cls(measured, given["efforts"], given["queries"], given["seconds"])


class Calibrator:
    """Measures one index after the other while a generation is built.

    Attributes:
        held_in: rows that the indexes hold while they are measured; the later ones are the queries.
    """

    def __init__(self, codes: Codes, *, queries: NDArray[np.float32] | None = None) -> None:
        self._codes = codes
        held_out = sample_size(len(codes)) if queries is None else 0
        self.held_in = len(codes) - held_out
        started = time.monotonic()
        given = codes.read(self.held_in, len(codes)) if queries is None else queries
        self._queries = unit_prefix(given, codes.code_length)
        self._exact = _nearest(codes, self._queries, count=self.held_in, k=min(_COUNTS[-1], self.held_in))
        self._timed = self._queries if len(self._queries) else unit_prefix(codes.read(0, 1), codes.code_length)
        self._measured: dict[IndexSpec, list[Measured]] = {}
        self._efforts: dict[str, int] = {}
        self._spent_s = time.monotonic() - started

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
        candidates: list[tuple[Plan, dict[int, Recall]]] = []
        reached: list[tuple[int, float]] = []
        for effort in _efforts(index):
            deepest = _depth(index, effort)
            _, rows = index.search(self._queries, deepest, effort=effort)
            found = _hits(rows, self._exact)
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
            saturated = len(reached) > 3 and mean - reached[-4][1] < _SATURATED and mean > 0
            if saturated or time.monotonic() - started > _BUDGET_S:
                break
        measured = self._time_front(index, candidates)
        if index.max_effort is not None:
            enough = _ENOUGH * max(mean for _, mean in reached)
            self._efforts[_name(spec)] = next(effort for effort, mean in reached if mean >= enough)
        self._measured[spec] = [*measured, *self._plain(index)]

    def result(self, sizes: Mapping[IndexSpec, int]) -> Calibration:
        """The front over all indexes, and every plain plan; `sizes` are those of the indexes' files, in bytes."""
        everything = [
            replace(m, bytes_per_image=round(self._bytes(m.plan, size), 1))
            for spec, size in sizes.items()
            for m in self._measured[spec]
        ]
        front = {m.plan for k in _COUNTS for m in _front(everything, k=k)}
        kept: dict[Plan, Measured] = {}
        for m in everything:
            if m.plan in front or _is_plain(m.plan) or m.exact:
                kept[m.plan] = m
        return Calibration(tuple(kept.values()), self._efforts, len(self._queries), round(self._spent_s, 1))

    def _bytes(self, plan: Plan, size: int) -> float:
        codes = 2 * self._codes.code_length if plan.rerank_length is not None else 0
        return size / max(1, len(self._codes)) + codes

    def _time_front(self, index: PrefixIndex, candidates: Sequence[tuple[Plan, dict[int, Recall]]]) -> list[Measured]:
        """Latencies of the candidates that can lie on the front, judged from a short trial of each effort."""
        shortest: dict[int | None, float] = {}
        longest: dict[int | None, tuple[int, float]] = {}
        for plan, _ in candidates:
            if plan.effort not in shortest:
                of_effort = [p for p, _ in candidates if p.effort == plan.effort]
                first, last = min(of_effort, key=_depth_of), max(of_effort, key=_depth_of)
                shortest[plan.effort] = self._latencies(index, first, queries=_TRIAL)["p50"]
                longest[plan.effort] = (_depth_of(last), self._latencies(index, last, queries=_TRIAL)["p50"])

        def guess(plan: Plan) -> float:
            depth, slow = longest[plan.effort]
            return shortest[plan.effort] + (slow - shortest[plan.effort]) * _depth_of(plan) / max(1, depth)

        guessed = [Measured(plan, recall, {"p50": guess(plan)}) for plan, recall in candidates]
        chosen = {m.plan: m for k in _COUNTS for m in _front(guessed, k=k)}
        return [
            replace(
                m,
                latency_ms=self._latencies(index, m.plan),
                exact=_is_exact(index, m.plan),
                recall={k: Recall(1.0, 1.0) for k in _COUNTS} if _is_exact(index, m.plan) else m.recall,
            )
            for m in chosen.values()
        ]

    def _plain(self, index: PrefixIndex) -> list[Measured]:
        """The plan that searches this length alone, at its default effort."""
        spec = index.spec
        full = spec.length == self._codes.code_length
        effort = self._efforts.get(_name(spec))
        plan = Plan(spec.length, spec.kind, effort)
        if index.kind.lossy:
            plan = replace(plan, shortlist=_COUNTS[-1], rerank_length=spec.length)
        if full and _is_exact(index, plan):
            return [Measured(plan, {k: Recall(1.0, 1.0) for k in _COUNTS}, self._latencies(index, plan), exact=True)]
        _, rows = index.search(self._queries, min(_COUNTS[-1], index.count), effort=effort)
        recall = _plain_recalls(_hits(rows, self._exact), self._exact.shape[1])
        return [Measured(plan, recall, self._latencies(index, plan))]

    def _latencies(self, index: PrefixIndex, plan: Plan, *, queries: int | None = None) -> dict[str, float]:
        times = []
        if queries is None:
            queries = min(_TIMED_QUERIES, max(_FEWEST_TIMED, len(self._codes) // 100))
        k = min(10, index.count)
        started = time.perf_counter()
        for number in range(queries + _WARM_UP):
            query = self._timed[number % len(self._timed)][None]
            begun = time.perf_counter()
            if plan.shortlist is None:
                index.search(query, k, effort=plan.effort)
            else:
                index.search_and_rescore(query, k, shortlist=min(plan.shortlist, index.count), effort=plan.effort)
            ended = time.perf_counter()
            if number >= _WARM_UP or ended - started > _TIMED_S:
                times.append(1000 * (ended - begun))
            if ended - started > _TIMED_S:
                break
        return {f"p{q}": round(float(np.percentile(times, q)), 4) for q in (50, 95, 99)}


def _nearest(codes: Codes, queries: Scores, *, count: int, k: int) -> Rows:
    """Rows of the k nearest by full codes among the first `count`, exactly, (q, k)."""
    scores = np.full((len(queries), 0), -np.inf, dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    if len(queries) == 0:
        return np.empty((0, k), dtype=np.int64)
    for start in range(0, count, _CHUNK):
        chunk = unit_prefix(codes.read(start, min(start + _CHUNK, count)), codes.code_length)
        with all_cores():
            found, numbers = faiss.knn(queries, chunk, min(k, len(chunk)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, rows = np.concatenate([scores, found], axis=1), np.concatenate([rows, numbers + start], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return rows


def _hits(rows: Rows, exact: Rows) -> NDArray[np.int32]:
    """For each true neighbour its place in a result, (q, k); far beyond the end where it is missing."""
    places = np.full(exact.shape, np.iinfo(np.int32).max, dtype=np.int32)
    for query, (found, wanted) in enumerate(zip(rows, exact, strict=True)):
        order = np.argsort(found, kind="stable")
        at = np.minimum(np.searchsorted(found, wanted, sorter=order), len(found) - 1)
        there = found[order[at]] == wanted
        places[query, there] = order[at][there]
    return places


def _recalls(places: NDArray[np.int32], shortlist: int, available: int) -> dict[int, Recall]:
    """Recall@k when the first `shortlist` places are rescored exactly; a k beyond the shortlist finds that many."""
    return {
        k: Recall.of((places[:, : min(k, available)] < shortlist).mean(1) if len(places) else np.empty(0))
        for k in _COUNTS
    }


def _plain_recalls(places: NDArray[np.int32], available: int) -> dict[int, Recall]:
    """Recall@k of the first k places themselves."""
    return {k: _recalls(places, k, available)[k] for k in _COUNTS}


def _efforts(index: PrefixIndex) -> list[int | None]:
    """Efforts to measure, in steps of about the cube root of two."""
    if index.max_effort is None:
        return [None]
    steps = {round(2 ** (i / 3)) for i in range(72)}
    least = 10 if index.kind.effort == "efSearch" else 1
    return [*sorted(step for step in steps if least <= step < index.max_effort), index.max_effort]


def _depth(index: PrefixIndex, effort: int | None) -> int:
    """The longest shortlist to look at; a graph search that keeps fewer candidates would change with a longer one."""
    deepest = min(_DEEPEST, index.count, most_results(index.spec) or _DEEPEST)
    return min(deepest, max(effort or 1, 10)) if index.kind.effort == "efSearch" else deepest


def _shortlists(deepest: int) -> list[int]:
    return sorted({min(s, deepest) for s in _SHORTLISTS})


def _depth_of(plan: Plan) -> int:
    return plan.shortlist or 0


def _front(measured: Sequence[Measured], *, k: int) -> list[Measured]:
    """Those that no other beats in both latency and recall@k."""
    front: list[Measured] = []
    for m in sorted(measured, key=lambda m: (m.latency_ms["p50"], -m.recall[k].low)):
        if m.recall[k].low < _USELESS:
            continue
        if not front or m.recall[k].low > front[-1].recall[k].low:
            front.append(m)
    return front


def _is_plain(plan: Plan) -> bool:
    return plan.rerank_length is None or plan.rerank_length == plan.prefix_length


def _is_exact(index: PrefixIndex, plan: Plan) -> bool:
    """Whether a plan scores everything by full codes."""
    whole = plan.effort is None or plan.effort == index.max_effort
    return (
        whole
        and plan.prefix_length == index.codes.code_length
        and index.kind.name in ("flat", "panorama", "ivf", "half")
    )


def _name(spec: IndexSpec) -> str:
    return f"{spec.length} {spec.kind}"
