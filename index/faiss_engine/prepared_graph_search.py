"""A prepared search of a graph: a walk, and a shortlist rescored from half-precision codes, in the fewest steps.

Each step in Python costs several times what it does by itself: after a walk, the processor's caches hold little of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]
Walk = Callable[[Scores], tuple[NDArray[np.uint64], Scores]]
Search = Callable[[NDArray[np.floating]], tuple[Scores, Rows] | None]

# Results beyond k that are put in order: they show whether the k-th has a tie.
_SPARE = 1
# Outside of these, float32 holds the squares of a query's coordinates only roughly, or not at all.
_SMALL, _LARGE = 1e-20, 1e30


class PreparedGraphSearch(threading.local):
    """Searches by one plan, one query at a time. Several threads may search at once: each has arrays of its own.

    Attributes:
        search: returns scores (cosines) and rows of the k nearest codes of a query (1, code_length), each (1, k), best
            first. It returns None where only PrefixIndex.run answers correctly: for a norm that is too small, too large
            or not finite, and where two of the results, or the last of them and the next, have the same score.
    """

    def __init__(
        self,
        walk: Walk,
        prefix_length: int,
        codes: Codes,
        *,
        shortlist: int,
        k: int,
        unnormalised: frozenset[int] | None,
    ) -> None:
        """Prepare a search for k results, anew in each thread.

        Args:
            walk: finds a shortlist of so many rows by a prefix (1, prefix_length).
            unnormalised: the only rows whose norm is not 1; None where it may be any.
        """
        faiss.omp_set_num_threads(1)
        length, ranked = codes.code_length, min(k + _SPARE, shortlist)
        unit = np.empty((1, length), np.float32)
        prefix = unit[:, :prefix_length]
        candidates = np.empty((shortlist, length), np.float16)
        best, best_rows = np.empty(ranked, np.float32), np.empty(ranked, np.int64)
        # FAISS scores half-precision codes four times as fast as numpy, which has no instructions to convert them.
        quantizer = faiss.IndexFlatIP(length)
        kind, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        lists = faiss.IndexIVFScalarQuantizer(quantizer, length, 1, kind, metric, False)
        scanner = lists.get_InvertedListScanner(False, None, None)
        scanner.set_list(0, 0.0)
        self._held = quantizer, lists  # the scanner looks into these
        # What each search needs is looked up once.
        pointer, multiply, norm_of = faiss.swig_ptr, np.multiply, faiss.fvec_norm_L2sqr
        unit_pointer, candidates_pointer = pointer(unit), pointer(candidates.view(np.uint8))
        heap = pointer(best), pointer(best_rows), ranked
        take, set_query, scan, worst = codes.codes.take, scanner.set_query, scanner.scan_codes, -np.inf

        def search(query: NDArray[np.floating]) -> tuple[Scores, Rows] | None:
            # 1. The unit query.
            unit[:] = query
            squared_norm = norm_of(unit_pointer, length)
            if not _SMALL < squared_norm < _LARGE:
                return None
            multiply(unit, squared_norm**-0.5, unit)
            # 2. A shortlist by its prefix.
            rows = walk(prefix)[0].view(np.int64)[0]
            # 3. The best of it by full codes, in no order, then in theirs.
            take(rows, 0, candidates, "clip")
            set_query(unit_pointer)
            best.fill(worst)
            scan(shortlist, candidates_pointer, pointer(rows), *heap)
            order = best.argsort()[::-1]
            result_scores, result_rows = best.take(order), best_rows.take(order)
            # 4. Inner products are cosines but for the rows whose norm is not 1.
            if unnormalised is None or (unnormalised and not unnormalised.isdisjoint(result_rows.tolist())):
                result_scores /= codes.norms.take(result_rows)
                order = (-result_scores).argsort(kind="stable")
                result_scores, result_rows = result_scores.take(order), result_rows.take(order)
            if len(set(result_scores.tolist())) < ranked or result_rows.item(-1) < 0:
                return None
            return result_scores[None, :k], result_rows[None, :k]

        self.search: Search = search
