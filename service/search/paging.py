"""Pages of results: a slice of the nearest images, in which near-duplicates can form one result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.service.search.request import SearchRequest
from eigenlens.service.search.snapshot import Hit, SearchResult

# Tolerance of the cosine: an engine may return stored codes in half precision and recently added ones in float32.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Result:
    """A hit, and its near-duplicates among the later hits, best first."""

    hit: Hit
    duplicates: list[Hit] = field(default_factory=list)


def find_page(
    request: SearchRequest,
    search: Callable[[int], SearchResult],
    codes_of: Callable[[Sequence[int]], NDArray[np.float32]],
    *,
    limit: int,
) -> tuple[list[Result], SearchResult]:
    """Return the results of a page, best first, and the search that they come from.

    Args:
        search: runs the search for a number of results.
        codes_of: returns the full codes (n, code_length) of images by key.
        limit: largest number of hits that are fetched to fill a page with near-duplicates grouped.

    Raises: SearchError.
    """
    depth = request.depth
    if request.duplicate_cosine is None:
        result = search(depth)
        return [Result(hit) for hit in hits_of_page(request, result)], result
    # Near-duplicates share a result, so filling the page can take more hits than it has results: start with twice as
    # many and double until the page is full.
    count = min(2 * depth, max(limit, depth))
    while True:
        result = search(count)
        hits = _good_enough(request, result)
        groups = _group(hits, codes_of, cosine=request.duplicate_cosine, max_groups=depth)
        if len(groups) == depth or len(hits) < count or count >= limit:
            return groups[request.offset :], result
        count = min(2 * count, limit)


def hits_of_page(request: SearchRequest, result: SearchResult) -> list[Hit]:
    """Return the hits of a page without grouping near-duplicates, best first."""
    return _good_enough(request, result)[request.offset :]


def _good_enough(request: SearchRequest, result: SearchResult) -> list[Hit]:
    min_score = request.min_score
    return result.hits if min_score is None else [hit for hit in result.hits if hit.score >= min_score]


def _group(
    hits: Sequence[Hit],
    codes_of: Callable[[Sequence[int]], NDArray[np.float32]],
    *,
    cosine: float,
    max_groups: int,
) -> list[Result]:
    """Group hits: each joins the first result that it is a near-duplicate of, or else starts a result of its own.

    Images of the same content (SHA-256) are near-duplicates whatever their codes.
    """
    if not hits:
        return []
    codes = codes_of([hit.record.key for hit in hits])
    units = unit_prefix(codes, codes.shape[1])
    # The unit code of each result's first hit.
    representatives = np.empty((min(max_groups, len(hits)), codes.shape[1]), dtype=np.float32)
    results: list[Result] = []
    by_content: dict[str, int] = {}
    for hit, unit in zip(hits, units, strict=True):
        near = np.flatnonzero(representatives[: len(results)] @ unit >= cosine - _ROUNDING)
        group = by_content.get(hit.record.sha256, int(near[0]) if len(near) else None)
        if group is not None:
            results[group].duplicates.append(hit)
        elif len(results) < max_groups:
            by_content[hit.record.sha256] = len(results)
            representatives[len(results)] = unit
            results.append(Result(hit))
    return results
