"""Recall of plans that first rescore by compact codes, counted without a search of its own for each.

By compact codes, a true neighbour comes after some others of the exact nearest. In a shortlist it comes after at most
as many entries as these have. So one is found that is in the shortlist, and comes after fewer than the final one holds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.building.calibrating.recall_counting import shortlist_recalls
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.live.prefix_index import AnyCompactCodes, AnyPrefixIndex, Rows, Scores
from eigenlens.index.plans.calibration import SHALLOW_COUNTS, Recall
from eigenlens.index.plans.plan import SPARE_CANDIDATES, TIMED_RESULTS, Plan, final_shortlist_for

# Exact nearest of a query among which ranks by compact codes are counted: those farther off are behind by either.
COMPARED = 250
# The mean recall of true codes from which on plans with more candidates for these are measured too.
_NEARLY_ALL = 0.985

Candidates = dict[Plan, dict[int, Recall]]


class CompactOrder:
    """The exact nearest of some queries in the order of compact codes."""

    def __init__(self, compact: AnyCompactCodes, codes: Codes, queries: Scores, exact: Rows) -> None:
        """Order the exact nearest (q, m) of unit queries (q, code_length), best first."""
        order = np.argsort(-compact.score(queries, exact, codes=codes), axis=1, kind="stable")
        self._rows = np.take_along_axis(exact, order, 1)
        self._places = np.argsort(order, axis=1)[:, : SHALLOW_COUNTS[-1]]

    def ranks(self, index: AnyPrefixIndex) -> Rows:
        """Return how many entries of an index precede each of a query's first exact nearest, (q, k)."""
        entries = index.entries_of(self._rows)
        return np.take_along_axis(entries.cumsum(axis=1) - entries, self._places, 1)


def with_compact_codes(plans: Candidates, ranks: NDArray[np.int32], compact_ranks: Rows) -> Candidates:
    """Return the same plans with a first rescoring by compact codes, and their recall.

    Those of a high recall are there twice: with more candidates for the true codes, compact codes lose less of it.

    A true neighbour is found that is in the shortlist, and that compact codes leave to the rerank.

    Args:
        ranks: of the true neighbours in the shortlist, (q, k).
        compact_ranks: as CompactOrder.ranks returns them.
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
            kept = compact_ranks[:, :k] < final_shortlist_for(k, spare=spare)
            found = np.where(kept, ranks[:, :k], np.iinfo(np.int32).max)
            for shortlist, by_k in shortlist_recalls(found, sorted(longer), [k]).items():
                recalls[shortlist] |= by_k
        compact |= {replace(plan, final_shortlist=final): recalls[shortlist] for shortlist, plan in longer.items()}
    return compact
