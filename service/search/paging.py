"""Pages of results: where they begin, how good they have to be, near-duplicates gathered behind the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.errors import ResultCountError
from eigenlens.service.search.manager import Found, Hit

# How far a page may reach, in pages of the most results that one search gives.
_PAGES = 10
# Codes of a generation are rounded to half precision, codes of the delta are not.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Page:
    """Which results are wanted.

    Attributes:
        offset: better results that are passed over.
        min_score: results below it are left out.
        duplicate_cosine: images whose full codes have this cosine or more are near-duplicates; None keeps all apart.
    """

    k: int
    offset: int = 0
    min_score: float | None = None
    duplicate_cosine: float | None = None

    @property
    def depth(self) -> int:
        """Results from the best to the last of the page."""
        return self.offset + self.k

    def check(self, *, max_k: int) -> None:
        """Raises: ResultCountError, if the page is too large or lies too deep."""
        if self.k > max_k:
            raise ResultCountError(f"k is {self.k}; at most {max_k} results are answered")
        limit = max_k if self.duplicate_cosine is not None else _PAGES * max_k
        if self.depth > limit:
            raise ResultCountError(f"offset and k reach to result {self.depth}; pages reach to {limit}")


@dataclass(frozen=True)
class Result:
    """A hit, and the hits that are near-duplicates of it, best first."""

    hit: Hit
    duplicates: list[Hit] = field(default_factory=list)


def find_page(
    page: Page,
    search: Callable[[int], Found],
    codes_of: Callable[[Sequence[int]], NDArray[np.float32]],
    *,
    limit: int,
) -> tuple[list[Result], Found]:
    """The results of a page, best first, and the search that gave them.

    Args:
        search: for so many results.
        codes_of: full codes (n, code_length) of images by their keys.
        limit: most results that are looked at for near-duplicates.

    Raises: SearchError.
    """
    depth = page.depth
    if page.duplicate_cosine is None:
        found = search(depth)
        return [Result(hit) for hit in good_enough(page, found)[page.offset :]], found
    depth = min(2 * depth, max(limit, depth))
    while True:  # duplicates take no place, so more may have to be looked at than are answered
        found = search(depth)
        hits = good_enough(page, found)
        results = _gathered(hits, codes_of, cosine=page.duplicate_cosine, most=page.depth)
        if len(results) == page.depth or len(hits) < depth or depth >= limit:
            return results[page.offset :], found
        depth = min(2 * depth, limit)


def good_enough(page: Page, found: Found) -> list[Hit]:
    """The hits that score high enough for a page, best first."""
    return [hit for hit in found.hits if page.min_score is None or hit.score >= page.min_score]


def _gathered(
    hits: Sequence[Hit],
    codes_of: Callable[[Sequence[int]], NDArray[np.float32]],
    *,
    cosine: float,
    most: int,
) -> list[Result]:
    """Each hit either opens a result or stands behind the first result that it is a near-duplicate of."""
    if not hits:
        return []
    codes = codes_of([hit.record.key for hit in hits])
    units = unit_prefix(codes, codes.shape[1])
    opened = np.empty((min(most, len(hits)), codes.shape[1]), dtype=np.float32)
    results: list[Result] = []
    by_content: dict[str, int] = {}
    for hit, unit in zip(hits, units, strict=True):
        near = np.flatnonzero(opened[: len(results)] @ unit >= cosine - _ROUNDING)
        place = by_content.get(hit.record.sha256, int(near[0]) if len(near) else None)
        if place is not None:
            results[place].duplicates.append(hit)
        elif len(results) < most:
            by_content[hit.record.sha256] = len(results)
            opened[len(results)] = unit
            results.append(Result(hit))
    return results
