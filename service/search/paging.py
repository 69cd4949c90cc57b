"""Pages of results: cut from the nearest images, near-duplicates grouped behind the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.service.search.request import SearchRequest
from eigenlens.service.search.snapshot import Hit, SearchResult

# Codes of a generation are rounded to half precision, codes of the delta are not.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Result:
    """A hit, and the hits that are near-duplicates of it, best first."""

    hit: Hit
    duplicates: list[Hit] = field(default_factory=list)


def find_page(
    request: SearchRequest,
    search: Callable[[int], SearchResult],
    codes_of: Callable[[Sequence[int]], NDArray[np.float32]],
    *,
    limit: int,
) -> tuple[list[Result], SearchResult]:
    """Return the results of a page, best first, and the search that gave them.

    Args:
        search: for so many results.
        codes_of: full codes (n, code_length) of images by their keys.
        limit: most results that are looked at for near-duplicates.

    Raises: SearchError.
    """
    depth = request.depth
    if request.duplicate_cosine is None:
        result = search(depth)
        return [Result(hit) for hit in hits_of_page(request, result)], result
    # Duplicates take no place of their own, so more hits may have to be looked at than are answered.
    count = min(2 * depth, max(limit, depth))
    while True:
        result = search(count)
        hits = _good_enough(request, result)
        groups = _group(hits, codes_of, cosine=request.duplicate_cosine, max_groups=depth)
        if len(groups) == depth or len(hits) < count or count >= limit:
            return groups[request.offset :], result
        count = min(2 * count, limit)


def hits_of_page(request: SearchRequest, result: SearchResult) -> list[Hit]:
    """Return the hits of a page, best first, where near-duplicates are kept apart."""
    return _good_enough(request, result)[request.offset :]


def _good_enough(request: SearchRequest, result: SearchResult) -> list[Hit]:
    least = request.min_score
    return result.hits if least is None else [hit for hit in result.hits if hit.score >= least]


def _group(
    hits: Sequence[Hit],
    codes_of: Callable[[Sequence[int]], NDArray[np.float32]],
    *,
    cosine: float,
    max_groups: int,
) -> list[Result]:
    """Let each hit open a result, or put it behind the first result that it is a near-duplicate of."""
    if not hits:
        return []
    codes = codes_of([hit.record.key for hit in hits])
    units = unit_prefix(codes, codes.shape[1])
    opened = np.empty((min(max_groups, len(hits)), codes.shape[1]), dtype=np.float32)
    results: list[Result] = []
    by_content: dict[str, int] = {}
    for hit, unit in zip(hits, units, strict=True):
        near = np.flatnonzero(opened[: len(results)] @ unit >= cosine - _ROUNDING)
        group = by_content.get(hit.record.sha256, int(near[0]) if len(near) else None)
        if group is not None:
            results[group].duplicates.append(hit)
        elif len(results) < max_groups:
            by_content[hit.record.sha256] = len(results)
            opened[len(results)] = unit
            results.append(Result(hit))
    return results
