"""Counting recall while plans are measured: the ranks of true neighbours in one list tell that of many plans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.live.prefix_index import Rows
from eigenlens.index.plans.calibration import Recall


def ranks_of(true_rows: Rows, rows: Rows, *, count: int, excluded_rows: Rows | None = None) -> NDArray[np.int32]:
    """Return the rank of each true neighbour among a query's results, (q, k), from 0; the largest int32 if missing.

    Args:
        true_rows: rows of the true neighbours, (q, k).
        rows: rows of the results, (q, any number).
        count: number of rows that are searched.
        excluded_rows: a row for each query that is no result, (q,), such as the query itself; -1 for none.
    """
    missing = np.iinfo(np.int32).max
    rank_of = np.full(count + 1, missing, dtype=np.int32)  # the last entry is for row -1, which stands for no result
    ranks = np.empty(true_rows.shape, dtype=np.int32)
    order = np.arange(rows.shape[1], dtype=np.int32)
    for query, (result_rows, true_neighbors) in enumerate(zip(rows, true_rows, strict=True)):
        rank_of[result_rows] = order
        ranks[query] = rank_of[true_neighbors]
        if excluded_rows is not None and excluded_rows[query] >= 0:
            ranks[query] -= ranks[query] > rank_of[excluded_rows[query]]
        rank_of[result_rows] = missing  # ready for the next query, without filling the whole array again
    return ranks


def shortlist_recalls(
    ranks: NDArray[np.int32], shortlists: Sequence[int], counts: Sequence[int]
) -> dict[int, dict[int, Recall]]:
    """Return recall@k, by shortlist and k, of plans that rescore so many first results exactly.

    Args:
        ranks: of the true neighbours, (q, k), as from ranks_of.
        shortlists: ascending.
    """
    queries, widths = len(ranks), len(shortlists) + 1
    # The first shortlist that holds each true neighbour; then, for each query, how many each shortlist holds.
    first = np.searchsorted(shortlists, ranks, side="right") + widths * np.arange(queries)[:, None]
    recalls: dict[int, dict[int, Recall]] = {shortlist: {} for shortlist in shortlists}
    for k in counts:
        among = first[:, :k]
        holds = np.bincount(among.ravel(), minlength=queries * widths).reshape(queries, widths).cumsum(axis=1)
        for position, shortlist in enumerate(shortlists):
            recalls[shortlist][k] = Recall.of(holds[:, position] / max(1, among.shape[1]))
    return recalls


def plain_recalls(ranks: NDArray[np.int32], counts: Sequence[int]) -> dict[int, Recall]:
    """Return recall@k, by k, of the first k results as they are."""
    return {k: shortlist_recalls(ranks, [k], [k])[k][k] for k in counts}
