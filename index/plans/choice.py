"""The choice of a plan: a request either fixes parts of the plan, or gives targets that the plan has to meet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Literal

from eigenlens.index.errors import EffortError, PlanConflictError, RerankLengthError, ResultCountError, TargetError
from eigenlens.index.method_cache import cache_of
from eigenlens.index.plans.calibration import COUNTS, Measured, default_count, measured_count
from eigenlens.index.plans.plan import MIN_SHORTLIST, SHORTLIST_FACTOR, IndexSpec, Plan
from eigenlens.index.plans.reach import Reach

if TYPE_CHECKING:  # index.engine imports the plans, so an import at run time would be circular
    from eigenlens.index.engine import Indexes

_PLAN_CACHE_SIZE = 1000
# How much longer than in proportion the shortlist is of a search that has to reach beyond k.
_SPARE_SHORTLIST = 3


@dataclass(frozen=True)
class PlanRequest:
    """What a search asks of its plan: parts of the plan, or targets that the chosen plan has to meet.

    `rerank`, `shortlist` and `effort` fix parts of a plan: they need a length, and exclude targets.

    Attributes:
        length: prefix length of the first pass; None lets the chooser decide.
        rerank: leading coordinates that rescore the shortlist; None for no rerank.
        shortlist: candidates that the first pass hands to the rerank; None for the default.
        effort: how much of the index the first pass visits; None for the calibrated default.
        target_recall: least expected share of the exact k nearest images by full codes, 0 to 1.
        max_latency_ms: longest time of the search itself, without decoding and encoding.
    """

    length: int | None = None
    rerank: int | Literal["full"] | None = None
    shortlist: int | None = None
    effort: int | Literal["max"] | None = None
    target_recall: float | None = None
    max_latency_ms: float | None = None

    @property
    def has_targets(self) -> bool:
        """Whether the plan is chosen among the calibrated ones."""
        return self.length is None or self.target_recall is not None or self.max_latency_ms is not None

    @property
    def fixes_plan(self) -> bool:
        """Whether the request fixes parts of a plan, which a choice by targets would contradict."""
        return not (self.rerank is None and self.shortlist is None and self.effort is None)


@dataclass(frozen=True)
class ChosenPlan:
    """A plan, and its calibrated recall and latency; None if calibration did not measure exactly this plan."""

    plan: Plan
    measured: Measured | None


class PlanChooser:
    """Chooses the plans for all searches of one engine, and caches its choices.

    chooser = PlanChooser(engine)
    plan = chooser.choose(PlanRequest(target_recall=0.95), k=10).plan
    """

    def __init__(self, indexes: Indexes) -> None:
        """Choose among these indexes; an engine is one such set."""
        self._indexes = indexes
        self._choose_cached = cache_of(self._choose, _PLAN_CACHE_SIZE)
        self._choose_filtered_cached = cache_of(self._choose_filtered, _PLAN_CACHE_SIZE)

    def choose(self, request: PlanRequest, *, k: int) -> ChosenPlan:
        """Choose the plan for k results.

        Raises: PlanConflictError, if the request has parts of a plan as well as targets; TargetError, if no plan meets
            the targets; PrefixLengthError; RerankLengthError; ResultCountError; EffortError.
        """
        return self._choose_cached(request, k, self._added_ms)

    @property
    def _added_ms(self) -> float:
        """What images that were added since the build take of each search: two digits, so that choices are kept."""
        return float(f"{self._indexes.added_ms:.2g}")

    def choose_filtered(self, request: PlanRequest, *, k: int, reach: Reach | None) -> ChosenPlan:
        """Choose the plan for k results among some of the images, which lie among so many of the nearest of all.

        Its recall is known where it is exact. Targets are met by a plan that finds so many of those in reach, or, where
        none was measured for as many, by an exact one, which searches the full length whatever the request's is.

        Args:
            reach: as Engine.reach estimates it; None where every image that may be returned is scored.

        Raises: as choose; TargetError also if only an exact plan reaches the recall, and takes longer than the limit.
        """
        rounded = None
        if reach is not None:
            rounded = replace(reach, count=_round_up(reach.count), share=float(f"{reach.share:.2g}"))
        return self._choose_filtered_cached(request, rounded, k, self._added_ms)

    def _choose_filtered(self, request: PlanRequest, reach: Reach | None, k: int, added_ms: float) -> ChosenPlan:
        chosen = self._choose(request, k, added_ms)  # refuses what cannot be had without a filter either
        if not request.has_targets:
            if reach is None:
                return self._scored_directly(chosen.plan)
            if isinstance(request.effort, int):
                request = replace(request, effort=_scale(request.effort, reach.count, k))
            return ChosenPlan(self._complete(request, k, reach=reach.count), None)
        if reach is None:
            full = self._indexes.describe(self._indexes.code_length)
            return self._scored_directly(self._complete(PlanRequest(full.length, effort=None), k))
        if request.target_recall is None and request.max_latency_ms is not None:
            reach = replace(reach, count=min(reach.count, COUNTS[-1]))
        try:
            measured = self._choose_measured(request, k=reach.count, added_ms=added_ms, share=reach.share)
        except TargetError:
            exact = self._exact_within(request.max_latency_ms, added_ms)
            if exact is None:
                raise
            measured = exact
        if measured.exact:
            return ChosenPlan(measured.for_k(k), replace(measured, latency_ms={}))
        plan = measured.for_k(k)
        # A filter against the query leaves nearly all of a shortlist that is beyond its reach: all of it is rescored.
        if plan.shortlist is not None and not reach.is_against:
            # Of the shortlist for all that are in reach, what falls to k of them, and some more.
            count = measured_count(k)
            share = max(count, MIN_SHORTLIST, _SPARE_SHORTLIST * _scale(plan.shortlist, count, reach.count))
            plan = replace(plan, shortlist=min(plan.shortlist, share))
        return ChosenPlan(plan, None)

    @cached_property
    def exact(self) -> Measured:
        """The quickest exact plan; where none was measured, one that rescores everything, of unknown latency."""
        try:
            return self._indexes.calibration.exact()
        except TargetError:
            index = self._indexes.describe(self._indexes.code_length)
            everything = len(self._indexes.keys) + 1
            plan = Plan(index.length, index.kind, index.max_effort, everything, index.length)
            return Measured(plan, recall={}, latency_ms={}, exact=True)

    def _exact_within(self, max_latency_ms: float | None, added_ms: float) -> Measured | None:
        """Return the exact plan; None where it takes longer than a limit, or where that was not measured."""
        if max_latency_ms is None:
            return self.exact
        p95_ms = self.exact.latency_ms.get("p95", inf)
        return self.exact if p95_ms + added_ms <= max_latency_ms else None

    def _choose_measured(
        self, request: PlanRequest, *, k: int, added_ms: float, share: float | None = None
    ) -> Measured:
        """Choose the measured plan that meets a request's targets for k results. Raises: TargetError.

        Args:
            share: of the images that a filter leaves; None without a filter.
        """
        graph, calibration = self._indexes.graph, self._indexes.calibration
        return (calibration if share is None else calibration.under_filter(share)).choose(
            k=k,
            target_recall=request.target_recall,
            max_latency_ms=request.max_latency_ms,
            length=request.length,
            added_ms=added_ms,
            without_kind=graph.kind if share is not None and graph is not None else None,
        )

    def _scored_directly(self, plan: Plan) -> ChosenPlan:
        exact = (plan.rerank_length or plan.prefix_length) == self._indexes.code_length
        return ChosenPlan(plan, Measured(plan, recall={}, latency_ms={}, exact=True) if exact else None)

    def _choose(self, request: PlanRequest, k: int, added_ms: float) -> ChosenPlan:
        if not request.has_targets:
            plan = self._complete(request, k)
            return ChosenPlan(plan, _later(self._indexes.calibration.expected(plan, k), added_ms))
        if request.fixes_plan:
            raise PlanConflictError(
                "rerank, shortlist and effort are parts of a plan that is chosen here: "
                "give them with a length and without target_recall and max_latency_ms"
            )
        if request.length is not None:
            self._indexes.describe(request.length)  # raises PrefixLengthError for a length that was not built
        try:
            measured = self._choose_measured(request, k=k, added_ms=added_ms)
        except TargetError:
            # Recall of so many results was not measured of any plan: where no exact one was measured, it has to be run.
            if k <= COUNTS[-1] or request.length is not None or request.max_latency_ms is not None:
                raise
            measured = self.exact
        return ChosenPlan(measured.for_k(k), _later(measured, added_ms))

    def _complete(self, request: PlanRequest, k: int, *, reach: int | None = None) -> Plan:
        """Complete the parts of a plan that are given by calibrated and default ones."""
        code_length = self._indexes.code_length
        index = self._indexes.describe(code_length if request.length is None else request.length)
        effort = self._effort(request, index.length, reach or k)
        rerank_length = code_length if request.rerank == "full" else request.rerank
        if rerank_length is None and index.lossy:
            rerank_length = index.length
        if rerank_length is None:
            if request.shortlist is not None:
                raise ResultCountError("a shortlist needs a rerank; give the rerank's length too")
            return Plan(index.length, index.kind, effort)
        longer = index.length < rerank_length or index.lossy
        if not longer or not index.length <= rerank_length <= code_length:
            raise RerankLengthError(rerank_length, prefix_length=index.length, code_length=code_length)
        if request.shortlist is not None and request.shortlist < k:
            raise ResultCountError(f"a shortlist of {request.shortlist} cannot give {k} results; give {k} or more")
        shortlist = request.shortlist or SHORTLIST_FACTOR * default_count(k)
        return Plan(index.length, index.kind, effort, shortlist, rerank_length)

    def _effort(self, request: PlanRequest, length: int, k: int) -> int | None:
        index = self._indexes.describe(length)
        if index.max_effort is None:
            if request.effort is None or request.effort == "max":
                return None
            raise EffortError(
                f"the index of length {length} is of kind '{index.kind}', which has no effort; leave it out"
            )
        if request.effort == "max":
            return index.max_effort
        if request.effort is not None and request.effort < 1:
            raise EffortError(f"effort {request.effort} is not possible: give 1 to {index.max_effort}")
        default = self._indexes.calibration.default_effort(IndexSpec(length, index.kind), k)
        return min(request.effort or default, index.max_effort)


def _later(measured: Measured | None, added_ms: float) -> Measured | None:
    """Return a measured plan with so many milliseconds more."""
    if measured is None or added_ms == 0:
        return measured
    return replace(measured, latency_ms={q: round(ms + added_ms, 4) for q, ms in measured.latency_ms.items()})


def _round_up(reach: int) -> int:
    """Return the next reach above of which plans are kept: what is measured, or a power of two beyond."""
    count = measured_count(reach)
    return count if count <= COUNTS[-1] else 1 << (reach - 1).bit_length()


def _scale(number: int, numerator: int, denominator: int) -> int:
    """Return number * numerator / denominator, rounded up."""
    return -(-number * numerator // denominator)
