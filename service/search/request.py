"""The request of one search: its plan, its filter and its page of results."""

from __future__ import annotations

from dataclasses import dataclass, field

from eigenlens.index.errors import ResultCountError
from eigenlens.index.filters.parse import Filter
from eigenlens.index.plans.choice import PlanRequest

# Depth limit of a page, in multiples of the largest k.
_MAX_PAGES = 10


@dataclass(frozen=True)
class SearchRequest:
    """One search: how it runs, which images it may return, and which page of results.

    Attributes:
        k: number of results on the page.
        offset: number of better results to skip.
        plan: parts of the plan, or targets that the plan has to meet.
        filter: which images may be returned; all if None.
        exclude_keys: keys of images to leave out, such as the query itself.
        min_score: results with a lower score are left out.
        min_similarity: results at a lower percentile of the gallery's own similarities are left out.
        crop: left, top, right and bottom of the part of the query image that is searched for, as shares of the picture;
            all of it if None.
        duplicate_cosine: images whose full codes have at least this cosine are near-duplicates and form one result;
            None turns grouping off.
    """

    k: int
    offset: int = 0
    plan: PlanRequest = field(default_factory=PlanRequest)
    filter: Filter | None = None
    exclude_keys: tuple[int, ...] = ()
    min_score: float | None = None
    min_similarity: float | None = None
    duplicate_cosine: float | None = None
    crop: tuple[float, float, float, float] | None = None

    @property
    def depth(self) -> int:
        """Rank of the page's last result, counted from 1."""
        return self.offset + self.k

    @property
    def batch_key(self) -> tuple[object, ...]:
        """A key that is equal for searches that can run in one call."""
        return self.depth, self.plan, self.filter, len(self.exclude_keys)

    def check_page(self, *, max_k: int) -> None:
        """Check the size and the depth of the page. Raises: ResultCountError."""
        if self.k > max_k:
            raise ResultCountError(f"k is {self.k}; at most {max_k} results are answered")
        limit = max_k if self.duplicate_cosine is not None else _MAX_PAGES * max_k
        if self.depth > limit:
            raise ResultCountError(f"offset and k reach to result {self.depth}; pages reach to {limit}")
