"""How far a search has to reach among all images to see as many as it may return."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """How many of the images nearest to a query hold the k that may be returned, as an engine estimates it.

    Attributes:
        count: of nearest images; k or more.
        is_against: whether the filter is against the query: beyond these, nearly all images may be returned.
    """

    count: int
    is_against: bool = False
