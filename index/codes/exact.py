"""Exact search by cosines: of a whole gallery, of a shortlist, or of a few rows."""

from __future__ import annotations

from collections.abc import Iterable

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import Floats, unit_prefix
from eigenlens.index.threads import all_cores, use_all_threads

_RUN = 65_536


def exact_search(
    gallery: Floats, queries: Floats, *, length: int, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return cosines and rows of the k nearest by the first `length` coordinates, each (q, min(k, n)), best first.

    Args:
        gallery, queries: codes, (n, at least length) and (q, at least length); memory-mapped or not.
    """
    numbers = np.arange(len(gallery))
    runs = ((numbers[i : i + _RUN], gallery[i : i + _RUN]) for i in range(0, len(gallery), _RUN))
    return best_of_runs(runs, queries, length=length, k=k)


def best_of_runs(
    runs: Iterable[tuple[NDArray[np.int64], Floats]], queries: Floats, *, length: int, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return cosines and rows of the k nearest over all runs, each (q, at most k), best first; holds one run in memory.

    Args:
        runs: parts of the gallery: the rows (m,) and codes (m, at least length) of each.
    """
    scores = np.empty((len(queries), 0), dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    prefixes = unit_prefix(queries, length)
    for run_rows, codes in runs:
        if len(run_rows) == 0:
            continue
        # Search the run, then keep the k best of its results and the earlier ones.
        with all_cores(use_all_threads(queries)):
            run_scores, indices = faiss.knn(
                prefixes, unit_prefix(codes, length), min(k, len(run_rows)), metric=faiss.METRIC_INNER_PRODUCT
            )
        scores = np.concatenate([scores, run_scores], axis=1)
        rows = np.concatenate([rows, run_rows[indices]], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return scores, rows


def rerank(
    queries: NDArray[np.float32], shortlist: NDArray[np.int64], codes: Floats, *, length: int, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the k nearest of each query's shortlist by the cosine of the first `length` coordinates.

    Args:
        queries: (q, at least length).
        shortlist: rows of `codes`, (q, s); -1 stands for no row.
        codes: (n, at least length), any float type, memory-mapped or not.

    Returns: scores and rows, each (q, min(k, s)), best first; score -inf for row -1.
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
    """Return the k nearest of the same few rows for every query, by the cosine of the first `length` coordinates.

    Returns: scores and rows, each (q, min(k, rows)), best first.
    """
    scores = unit_prefix(queries, length) @ unit_prefix(codes[rows], length).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.asarray(rows)[order]
