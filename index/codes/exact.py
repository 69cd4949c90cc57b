"""Exact cosines: of a whole gallery run by run, of a shortlist, or of a few rows."""

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
    """Cosines and rows of the k best by the first `length` coordinates, each (q, min(k, n)), best first.

    Args:
        gallery, queries: codes, (n, at least length) and (q, at least length); memory-mapped or not.
    """
    numbers = np.arange(len(gallery))
    runs = ((numbers[i : i + _RUN], gallery[i : i + _RUN]) for i in range(0, len(gallery), _RUN))
    return best_of_runs(runs, queries, length=length, k=k)


def best_of_runs(
    runs: Iterable[tuple[NDArray[np.int64], Floats]], queries: Floats, *, length: int, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosines and numbers of the k best of all runs, each (q, at most k), best first, in the memory of one run.

    Args:
        runs: numbers (m,) and their codes (m, at least length).
    """
    scores = np.empty((len(queries), 0), dtype=np.float32)
    numbers = np.empty((len(queries), 0), dtype=np.int64)
    prefixes = unit_prefix(queries, length)
    for run, codes in runs:
        if len(run) == 0:
            continue
        with all_cores(use_all_threads(queries)):
            found, places = faiss.knn(
                prefixes, unit_prefix(codes, length), min(k, len(run)), metric=faiss.METRIC_INNER_PRODUCT
            )
        scores, numbers = np.concatenate([scores, found], axis=1), np.concatenate([numbers, run[places]], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, numbers = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    return scores, numbers


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
