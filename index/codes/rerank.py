"""Exact rescoring of a shortlist at a longer prefix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Floats, unit_prefix


def rerank(
    queries: NDArray[np.float32], shortlist: NDArray[np.int64], codes: Floats, *, length: int, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of each query's shortlist by the cosine of the first `length` coordinates.

    Args:
        queries: (q, at least length).
        shortlist: rows of `codes`, (q, s); -1 marks an empty place.
        codes: (n, at least length), any float type, memory-mapped or not.

    Returns: scores and rows, each (q, min(k, s)), best first; row -1 and score -inf where there is none.
    """
    count, width = shortlist.shape
    candidates = unit_prefix(codes[shortlist.reshape(-1), :length], length).reshape(count, width, length)
    scores = np.einsum("qsd,qd->qs", candidates, unit_prefix(queries, length), dtype=np.float32)
    scores = np.where(shortlist >= 0, scores, -np.inf).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(shortlist, order, 1)


def score_rows(
    queries: NDArray[np.float32], rows: NDArray[np.int64], codes: Floats, *, length: int, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of the same few rows for every query, by the cosine of the first `length` coordinates.

    Returns: scores and rows, each (q, min(k, rows)), best first.
    """
    scores = unit_prefix(queries, length) @ unit_prefix(codes[rows], length).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.asarray(rows)[order]
