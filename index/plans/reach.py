"""How far a search has to reach among all images to see as many as it may return."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Standard deviations below the share of all rows at which a share of some is no accident.
_CLEARLY = 2.0


@dataclass(frozen=True)
class Reach:
    """How many of the images nearest to a query hold the k that may be returned, as an engine estimates it.

    Attributes:
        count: of nearest images; k or more.
        is_against: whether the filter is against the query: beyond these, nearly all images may be returned.
        share: of all images that may be returned, where the plans were measured under filters.
    """

    count: int
    is_against: bool = False
    share: float = 1.0


def is_against(selected: int, seen: int, *, share: float) -> bool:
    """Return whether of the nearest rows clearly fewer are selected than of all.

    Args:
        selected, seen: how many of the nearest rows are selected, of how many.
        share: of all rows that are selected.
    """
    return selected / seen < share - _CLEARLY * math.sqrt(share * (1 - share) / seen)
