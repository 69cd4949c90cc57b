"""What is served at a moment: one engine with its encoder. A request uses one snapshot from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.engine import Engine
from eigenlens.index.plans.calibration import Measured
from eigenlens.index.plans.choice import ChosenPlan, PlanChooser
from eigenlens.index.plans.plan import Plan
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import NotReadyError
from eigenlens.service.gallery.records import Records
from eigenlens.service.gallery.store import ImageRecord
from eigenlens.service.search.request import SearchRequest

# Searches again at most so often because images were removed meanwhile.
_MAX_TRIES = 4


@dataclass(frozen=True)
class Hit:
    """One image of the gallery, and the cosine of its code with the query's."""

    record: ImageRecord
    score: float


@dataclass(frozen=True)
class SearchResult:
    """The images that a search returned, best first, the plan that ran, and what calibration measured of it."""

    hits: list[Hit]
    plan: Plan
    measured: Measured | None


@dataclass(frozen=True)
class Snapshot:
    """A generation that is served. Its engine follows the gallery: a search sees what was added before it began.

    Attributes:
        number: of the generation.
        records: of the gallery's images.
        sync: lets the engine see every image that was added or removed up to now.
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
        """Return the nearest images of a code (code_length,), to the depth of the page. Raises: SearchError."""
        return self.search_batch(code[None], [request])[0]

    def search_batch(self, codes: NDArray[np.float32], requests: Sequence[SearchRequest]) -> list[SearchResult]:
        """Search for several codes (n, code_length) in one call; `batch_key` is equal for all requests.

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
            self.sync()  # an image was removed a moment ago: others take its place
        return [SearchResult(hits[query][: first.depth], chosen.plan, chosen.measured) for query in range(len(codes))]

    def code_of(self, key: int) -> NDArray[np.float32]:
        """Return the stored code of an image, (code_length,). Raises: NotReadyError, if it was added a moment ago."""
        codes = self.engine.codes_of([key])
        if not codes:
            self.sync()
            codes = self.engine.codes_of([key])
        if not codes:
            raise NotReadyError("this image was added a moment ago; try again")
        return codes[key]

    def codes_of(self, keys: Sequence[int]) -> NDArray[np.float32]:
        """Return the stored codes of images, (n, code_length); zeros for one that is gone."""
        codes = self.engine.codes_of(keys)
        gone = np.zeros(self.engine.code_length, dtype=np.float32)
        return np.stack([codes.get(key, gone) for key in keys])
