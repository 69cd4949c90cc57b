"""A snapshot of what is served: one engine and its encoder. A request uses one snapshot from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.engine import Engine
from eigenlens.index.errors import SimilarityError
from eigenlens.index.plans.calibration import Measured
from eigenlens.index.plans.choice import ChosenPlan, PlanChooser
from eigenlens.index.plans.plan import Plan
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import NotReadyError
from eigenlens.service.gallery.records import Records
from eigenlens.service.gallery.store import ImageRecord
from eigenlens.service.search.request import SearchRequest

# A search runs at most this often, if its results name images that were removed a moment ago.
_MAX_TRIES = 4


@dataclass(frozen=True)
class Hit:
    """One image of the gallery, and the cosine of its code with the query's."""

    record: ImageRecord
    score: float


@dataclass(frozen=True)
class SearchResult:
    """The hits of a search, best first; its plan; and the plan's calibration, None if there is none."""

    hits: list[Hit]
    plan: Plan
    measured: Measured | None


@dataclass(frozen=True)
class Snapshot:
    """A generation that is served. Its engine follows the gallery: a search finds images that were added before it.

    Attributes:
        number: number of the generation.
        engine: searches the codes.
        encoder: makes codes from images.
        records: records of the gallery's images, by key.
        sync: brings the engine up to date with the gallery.
    """

    number: int
    engine: Engine
    encoder: Encoder
    records: Records
    sync: Callable[[], None]

    @cached_property
    def _chooser(self) -> PlanChooser:
        return PlanChooser(self.engine)

    def choose_plan(self, request: SearchRequest) -> ChosenPlan:
        """Choose the plan of a search. Raises: SearchError."""
        return self._chooser.choose(request.plan, k=request.depth)

    def search(self, code: NDArray[np.float32], request: SearchRequest) -> SearchResult:
        """Return the nearest images of a code (code_length,), down to the page's last. Raises: SearchError."""
        return self.search_batch(code[None], [request])[0]

    def search_batch(self, codes: NDArray[np.float32], requests: Sequence[SearchRequest]) -> list[SearchResult]:
        """Return the nearest images of several codes (n, code_length), whose requests have the same `batch_key`.

        Raises: SearchError.
        """
        first = requests[0]
        chosen = self.choose_plan(first)
        limit = first.depth + (first.exclude_key is not None)
        hits: dict[int, list[Hit]] = {}
        pending = list(range(len(codes)))
        for _ in range(_MAX_TRIES):
            nearest = self.engine.search(codes[pending], plan=chosen.plan, k=limit, filter=first.filter)
            records = self.records.present([key for neighbors in nearest for key, _ in neighbors])
            outdated = []
            for query, neighbors in zip(pending, nearest, strict=True):
                excluded = requests[query].exclude_key
                hits[query] = [
                    Hit(records[key], score) for key, score in neighbors if key in records and key != excluded
                ]
                if any(key not in records for key, _ in neighbors):
                    outdated.append(query)
            pending = outdated
            if not pending:
                break
            self.sync()  # a result names an image that was removed a moment ago: search again without it
        return [SearchResult(hits[query][: first.depth], chosen.plan, chosen.measured) for query in range(len(codes))]

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

    def best_percentile(self, result: SearchResult) -> float | None:
        """Return where the best score stands among the gallery's own similarities; None where nothing tells it."""
        similarities = self.engine.similarities
        if similarities is None or not result.hits:
            return None
        return similarities.percentile_of(result.hits[0].score, length=_scored_length(result.plan))

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
