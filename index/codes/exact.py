"""Exact search by cosine, run by run: what plans are measured against, and what answers where no index does."""

from __future__ import annotations

from collections.abc import Iterable

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Floats, unit_prefix
from eigenlens.index.threads import all_cores, worth_a_team

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
        with all_cores(worth_a_team(queries)):
            found, places = faiss.knn(
                prefixes, unit_prefix(codes, length), min(k, len(run)), metric=faiss.METRIC_INNER_PRODUCT
            )
        scores, numbers = np.concatenate([scores, found], axis=1), np.concatenate([numbers, run[places]], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, numbers = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    return scores, numbers
