"""Counting recall while plans are measured: the ranks of true neighbours in one list tell that of many plans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.live.prefix_index import Rows
from eigenlens.index.plans.calibration import Recall

# The rank of what is not among the results.
MISSING = int(np.iinfo(np.int32).max)


def ranks_of(true_rows: Rows, rows: Rows, *, count: int, excluded_rows: Rows | None = None) -> NDArray[np.int32]:
    """Return the rank of each true neighbour among a query's results, (q, k), from 0; MISSING if it is not there.

    Args:
        true_rows: rows of the true neighbours, (q, k).
        rows: rows of the results, (q, any number); the first time counts of one that is there twice.
        count: number of rows that are searched.
        excluded_rows: a row for each query that is no result, (q,), such as the query itself; -1 for none.
    """
    return entry_ranks(true_rows, rows, count=count, excluded_rows=excluded_rows)[..., 0]


def entry_ranks(true_rows: Rows, rows: Rows, *, count: int, excluded_rows: Rows | None = None) -> NDArray[np.int32]:
    """Return both ranks of each true neighbour among results that a row may be in twice, (q, k, 2), ascending.

    Args:
        true_rows, rows, count, excluded_rows: as of `ranks_of`.
    """
    # The last number is for row -1, which stands for no result.
    first, last = np.full((2, count + 1), MISSING, dtype=np.int32)
    ranks = np.empty((*true_rows.shape, 2), dtype=np.int32)
    order = np.arange(rows.shape[1], dtype=np.int32)
    for query, (result_rows, true_neighbors) in enumerate(zip(rows, true_rows, strict=True)):
        last[result_rows] = order
        first[result_rows[::-1]] = order[::-1]
        ranks[query, :, 0], ranks[query, :, 1] = first[true_neighbors], last[true_neighbors]
        if excluded_rows is not None and excluded_rows[query] >= 0:
            ranks[query] -= ranks[query] > first[excluded_rows[query]]
        first[result_rows] = last[result_rows] = MISSING  # ready for the next query, without filling them again
    ranks[..., 1][ranks[..., 0] == ranks[..., 1]] = MISSING
    return ranks


def shortlist_recalls(
    ranks: NDArray[np.int32],
    shortlists: Sequence[int],
    counts: Sequence[int],
    *,
    lost_ranks: NDArray[np.int32] | None = None,
) -> dict[int, dict[int, Recall]]:
    """Return recall@k, by shortlist and k, of plans that rescore so many first results exactly.

    Args:
        ranks: of the true neighbours, (q, k), as from ranks_of.
        shortlists: ascending.
        lost_ranks: that of the result for which each true neighbour has to give way, (q, k): it is not found in
            shortlists that hold that one; MISSING for none.
    """
    queries, widths = len(ranks), len(shortlists) + 1
    # The first shortlist that holds each true neighbour; then, for each query, how many each shortlist holds.
    of_query = widths * np.arange(queries)[:, None]
    first = np.searchsorted(shortlists, ranks, side="right")
    lost = None if lost_ranks is None else np.maximum(first, np.searchsorted(shortlists, lost_ranks, side="right"))
    recalls: dict[int, dict[int, Recall]] = {shortlist: {} for shortlist in shortlists}
    for k in counts:
        among = (first + of_query)[:, :k].ravel()
        changes = np.bincount(among, minlength=queries * widths)
        if lost is not None:
            changes -= np.bincount((lost + of_query)[:, :k].ravel(), minlength=queries * widths)
        holds = changes.reshape(queries, widths).cumsum(axis=1)
        for position, shortlist in enumerate(shortlists):
            recalls[shortlist][k] = Recall.of(holds[:, position] / max(1, min(k, ranks.shape[1])))
    return recalls


def plain_recalls(ranks: NDArray[np.int32], counts: Sequence[int]) -> dict[int, Recall]:
    """Return recall@k, by k, of the first k results as they are."""
    return {k: shortlist_recalls(ranks, [k], [k])[k][k] for k in counts}
