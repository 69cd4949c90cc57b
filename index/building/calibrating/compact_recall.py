"""Recall of plans that first rescore by compact codes, counted without a search of its own for each.

Compact codes put some other entries of a shortlist before a true neighbour. It is found if it is in the shortlist, and
fewer of those before it are than the final shortlist holds. The more candidates, the more of them are: so a neighbour
is found by shortlists from a first one on, up to the last with too few of them to displace it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.building.calibrating.recall_counting import MISSING, entry_ranks, shortlist_recalls
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.live.prefix_index import AnyCompactCodes, Rows, Scores
from eigenlens.index.plans.calibration import SHALLOW_COUNTS, Measured, Recall
from eigenlens.index.plans.plan import SPARE_CANDIDATES, TIMED_RESULTS, Plan, final_shortlist_for

# Exact nearest of a query among which ranks by compact codes are counted: those farther off are behind by either.
COMPARED = 250
# The mean recall of true codes from which on plans with more candidates for these are measured too.
_NEARLY_ALL = 0.985
# Plans with compact codes take no more bytes: room for these and for lists over a third of the coordinates.
_BYTES_OF_IDS, _BYTES_OF_COORDINATE = 24, 0.875
# Neighbours whose preceding entries are put in order at once.
_AT_ONCE = 4096

Candidates = dict[Plan, dict[int, Recall]]
Ranks = NDArray[np.int32]
# For k and a number of candidates, the rank at which each of the first k exact nearest is lost, (q, k).
LostRanks = Callable[[int, int], Ranks]


class CompactOrder:
    """The exact nearest of some queries in the order of compact codes."""

    def __init__(self, compact: AnyCompactCodes, codes: Codes, queries: Scores, exact: Rows) -> None:
        """Order the exact nearest (q, m) of unit queries (q, code_length), best first."""
        order = np.argsort(-compact.score(queries, exact, codes=codes), axis=1, kind="stable")
        self._rows = np.take_along_axis(exact, order, 1)
        self._places = np.argsort(order, axis=1)[:, : SHALLOW_COUNTS[-1]]

    def lost_ranks(self, entries: Rows, *, count: int, excluded_rows: Rows | None = None) -> LostRanks:
        """Return a function that tells when an index's entries displace an exact neighbour from a final shortlist.

        That is the rank of the last entry that the final shortlist has room for before it, of those that compact codes
        put before it; MISSING where there are fewer.

        Args:
            entries: rows of the longest shortlist, (q, any number), where a row may be twice.
            count: number of rows in the index.
            excluded_rows: as of `ranks_of`.
        """
        ranks = entry_ranks(self._rows, entries, count=count, excluded_rows=excluded_rows)
        ranks = ranks.reshape(len(ranks), -1)  # both entries of a row are next to each other
        held = np.pad((ranks < MISSING).cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        before = 2 * self._places
        preceding = np.take_along_axis(held, before, 1)

        def lost_ranks(k: int, candidates: int) -> Ranks:
            lost = np.full(preceding[:, :k].shape, MISSING, dtype=np.int32)
            queries, neighbors = np.nonzero(preceding[:, :k] >= candidates)
            for start in range(0, len(queries), _AT_ONCE):
                query, neighbor = queries[start : start + _AT_ONCE], neighbors[start : start + _AT_ONCE]
                is_before = np.arange(ranks.shape[1]) < before[query, neighbor][:, None]
                among = np.where(is_before, ranks[query], MISSING)
                lost[query, neighbor] = np.partition(among, candidates - 1, axis=1)[:, candidates - 1]
            return lost

        return lost_ranks


def with_compact_codes(plans: Candidates, ranks: Ranks, lost_ranks: LostRanks) -> Candidates:
    """Return the same plans with a first rescoring by compact codes, and their recall.

    Those of a high recall are there twice: with more candidates for the true codes, compact codes lose less of it.

    Args:
        ranks: of the true neighbours in the shortlist, (q, k).
        lost_ranks: as CompactOrder.lost_ranks returns it.
    """
    compact: Candidates = {}
    for spare in SPARE_CANDIDATES:
        final = final_shortlist_for(TIMED_RESULTS, spare=spare)
        longer = {
            plan.shortlist: plan
            for plan, recall in plans.items()
            if plan.shortlist is not None
            and plan.shortlist > final
            and (spare == SPARE_CANDIDATES[0] or recall[TIMED_RESULTS].mean >= _NEARLY_ALL)
        }
        recalls: dict[int, dict[int, Recall]] = {shortlist: {} for shortlist in longer}
        for k in SHALLOW_COUNTS if longer else ():
            lost = lost_ranks(k, final_shortlist_for(k, spare=spare))
            found = shortlist_recalls(ranks[:, :k], sorted(longer), [k], lost_ranks=lost)
            for shortlist, by_k in found.items():
                recalls[shortlist] |= by_k
        compact |= {replace(plan, final_shortlist=final): recalls[shortlist] for shortlist, plan in longer.items()}
    return compact


def wastes_compact_codes(measured: Measured, *, code_length: int) -> bool:
    """Whether a plan with compact codes takes more bytes than it is there for."""
    limit = _BYTES_OF_IDS + _BYTES_OF_COORDINATE * code_length
    return bool(measured.plan.final_shortlist) and measured.bytes_per_image > limit
