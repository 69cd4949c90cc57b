"""What a search asks for, from the plan to the page of results."""

from __future__ import annotations

from dataclasses import dataclass, field

from eigenlens.index.errors import ResultCountError
from eigenlens.index.filters.parse import Filter
from eigenlens.index.plans.choice import PlanRequest

# How far a page may reach, in pages of the most results that one search gives.
_MAX_PAGES = 10


@dataclass(frozen=True)
class SearchRequest:
    """One search: how it is to run, over which images, and which results are wanted.

    Attributes:
        k: results of the page.
        offset: better results that are passed over.
        filter: which images may be returned; all when None.
        exclude_key: key of an image that is no result, such as the query itself.
        min_score: results below it are left out.
        duplicate_cosine: images whose full codes have this cosine or more are near-duplicates; None keeps all apart.
    """

    k: int
    offset: int = 0
    plan: PlanRequest = field(default_factory=PlanRequest)
    filter: Filter | None = None
    exclude_key: int | None = None
    min_score: float | None = None
    duplicate_cosine: float | None = None

    @property
    def depth(self) -> int:
        """Results from the best to the last of the page."""
        return self.offset + self.k

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Equal for searches that can run in one call."""
        return self.depth, self.plan, self.filter, self.exclude_key is None

    def check_page(self, *, max_k: int) -> None:
        """Refuse a page that is too large or lies too deep. Raises: ResultCountError."""
        if self.k > max_k:
            raise ResultCountError(f"k is {self.k}; at most {max_k} results are answered")
        limit = max_k if self.duplicate_cosine is not None else _MAX_PAGES * max_k
        if self.depth > limit:
            raise ResultCountError(f"offset and k reach to result {self.depth}; pages reach to {limit}")
