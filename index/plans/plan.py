"""A plan: how one search runs, and by which indexes it can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eigenlens.index.errors import LengthRangeError

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


@dataclass(frozen=True, order=True)
class IndexSpec:
    """Which kind of index a prefix length gets."""

    length: int
    kind: str


def choose_lengths(code_length: int, wanted: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the prefix lengths to build, ascending; the full length is always one of them.

    Powers of two from 4 when none are wanted. Raises: LengthRangeError, for a length below 1 or above the code's.
    """
    lengths = wanted if wanted is not None else [2**i for i in range(2, 20) if 2**i < code_length]
    for length in lengths:
        if not 1 <= length <= code_length:
            raise LengthRangeError(length, code_length=code_length)
    return tuple(sorted({*lengths, code_length}))
