"""Metrics of a search: recall@k against exact search, precision@k and mAP@k against labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import SearchError


def recall_at_k(results: NDArray[np.int64], exact: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the exact top k among the results, for each query: (q,).

    Args:
        results, exact: rows or ids, (q, at least k) and (q, k); -1 stands for no result and is ignored.
    """
    _require_same_queries(results, exact)
    hits = (exact[:, :, None] == results[:, None, :]).any(2) & (exact >= 0)
    return np.asarray(hits.sum(1) / np.maximum((exact >= 0).sum(1), 1))


def recall_interval(recalls: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean of queries' recall (q,).

    Wilson's interval, for as many independent neighbours as give the variance that the queries have: neighbours of one
    query are found or missed together. It does not shrink to a point where no neighbour was missed.

    Raises: SearchError, if there are no queries.
    """
    queries = len(recalls)
    if queries == 0:
        raise SearchError("no queries have no mean recall")
    mean = float(recalls.mean())
    spread = float(recalls.var(ddof=1)) if queries > 1 else 0.0
    # 1. Neighbours that would give this variance if each were found independently: at least one a query.
    count = max(queries, queries * mean * (1 - mean) / spread) if spread else queries
    # 2. Wilson's interval of a proportion of so many.
    z2 = 1.96**2
    centre = (mean + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (mean * (1 - mean) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def precision_at_k(relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of the k results that are relevant, for each query: (q,).

    Args:
        relevant: (q, k), whether each result shares the query's label, best first.
    """
    return np.asarray(relevant.mean(1, dtype=np.float64))


def average_precision_at_k(relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the average precision of each query, (q,): the mean of precision@i over the ranks i of relevant results.

    The sum is divided by the number of relevant results in the top k; it is 0 without any. The mean over queries is
    mAP@k.

    Args:
        relevant: (q, k), best first.
    """
    ranks = np.arange(1, relevant.shape[1] + 1)
    precision = relevant.cumsum(1) / ranks
    relevant_count = relevant.sum(1)
    return np.asarray((precision * relevant).sum(1) / np.maximum(relevant_count, 1))


def _require_same_queries(results: NDArray[np.int64], exact: NDArray[np.int64]) -> None:
    if results.ndim != 2 or exact.ndim != 2 or len(results) != len(exact):
        raise SearchError(f"results {results.shape} and {exact.shape} are not of the same queries")
