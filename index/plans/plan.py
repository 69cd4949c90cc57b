"""A plan: how one search runs."""

from __future__ import annotations

from dataclasses import dataclass

# A shortlist of this many times k, and no shorter than that, where nothing was calibrated or asked for.
SHORTLIST_FACTOR = 10
MIN_SHORTLIST = 100


@dataclass(frozen=True, order=True)
class Plan:
    """Search a prefix, then, if asked or if its index is lossy, rescore a shortlist exactly from the codes.

    Attributes:
        prefix_length: leading coordinates of the first pass.
        kind: of the index that the first pass uses.
        effort: how much of that index it looks at (nprobe, efSearch); None where the kind has no such number.
        shortlist: candidates that the first pass hands to the rerank; None without a rerank.
        rerank_length: leading coordinates of the second pass; None without one.
    """

    prefix_length: int
    kind: str = "flat"
    effort: int | None = None
    shortlist: int | None = None
    rerank_length: int | None = None
