"""The calibrator: measures recall and latency of the plans of each index while a generation is built.

Recall is measured against exact search by full codes. The queries are codes that the indexes do not hold while they are
measured: the last rows of a gallery, which are a random sample of it. For each effort, the first pass runs once, with
the longest shortlist. A rerank by full codes finds exactly those true neighbours that are in the shortlist, so the
recall of every shorter shortlist can be counted in the same list. The recall of hundreds of neighbours is measured with
fewer queries and efforts, and with shortlists of thousands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.building.calibrating.compact_recall import (
    COMPARED,
    Candidates,
    CompactOrder,
    wastes_compact_codes,
    with_compact_codes,
)
from eigenlens.index.building.calibrating.measured_grid import (
    NEARLY_ALL,
    deep_shortlists,
    deepest_shortlist,
    measured_efforts,
    measured_shortlists,
)
from eigenlens.index.building.calibrating.pareto import grouped, near_front, own_fronts, pareto_front
from eigenlens.index.building.calibrating.recall_counting import plain_recalls, ranks_of, shortlist_recalls
from eigenlens.index.building.calibrating.stopwatch import Stopwatch
from eigenlens.index.building.calibrating.timing import MIN_TIMED, Timer, line_through, percentiles, smoothed
from eigenlens.index.building.row_order import sample_size
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.exact import best_of_runs
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.live.prefix_index import AnyCompactCodes, AnyPrefixIndex, Rows
from eigenlens.index.plans.calibration import (
    COUNTS,
    DEEP_COUNTS,
    DEFAULT_COUNTS,
    SHALLOW_COUNTS,
    Calibration,
    Measured,
    Recall,
    Source,
    effort_name,
    is_plain,
)
from eigenlens.index.plans.plan import MIN_SHORTLIST, IndexSpec, Plan
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

# Queries that shortlists of thousands are measured with, at every so many-th effort.
_DEEP_QUERIES = 300
_DEEP_STEP = 3
# Efforts that are passed over for each that is searched with, once half of the time is up and nearly all are found.
_PASSED_OVER = 2
# Queries in the short trial that estimates latencies.
_TRIAL = 9
# Rounds in which the plans near the front are timed again.
_REPEATS = 3
# Ratio between latencies that an estimate can tell apart: of plans of two indexes, and of plans of one index.
_TOLERANCE, _TOLERANCE_WITHIN_INDEX = 1.1, 1.01
# Queries per call, if the codes exceed the memory budget.
_RESCORED_AT_ONCE = 10
# The recall of hundreds of neighbours stops growing when the next of its efforts adds less than this.
_MIN_DEEP_GAIN = 1e-3
# The default effort of an index is the smallest that reaches this share of the recall at the highest measured effort.
_SUFFICIENT_SHARE = 0.99


class Calibrator:
    """Measures one index after the other while a generation is built.

    Attributes:
        held_in: number of rows that the indexes hold while they are measured; the rows after these are the queries.
    """

    def __init__(
        self,
        codes: Codes,
        *,
        indexes: int,
        queries: NDArray[np.float32] | None = None,
        excluded_rows: Rows | None = None,
        compact: AnyCompactCodes | None = None,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        """Prepare to measure a number of indexes.

        Args:
            codes: codes of the gallery.
            indexes: number of those with an effort to choose, which share the time for searches.
            queries: codes (q, code_length) to search with; if None, the last rows are held out and used.
            excluded_rows: a row for each query that is no result, (q,), such as the query itself; -1 for none.
            compact: codes in fewer bits, where plans that first rescore by them are to be measured too.
        """
        self._codes, self._indexes, self._tuning = codes, indexes, tuning
        held_out = min(sample_size(len(codes)), tuning.calibration_queries) if queries is None else 0
        self.held_in = len(codes) - held_out
        started = time.monotonic()
        query_codes = codes.read(self.held_in, len(codes)) if queries is None else queries
        self._queries = unit_prefix(query_codes, codes.code_length)
        self._excluded_rows = np.full(len(self._queries), -1) if excluded_rows is None else excluded_rows
        self._source: Source = "gallery" if queries is None else "searches"
        # The ground truth: exact search by full codes.
        compared = SHALLOW_COUNTS[-1] if compact is None else COMPARED
        scores, exact = self._find_exact(len(self._queries), compared)
        self._scores, self._exact = scores[:, : SHALLOW_COUNTS[-1]], exact[:, : SHALLOW_COUNTS[-1]]
        self._compact = compact
        self._compact_order = None if compact is None else CompactOrder(compact, codes, self._queries, exact)
        _, self._deep_exact = self._find_exact(_DEEP_QUERIES, DEEP_COUNTS[-1])
        # A gallery too small to hold out queries still needs a query to time searches with.
        timed = self._queries if len(self._queries) else unit_prefix(codes.read(0, 1), codes.code_length)
        self._timer = Timer(codes, timed, self._scores, tuning=tuning)
        self._measured: dict[IndexSpec, list[Measured]] = {}
        self._drawn: dict[float, tuple[Measured, ...]] = {}
        self._defaults: set[Plan] = set()
        self._kinds_without_filters: set[str] = set()
        self._kinds_scoring_codes: set[str] = set()
        self._efforts: dict[str, dict[int, int]] = {}
        self._spent_s = time.monotonic() - started
        self._searched_s = 0.0

    def measure(self, index: AnyPrefixIndex) -> None:
        """Measure the plans of one index that holds the first `held_in` rows."""
        started = time.monotonic()
        self._measure(index)
        self._spent_s += time.monotonic() - started

    def _measure(self, index: AnyPrefixIndex) -> None:
        # An exact index without an effort has one plan and a recall of 1: only its latency is measured.
        spec = index.spec
        if index.kind.scores_codes:
            self._kinds_scoring_codes.add(spec.kind)
        if _is_exact(index, Plan(spec.length, spec.kind, index.max_effort)) and index.max_effort is None:
            self._measured[spec] = self._plain(index)
            return
        candidates, reached = self._search_efforts(index)
        if index.max_effort is not None:
            self._efforts[effort_name(spec)] = {k: _sufficient_effort(reached, k) for k in DEFAULT_COUNTS}
        if not index.kind.filters:  # it runs only plans that are chosen among measured ones: no request asks for it
            self._kinds_without_filters.add(spec.kind)
            self._measured[spec] = self._time_front(index, candidates)
            return
        defaults = self._rescored(index, candidates)
        self._defaults.update(m.plan for m in defaults)
        self._measured[spec] = [*self._time_front(index, candidates), *defaults, *self._plain(index)]

    def _search_efforts(self, index: AnyPrefixIndex) -> tuple[Candidates, dict[int, list[tuple[int, float]]]]:
        """Search with ascending efforts until a higher one no longer raises recall, or the time is up.

        Returns: the plans with the recall of each; by k, each effort and the highest mean recall that it reaches.
        """
        spec, tuning = index.spec, self._tuning
        is_shorter = spec.length < self._codes.code_length
        alone = not is_shorter and not index.kind.lossy  # there is nothing to rescore by
        started = Stopwatch(is_remote=index.kind.is_remote)
        # The remaining time for searches is divided equally among the remaining indexes that have efforts.
        budget_s = tuning.calibration_s * max(1.0, len(self._codes) / tuning.calibration_codes) - self._searched_s
        budget_s /= max(1, self._indexes - len(self._efforts))
        candidates: Candidates = {}
        reached: dict[int, list[tuple[int, float]]] = {k: [] for k in COUNTS}
        is_shallow = is_deep = True  # whether recall still grows
        for step, effort in enumerate(efforts := measured_efforts(index, tuning.effort_steps)):
            found = reached[10][-1][1] if reached[10] else 0.0
            is_late = started.worked_s > budget_s / 2 and found >= NEARLY_ALL
            if is_late and step % (_PASSED_OVER + 1) and effort != efforts[-1]:
                continue
            passes: list[tuple[NDArray[np.float32], Rows, Sequence[int], Sequence[int]]] = []
            if is_shallow:
                shallow = measured_shortlists(tuning.shortlist_steps, recall=found)
                passes.append((self._queries, self._exact, SHALLOW_COUNTS, shallow))
            if is_deep and (step % _DEEP_STEP == 0 or effort == efforts[-1]):
                deep_queries = self._queries[:_DEEP_QUERIES]
                passes.append((deep_queries, self._deep_exact, COUNTS, deep_shortlists(tuning.shortlist_steps)))
            for queries, exact, counts, shortlists in passes:
                # One search gives the recall of every shortlist: the rank of each true neighbour decides.
                deepest = deepest_shortlist(index, effort, shortlists[-1])
                rows = index.search_entries(queries, deepest, effort=effort)
                ranks = self._ranks(exact, rows)
                recalls = shortlist_recalls(ranks, sorted({min(s, deepest) for s in shortlists}), counts)
                plans = {
                    Plan(spec.length, spec.kind, effort, s, self._codes.code_length): r for s, r in recalls.items()
                }
                if alone:
                    plans = {Plan(spec.length, spec.kind, effort): plain_recalls(ranks, counts)}
                if counts is SHALLOW_COUNTS and is_shorter and self._compact_order is not None:
                    with started.paused():  # it is no search: as many efforts are measured as without compact codes
                        lost_ranks = self._compact_order.lost_ranks(
                            rows, count=self.held_in, excluded_rows=self._excluded_rows
                        )
                        plans |= with_compact_codes(plans, ranks, lost_ranks)
                for plan, recall in plans.items():  # what more queries measured stands
                    candidates[plan] = {**recall, **candidates.get(plan, {})}
                for k in counts if counts is SHALLOW_COUNTS else DEEP_COUNTS:
                    reached[k].append((effort or 0, recalls[deepest][k].mean))
            is_shallow = is_shallow and _grows(reached[10], tuning.effort_steps, tuning.min_recall_gain)
            is_deep = is_deep and _grows(reached[DEEP_COUNTS[-1]], 1, _MIN_DEEP_GAIN)
            if not (is_shallow or is_deep) or started.worked_s > budget_s:
                break
        self._searched_s += started.worked_s
        return candidates, reached

    def _find_exact(
        self, queries: int, k: int, *, among: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], Rows]:
        """Return scores and rows of the exact k nearest of the first so many queries among the rows below `held_in`.

        Args:
            among: whether each of those rows counts, (held_in,); all do if None.
        """
        runs, excluded = self._codes.runs(0, self.held_in), self._excluded_rows[:queries]
        if among is not None:
            runs = ((rows[among[rows]], codes[among[rows]]) for rows, codes in runs)
        limit = min(k + self._spare, self.held_in)
        scores, rows = best_of_runs(runs, self._queries[:queries], length=self._codes.code_length, k=limit)
        if not self._spare:
            return scores, rows
        kept = np.argsort(rows == excluded[:, None], axis=1, kind="stable")[:, : max(1, limit - self._spare)]
        return np.take_along_axis(scores, kept, 1), np.take_along_axis(rows, kept, 1)

    @property
    def _spare(self) -> int:
        """How many results more than k hold k that are not excluded."""
        return int((self._excluded_rows >= 0).any())

    def _ranks(self, exact: Rows, rows: Rows) -> NDArray[np.int32]:
        """Return the rank of each true neighbour of the first queries among their results, as ranks_of."""
        return ranks_of(exact, rows, count=self.held_in, excluded_rows=self._excluded_rows[: len(rows)])

    def measure_again(self, open_index: Callable[[IndexSpec], AnyPrefixIndex], sizes: Mapping[IndexSpec, int]) -> None:
        """Time the plans near the front again, interleaved, since a machine's speed changes from one index to the next.

        Plans that cannot lie on it are dropped: times of a moment when the machine was quicker would put them there.

        The latencies of an index's plans are smoothed by a line through them, because neighbouring plans differ by less
        than one plan does from one trial to the next.

        Args:
            sizes: bytes of each index's file, with all rows or those that it holds now.
        """
        started = time.monotonic()
        self._measured = {
            spec: [
                m
                for m in self._with_bytes(measured, sizes[spec])
                if not wastes_compact_codes(m, code_length=self._codes.code_length)
            ]
            for spec, measured in self._measured.items()
        }
        # Choose the plans that can lie on the front over all indexes, and open those indexes.
        everything = [m for measured in self._measured.values() for m in measured if m.plan.shortlist is not None]
        chosen = list(
            {
                m.plan: m
                for group in own_fronts(everything, kinds_without_filters=self._kinds_without_filters)
                for k in COUNTS
                for m in near_front(group, k=k, sure=_TOLERANCE)
            }.values()
        )
        spec_of = {m.plan: spec for spec, measured in self._measured.items() for m in measured}
        indexes = {spec: open_index(spec) for spec in {spec_of[m.plan] for m in chosen}}
        # Time all of them several times, each time in a new random order, so that a passing disturbance of the machine
        # affects plans of all indexes.
        times: dict[Plan, list[float]] = {m.plan: [] for m in chosen}
        rng = np.random.default_rng(0)
        for _ in range(_REPEATS):
            for number in rng.permutation(len(chosen)):
                plan = chosen[number].plan
                queries = self._timer.queries // _REPEATS
                times[plan] += self._timer.times(indexes[spec_of[plan]], plan, queries=queries)
        # Replace the latencies of each index's plans by the smoothed new ones.
        for spec, measured in self._measured.items():
            latencies = smoothed({m.plan: percentiles(times[m.plan]) for m in measured if m.plan in times})
            self._measured[spec] = [
                replace(m, latency_ms=latencies.get(m.plan, m.latency_ms))
                for m in measured
                if m.plan in latencies or self._is_offered_anyway(m)
            ]
        self._spent_s += time.monotonic() - started

    def result(self, sizes: Mapping[IndexSpec, int], *, device: str = "cpu") -> Calibration:
        """Return the calibration: the front over all indexes, and every plain plan.

        Args:
            sizes: bytes of each index's file.
            device: where the searches ran, "cpu" or "gpu".
        """
        measured, seconds = tuple(self._kept(sizes).values()), round(self._spent_s, 1)
        return Calibration(measured, self._efforts, len(self._queries), seconds, device, self._source, self._drawn)

    def _kept(self, sizes: Mapping[IndexSpec, int]) -> dict[Plan, Measured]:
        """Return the plans of the result."""
        everything = [m for spec, size in sizes.items() for m in self._with_bytes(self._measured[spec], size)]
        front = {
            m.plan
            for group in own_fronts(everything, kinds_without_filters=self._kinds_without_filters)
            for k in COUNTS
            for m in pareto_front(group, k=k)
        }
        kept: dict[Plan, Measured] = {}
        for m in everything:
            if m.plan in front or self._is_offered_anyway(m):
                kept[m.plan] = replace(m, recall={**kept[m.plan].recall, **m.recall}) if m.plan in kept else m
        return kept

    def _is_offered_anyway(self, measured: Measured) -> bool:
        """Whether a plan is in the result wherever it lies: requests name parts of some, and exact ones stand in."""
        return measured.plan in self._defaults or is_plain(measured.plan) or measured.exact

    def _with_bytes(self, measured: Sequence[Measured], size: int) -> list[Measured]:
        """Return plans of an index of `size` bytes with the bytes of an image that they take."""
        of_index, rows = size / max(1, len(self._codes)), []
        for m in measured:
            reads_codes = m.plan.rerank_length is not None or m.plan.kind in self._kinds_scoring_codes
            codes = 2 * self._codes.code_length if reads_codes else 0
            if m.plan.final_shortlist and self._compact is not None:  # the codes of a few candidates are read from disk
                codes = self._compact.code_size
            rows.append(replace(m, bytes_per_image=round(of_index + codes, 1)))
        return rows

    def _time_front(self, index: AnyPrefixIndex, candidates: Candidates) -> list[Measured]:
        """Time the candidates that can lie on a front of recall and latency, and return these."""
        groups = grouped(candidates.items(), lambda candidate: candidate[0].final_shortlist).values()
        return [m for group in groups for m in self._time_front_of(index, dict(group))]

    def _time_front_of(self, index: AnyPrefixIndex, candidates: Candidates) -> list[Measured]:
        """Do what _time_front does for plans that rescore alike."""
        # Time the shortest and the longest shortlist of each effort in a short trial; estimate the others by a line.
        ends: dict[int | None, list[Plan]] = {}
        for plan in candidates:
            of_effort = ends.setdefault(plan.effort, [plan, plan])
            of_effort[:] = min(of_effort[0], plan, key=_depth_of), max(of_effort[1], plan, key=_depth_of)
        tried = [plan for of_effort in ends.values() for plan in of_effort]
        guess = line_through([(plan, self._timer.latencies(index, plan, queries=_TRIAL)["p50"]) for plan in tried])
        guessed = [Measured(plan, recall, {"p50": guess(plan)}) for plan, recall in candidates.items()]
        # Keep the plans that the estimate cannot rule out, and time them well enough to choose those to time again.
        chosen = {m.plan: m for k in COUNTS for m in near_front(guessed, k=k, sure=_TOLERANCE_WITHIN_INDEX)}
        queries = max(MIN_TIMED, self._timer.queries // (2 * _REPEATS))
        times = smoothed({plan: self._timer.latencies(index, plan, queries=queries) for plan in chosen})
        # A plan that is exact by construction has a recall of 1, without a confidence interval.
        return [
            replace(
                m,
                latency_ms=times[m.plan],
                exact=_is_exact(index, m.plan),
                recall=dict.fromkeys(COUNTS, Recall(1.0, 1.0)) if _is_exact(index, m.plan) else m.recall,
            )
            for m in chosen.values()
        ]

    def _plain(self, index: AnyPrefixIndex) -> list[Measured]:
        """Measure the plain plan of the index: its prefix alone, at the default effort."""
        spec = index.spec
        full = spec.length == self._codes.code_length
        plan = Plan(spec.length, spec.kind, self._default_effort(index))
        if index.kind.lossy:
            plan = replace(plan, shortlist=MIN_SHORTLIST, rerank_length=spec.length)
        if full and (_is_exact(index, plan) or len(self._codes) <= MIN_SHORTLIST):
            return [self._exact_plan(index, plan)]
        rows = self._search_all(index, plan)
        recall = plain_recalls(self._ranks(self._exact, rows), SHALLOW_COUNTS)
        return [Measured(plan, recall, self._timer.latencies(index, plan))]

    def _rescored(self, index: AnyPrefixIndex, candidates: Candidates) -> list[Measured]:
        """Measure the default plan of the index that rescores by full codes; none where its length is the full one."""
        spec, effort = index.spec, self._default_effort(index)
        plan = Plan(spec.length, spec.kind, effort, MIN_SHORTLIST, self._codes.code_length)
        if spec.length == self._codes.code_length or len(self._codes) <= MIN_SHORTLIST:  # everything would be rescored
            return []
        clipped = replace(plan, shortlist=min(MIN_SHORTLIST, deepest_shortlist(index, effort, MIN_SHORTLIST)))
        return [Measured(plan, candidates.get(clipped, {}), self._timer.latencies(index, plan))]

    def _exact_plan(self, index: AnyPrefixIndex, plan: Plan) -> Measured:
        return Measured(plan, dict.fromkeys(COUNTS, Recall(1.0, 1.0)), self._timer.latencies(index, plan), exact=True)

    def _default_effort(self, index: AnyPrefixIndex) -> int | None:
        return self._efforts.get(effort_name(index.spec), {}).get(DEFAULT_COUNTS[0])

    def _search_all(self, index: AnyPrefixIndex, plan: Plan) -> Rows:
        """Search all queries by a plan; return the rows of their results, (q, at most 100)."""
        rows = []
        step = _RESCORED_AT_ONCE if self._codes.exceeds_memory_budget else max(1, len(self._queries))
        for start in range(0, max(1, len(self._queries)), step):
            queries = self._queries[start : start + step]
            rows.append(index.run(queries, plan=plan, k=min(SHALLOW_COUNTS[-1] + self._spare, index.count))[1])
            self._codes.release_pages()
        return np.concatenate(rows)


def _grows(reached: Sequence[tuple[int, float]], steps: int, least: float) -> bool:
    """Whether recall grew by `least` or more over the last so many efforts, or is not known to have stopped."""
    recalls = [recall for _, recall in reached]
    if not recalls or recalls[-1] == 0:
        return True
    return recalls[-1] - (recalls[-1 - steps] if len(recalls) > steps else -1.0) >= least


def _sufficient_effort(reached: Mapping[int, Sequence[tuple[int, float]]], k: int) -> int:
    """Return the least effort that finds nearly as many of the k nearest as the highest that was measured."""
    enough = _SUFFICIENT_SHARE * max(recall for _, recall in reached[k])
    return next(effort for effort, recall in reached[k] if recall >= enough)


def _depth_of(plan: Plan) -> int:
    return plan.shortlist or 0


def _is_exact(index: AnyPrefixIndex, plan: Plan) -> bool:
    """Return whether a plan scores every row by full codes."""
    whole = plan.effort is None or plan.effort == index.max_effort
    return whole and index.kind.exact and plan.prefix_length == index.codes.code_length
