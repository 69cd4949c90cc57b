"""Rescoring of a shortlist from half-precision codes, in the quickest way that Python offers.

Of the ways that were tried (numpy's take, cast and product; FAISS's decoder or its IndexRefine over the shortlist;
torch; NumKong, which comes with USearch), NumKong was the quickest at every size: it multiplies half-precision numbers
as they are. Without it numpy casts them first, which takes two to four times as long.
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


def rescoring(codes: Halves, shortlist: int) -> Rescore:
    """Return a function of one thread: a unit query (1, d) and a shortlist of rows (s,) to the 10 best rows.

    Args:
        codes: unit codes, (n, d), in memory.
        shortlist: s, at least 10.
    """
    try:
        from numkong import cdist
    except ImportError:
        return _rescoring_by_numpy(codes, shortlist)
    query = np.empty((1, codes.shape[1]), np.float16)
    candidates = np.empty((shortlist, codes.shape[1]), np.float16)
    scores = np.empty((1, shortlist), np.float64)
    row_of_scores, last = scores[0], -K - 1

    def rescore(unit: Vectors, rows: Ids) -> Ids:
        query[...] = unit
        codes.take(rows, 0, candidates, "clip")
        cdist(query, candidates, "dot", out=scores)
        best: Ids = rows.take(row_of_scores.argsort()[:last:-1])
        return best

    return rescore


def _rescoring_by_numpy(codes: Halves, shortlist: int) -> Rescore:
    halves = np.empty((shortlist, codes.shape[1]), np.float16)
    candidates, scores = halves.astype(np.float32), np.empty(shortlist, np.float32)
    last = -K - 1

    def rescore(unit: Vectors, rows: Ids) -> Ids:
        codes.take(rows, 0, halves, "clip")
        candidates[...] = halves
        np.dot(candidates, unit[0], out=scores)
        best: Ids = rows.take(scores.argsort()[:last:-1])
        return best

    return rescore


def rescoring_of_batches(codes: Halves, shortlist: int, *, threads: int) -> Rescore:
    """Return a function of several threads: unit queries (q, d) and shortlists (q, s) to the 10 best rows, (q, 10)."""
    each = [rescoring(codes, shortlist) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def part(number: int, units: Vectors, rows: Ids, best: Ids) -> None:
        rescore = each[number]
        for i in range(len(units)):
            best[i] = rescore(units[i : i + 1], rows[i])

    def rescore(units: Vectors, rows: Ids) -> Ids:
        best = np.empty((len(units), K), np.int64)
        if pool is None or len(units) < threads:
            part(0, units, rows, best)
            return best
        bounds = np.linspace(0, len(units), threads + 1).astype(int)
        pairs = list(itertools.pairwise(bounds))
        jobs = [pool.submit(part, n, units[a:b], rows[a:b], best[a:b]) for n, (a, b) in enumerate(pairs)]
        for job in jobs:
            job.result()
        return best

    return rescore
