"""Rescoring of a shortlist from half-precision codes, in the quickest way that Python offers.

Of the ways that were tried, NumKong's product of half-precision numbers was the quickest at every size: 5.6, 7.9, 13.5
and 23 us for 16, 32, 64 and 128 of 300,000 codes of 256 coordinates, the look-up and the choice of the best included.
A cast by numpy took 15, 25, 47 and 90, FAISS's decoder 13, 21, 37 and 70, torch 15, 19, 25 and 40, and FAISS's
IndexRefine over the shortlist 12, 18, 27 and 43.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.search.setup import Ids, K, Vectors

Halves = NDArray[np.float16]
Rescore = Callable[[Vectors, Ids], Ids]
_LAST = -K - 1
_TOGETHER = 32  # queries whose shortlists are looked up at once, without Python's lock


def rescoring(codes: Halves, shortlist: int) -> Rescore:
    """Return a function of one thread: a unit query (1, d) and a shortlist of rows (s,) to the 10 best rows.

    Args:
        codes: unit codes, (n, d), in memory.
        shortlist: s, at least 10.
    """
    from numkong import cdist

    query = np.empty((1, codes.shape[1]), np.float16)
    candidates = np.empty((shortlist, codes.shape[1]), np.float16)
    scores = np.empty((1, shortlist), np.float64)
    row_of_scores = scores[0]

    def rescore(unit: Vectors, rows: Ids) -> Ids:
        query[...] = unit
        codes.take(rows, 0, candidates, "clip")
        cdist(query, candidates, "dot", out=scores)
        best: Ids = rows.take(row_of_scores.argsort()[:_LAST:-1])
        return best

    return rescore


def rescoring_of_batches(codes: Halves, shortlist: int, *, threads: int) -> Rescore:
    """Return a function of several threads: unit queries (q, d) and shortlists (q, s) to the 10 best rows, (q, 10)."""
    if threads == 1:
        return _rescoring_together(codes, shortlist)
    each = [_rescoring_together(codes, shortlist) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def rescore(units: Vectors, rows: Ids) -> Ids:
        bounds = np.linspace(0, len(units), threads + 1).astype(int)
        parts = zip(each, itertools.pairwise(bounds), strict=True)
        jobs = [pool.submit(rescore_part, units[a:b], rows[a:b]) for rescore_part, (a, b) in parts if a < b]
        return np.concatenate([job.result() for job in jobs])

    return rescore


def _rescoring_together(codes: Halves, shortlist: int) -> Rescore:
    from numkong import cdist

    candidates = np.empty((_TOGETHER * shortlist, codes.shape[1]), np.float16)
    scores = np.empty((_TOGETHER, shortlist), np.float64)
    candidates_of = np.split(candidates, _TOGETHER)
    scores_of = np.split(scores, _TOGETHER)

    def rescore(units: Vectors, rows: Ids) -> Ids:
        best = np.empty((len(units), K), np.int64)
        queries = units.astype(np.float16)
        for start in range(0, len(units), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            codes.take(some.ravel(), 0, candidates[: some.size], "clip")
            for number in range(len(some)):
                query = queries[start + number : start + number + 1]
                cdist(query, candidates_of[number], "dot", out=scores_of[number])
            order = scores[: len(some)].argsort(1)[:, :_LAST:-1]
            best[start : start + _TOGETHER] = np.take_along_axis(some, order, 1)
        return best

    return rescore
