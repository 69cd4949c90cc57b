"""How good a search is: recall@k against exact search, precision@k and mAP@k against labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import SearchError


def recall_at_k(found: NDArray[np.int64], exact: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the exact top k that was found, for each query: (q,).

    Args:
        found, exact: rows or ids, (q, at least k) and (q, k); -1 is an empty place and counts neither way.
    """
    _require_same_queries(found, exact)
    hits = (exact[:, :, None] == found[:, None, :]).any(2) & (exact >= 0)
    return np.asarray(hits.sum(1) / np.maximum((exact >= 0).sum(1), 1))


def precision_at_k(relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the k results that are relevant, for each query: (q,).

    Args:
        relevant: (q, k), whether each result shares the query's label, best first.
    """
    return np.asarray(relevant.mean(1, dtype=np.float64))


def average_precision_at_k(relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average precision of each query, (q,): the mean of precision@i over the places i of relevant results.

    Divided by the relevant found in the top k; 0 where there is none. Its mean over queries is mAP@k.

    Args:
        relevant: (q, k), best first.
    """
    places = np.arange(1, relevant.shape[1] + 1)
    precision = relevant.cumsum(1) / places
    found = relevant.sum(1)
    return np.asarray((precision * relevant).sum(1) / np.maximum(found, 1))


def _require_same_queries(found: NDArray[np.int64], exact: NDArray[np.int64]) -> None:
    if found.ndim != 2 or exact.ndim != 2 or len(found) != len(exact):
        raise SearchError(f"results {found.shape} and {exact.shape} are not of the same queries")
