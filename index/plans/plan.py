"""A plan of one search: a first pass over a prefix, and a rerank of its shortlist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eigenlens.index.errors import LengthRangeError

# What a build is for: small indexes of all lengths; also a graph over a prefix, which answers one query at a time
# sooner; or indexes of so few lengths that they are built soon.
Optimise = Literal["memory", "latency", "build"]
# Default length of a shortlist: this many times k, and at least the minimum.
SHORTLIST_FACTOR = 10
MIN_SHORTLIST = 240
# Candidates beyond the results, and two thirds of these, among which compact codes leave nearly all true neighbours: a
# third of the rows is in two lists. With the second number they leave those, too, that they put far behind.
SPARE_CANDIDATES = (12, 36)
# Results of the searches that are timed.
TIMED_RESULTS = 10


@dataclass(frozen=True, order=True)
class Plan:
    """Search a prefix, then, if asked or if its index is lossy, rescore a shortlist exactly from the codes.

    Attributes:
        prefix_length: leading coordinates of the first pass.
        kind: of the index that the first pass uses.
        effort: how much of that index it visits (nprobe, efSearch); None if the kind has no such parameter.
        shortlist: candidates that the first pass hands to the rerank; None without a rerank.
        rerank_length: leading coordinates of the second pass; None without one.
        final_shortlist: candidates of the shortlist that compact codes leave to the rerank; 0 where it takes them all.
    """

    prefix_length: int
    kind: str = "flat"
    effort: int | None = None
    shortlist: int | None = None
    rerank_length: int | None = None
    final_shortlist: int = 0

    @property
    def ranked(self) -> int | None:
        """How many candidates the rerank puts in order; None without one."""
        return self.final_shortlist or self.shortlist

    def excluding(self, count: int) -> Plan:
        """Return the plan for a query whose own images, so many, are no results: they take places of the shortlist."""
        if self.shortlist is None:
            return self
        final_shortlist = self.final_shortlist and self.final_shortlist + count
        return replace(self, shortlist=self.shortlist + count, final_shortlist=final_shortlist)


@dataclass(frozen=True, order=True)
class IndexSpec:
    """The prefix length and the kind of one index."""

    length: int
    kind: str


def final_shortlist_for(count: int, *, spare: int = SPARE_CANDIDATES[0]) -> int:
    """Return how many candidates compact codes leave to the rerank, for so many results."""
    return count + 2 * count // 3 + spare


def choose_lengths(code_length: int, wanted: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the prefix lengths to build, ascending; the full length is always one of them.

    The powers of two from 4, if `wanted` is None. Raises: LengthRangeError, for a length below 1 or above the code's.
    """
    lengths = wanted if wanted is not None else [2**i for i in range(2, 20) if 2**i < code_length]
    for length in lengths:
        if not 1 <= length <= code_length:
            raise LengthRangeError(length, code_length=code_length)
    return tuple(sorted({*lengths, code_length}))
