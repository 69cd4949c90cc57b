"""A snapshot of what is served: one engine and its encoder. A request uses one snapshot from beginning to end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.codes.similarities import ROUNDING_OF_COSINE
from eigenlens.index.codes.typicality import UNLIKE_PERCENTILE
from eigenlens.index.engine import Engine
from eigenlens.index.errors import SimilarityError
from eigenlens.index.plans.advice import RebuildAdvice, advise_rebuild
from eigenlens.index.plans.calibration import Measured, measured_count
from eigenlens.index.plans.choice import ChosenPlan, PlanChooser, PlanRequest
from eigenlens.index.plans.plan import Plan
from eigenlens.model.runtime.open import AnyEncoder
from eigenlens.service.errors import NotReadyError
from eigenlens.service.gallery.records import Records
from eigenlens.service.gallery.store.records import ImageRecord
from eigenlens.service.search.request import SearchRequest

# Without a filter, the plan for k results is also that for a little more than k: where few images were removed.
_NEARLY = 1.1
# Advice is worked out again when so many more of a thousand images were removed.
_ADVICE_STEP = 10
# A search runs at most this often, if its results name images that were removed a moment ago.
_MAX_TRIES = 4


class Hit(NamedTuple):
    """One image of the gallery, and the cosine of its code with the query's."""

    record: ImageRecord
    score: float


@dataclass(frozen=True)
class SearchResult:
    """The hits of a search, best first; its plan; and the plan's calibration, None if there is none."""

    hits: list[Hit]
    plan: Plan
    measured: Measured | None


class Likeness(NamedTuple):
    """How a search compares with what is usual in the gallery; None where nothing tells it.

    Attributes:
        best_percentile: where the best score stands among the similarities of the gallery's images, 0 to 100.
        query_percentile: share of the images, in per cent, whose codes are as far from all others as the query's.
        unlike_everything: whether nothing in the gallery looks like the query.
    """

    best_percentile: float | None
    query_percentile: float | None
    unlike_everything: bool | None


@dataclass(frozen=True)
class Snapshot:
    """A generation that is served. Its engine follows the gallery: a search finds images that were added before it.

    Attributes:
        number: number of the generation.
        engine: searches the codes.
        encoder: makes codes from images, or from features of nodes.
        records: records of the gallery's images, by key.
        sync: brings the engine up to date with the gallery.
    """

    number: int
    engine: Engine
    encoder: AnyEncoder
    records: Records
    sync: Callable[[], None]

    @cached_property
    def _chooser(self) -> PlanChooser:
        return PlanChooser(self.engine)

    def choose_plan(self, request: SearchRequest) -> ChosenPlan:
        """Choose the plan of a search. Raises: SearchError."""
        return self._chooser.choose(request.plan, k=request.depth)

    def measured_plan(self, request: PlanRequest) -> Measured | None:
        """Return what calibration measured of the plan for ten results; None if it did not. Raises: SearchError."""
        return self._chooser.choose(request, k=10).measured

    def search(
        self, code: NDArray[np.float32], request: SearchRequest, *, plan_depth: int | None = None
    ) -> SearchResult:
        """Return the nearest images of a code (code_length,), to the depth of the page. Raises: SearchError.

        The pages before this one, each of k results, show none of its images and leave none out: where they were
        searched by another plan, since they did not reach as deep, theirs come first.

        Args:
            plan_depth: search by the plan for so many results; by that for the page's depth when None.
        """
        depth = request.depth
        chosen = self._choose(code, request, plan_depth or depth)
        result = self._run(code[None], [request], chosen, depth)[0]
        boundary = depth - request.k
        while boundary > 0 and plan_depth is None and self._choose(code, request, boundary).plan == chosen.plan:
            boundary -= request.k
        if boundary <= 0 or plan_depth is not None:
            return result
        earlier = self.search(code, replace(request, offset=boundary - request.k, k=request.k)).hits
        shown = {hit.record.key for hit in earlier}
        later = [hit for hit in result.hits if hit.record.key not in shown]
        return replace(result, hits=(earlier + later)[:depth])

    def search_batch(self, codes: NDArray[np.float32], requests: Sequence[SearchRequest]) -> list[SearchResult]:
        """Search for several codes (n, code_length) together; `batch_key` is equal for all requests.

        Raises: SearchError.
        """
        first = requests[0]
        if first.offset:
            return [self.search(code, request) for code, request in zip(codes, requests, strict=True)]
        if not self._is_filtered(first, first.depth):
            return self._run(codes, requests, self.choose_plan(first), first.depth)
        results: dict[int, SearchResult] = {}
        groups: dict[object, list[tuple[int, ChosenPlan]]] = defaultdict(list)
        for query, chosen in enumerate(self._choose_filtered(codes, first, first.depth)):
            groups[chosen.plan, chosen.measured is None].append((query, chosen))
        for group in groups.values():
            queries = [query for query, _ in group]
            its_results = self._run(codes[queries], [requests[query] for query in queries], group[0][1], first.depth)
            results.update(zip(queries, its_results, strict=True))
        return [results[query] for query in range(len(codes))]

    def _is_filtered(self, request: SearchRequest, depth: int) -> bool:
        """Whether so many images are not to be returned that a plan for as many results more would be another."""
        return request.filter is not None or measured_count(depth + self.engine.removed) != measured_count(depth)

    def _choose(self, code: NDArray[np.float32], request: SearchRequest, depth: int) -> ChosenPlan:
        """Choose the plan that searches for a code (code_length,) to a depth. Raises: SearchError."""
        if self._is_filtered(request, depth):
            return self._choose_filtered(code[None], request, depth)[0]
        return self._chooser.choose(request.plan, k=depth)

    def _choose_filtered(self, codes: NDArray[np.float32], request: SearchRequest, depth: int) -> list[ChosenPlan]:
        reaches = self.engine.reach(codes, k=depth, filter=request.filter)
        unfiltered = None if request.filter is not None else self._chooser.choose(request.plan, k=depth)
        return [
            unfiltered
            if unfiltered is not None and reach is not None and reach.count <= _NEARLY * depth
            else self._chooser.choose_filtered(request.plan, k=depth, reach=reach)
            for reach in reaches
        ]

    def _run(
        self, codes: NDArray[np.float32], requests: Sequence[SearchRequest], chosen: ChosenPlan, depth: int
    ) -> list[SearchResult]:
        """Search by one plan for `depth` results of each code. Searches again where images were removed meanwhile."""
        filter, plan, limit = requests[0].filter, chosen.plan, depth
        if excluded_count := len(requests[0].exclude_keys):
            plan, limit = plan.excluding(excluded_count), limit + excluded_count
        hits: dict[int, list[Hit]] = {}
        pending = list(range(len(codes)))
        for _ in range(_MAX_TRIES):
            nearest = self.engine.search(
                codes if len(pending) == len(codes) else codes[pending], plan=plan, k=limit, filter=filter
            )
            keys = {key for neighbors in nearest for key, _ in neighbors}
            records = self.records.present(list(keys))
            outdated = []
            for query, neighbors in zip(pending, nearest, strict=True):
                excluded = requests[query].exclude_keys
                hits[query] = [
                    Hit(records[key], score) for key, score in neighbors if key in records and key not in excluded
                ]
                if len(records) < len(keys) and any(key not in records for key, _ in neighbors):
                    outdated.append(query)
            pending = outdated
            if not pending:
                break
            self.sync()  # an image was removed a moment ago: others take its place
        return [SearchResult(hits[query][:depth], chosen.plan, chosen.measured) for query in range(len(codes))]

    def rebuild_advice(self) -> RebuildAdvice | None:
        """Return why a rebuild would pay; None if it would not."""
        engine = self.engine
        removed_step = 1000 * engine.removed // (_ADVICE_STEP * max(1, len(engine.keys)))
        return self._advice_at(engine.added_ms, removed_step)

    @cached_property
    def _advice_at(self) -> Callable[[float, int], RebuildAdvice | None]:
        engine = self.engine  # not this snapshot, which would keep itself
        return lru_cache(maxsize=1)(lambda added_ms, removed_step: advise_rebuild(engine))

    def exact_keys(self, code: NDArray[np.float32], request: SearchRequest) -> list[int]:
        """Return the keys of the exact nearest images by full codes, to the depth of the page. Raises: SearchError."""
        plan, limit = self._chooser.exact.plan, request.depth
        if excluded_count := len(request.exclude_keys):
            plan, limit = plan.excluding(excluded_count), limit + excluded_count
        nearest = self.engine.search(code[None], plan=plan, k=limit, filter=request.filter)[0]
        return [key for key, _ in nearest if key not in request.exclude_keys][: request.depth]

    def with_least_score(self, request: SearchRequest) -> SearchRequest:
        """Return a search whose `min_score` cuts off what its `min_similarity` does. Raises: SimilarityError."""
        if request.min_similarity is None:
            return request
        similarities = self.engine.similarities
        if similarities is None:
            raise SimilarityError(
                f"min_similarity is not possible in generation {self.number}, which does not know how near its images "
                "are to each other: it has fewer than 50, or an earlier version built it; rebuild it"
            )
        least = similarities.score_at(request.min_similarity, length=_scored_length(self.choose_plan(request).plan))
        return replace(request, min_score=least if request.min_score is None else max(least, request.min_score))

    def percentiles_of(self, codes: NDArray[np.float32]) -> Sequence[float | None]:
        """Return the `query_percentile` of each query (n, code_length)."""
        typicality = self.engine.typicality
        return [None] * len(codes) if typicality is None else typicality.percentiles_of(codes)

    def likeness(self, code: NDArray[np.float32], result: SearchResult, percentile: float | None) -> Likeness:
        """Compare a query (code_length,), whose percentile is known, and its best result with what is usual here."""
        similarities, query = self.engine.similarities, percentile
        best = unlike = None
        if result.hits:
            hit = result.hits[0]
            if similarities is not None:
                best = similarities.percentile_of(hit.score, length=_scored_length(result.plan))
            if query is not None:  # some of the gallery's own images are far out too: a copy of one is like it
                unlike = query < UNLIKE_PERCENTILE and not _are_equal(code, self.codes_of([hit.record.key])[0])
        return Likeness(best, query, unlike)

    def code_of(self, key: int) -> NDArray[np.float32]:
        """Return the stored code of an image, (code_length,). Raises: NotReadyError, if it was only just added."""
        codes = self.engine.codes_of([key])
        if not codes:
            self.sync()
            codes = self.engine.codes_of([key])
        if not codes:
            raise NotReadyError("this image was added a moment ago; try again")
        return codes[key]

    def codes_of(self, keys: Sequence[int]) -> NDArray[np.float32]:
        """Return the stored codes of images, (n, code_length); zeros for an image that was removed."""
        codes = self.engine.codes_of(keys)
        zeros = np.zeros(self.engine.code_length, dtype=np.float32)
        return np.stack([codes.get(key, zeros) for key in keys])


def _scored_length(plan: Plan) -> int:
    """Return how many coordinates the scores of a plan's results are of."""
    return plan.rerank_length or plan.prefix_length


def _are_equal(code: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Return whether two codes (code_length,) of any norm are equal but for their rounding."""
    one, two = unit_prefix(np.stack([code, other]), len(code))
    return float(one @ two) >= 1 - ROUNDING_OF_COSINE
