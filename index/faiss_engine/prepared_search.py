"""One query by one plan, prepared: what its search does around FAISS would take as long as a tenth of it otherwise."""

from __future__ import annotations

import threading
from functools import partial

import faiss
import numpy as np
from numpy.typing import NDArray

# A first coordinate or a best score below these says nothing of how well the query's norm is known.
_LEAST_COORDINATE, _LEAST_SCORE = 1e-12, 1e-6

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


class OneQuery:
    """The k best of a plan's shortlist, for one query after the other; each thread has its own place for them."""

    def __init__(
        self,
        funnel: faiss.Index,
        parameters: faiss.SearchParameters,
        *,
        k: int,
        taken: int,
        norms: Scores,
        uneven: frozenset[int] | None,
    ) -> None:
        """Prepare.

        Args:
            funnel: finds and rescores; a row that it finds twice has the same score twice.
            taken: results asked of it, enough for k different rows.
            norms: of the codes, to divide scores by.
            uneven: the only rows whose norm is not 1; None where it may be any.
        """
        self.k = k
        self._place = _Place(funnel, parameters, taken)
        self._norms, self._uneven = norms, uneven

    def search(self, query: NDArray[np.floating]) -> tuple[Scores, Rows] | None:
        """Scores and rows, each (1, k), best first.

        Args:
            query: a code, (1, code_length), of any norm.

        Returns: None where it takes the long way: a norm too small or large or not finite, nothing alike, too few rows,
            or one that is twice among the best with another of the same score between.
        """
        there, scores, rows, earlier, later, differ, chosen, search = self._place.parts
        if not abs(query.item(0)) > _LEAST_COORDINATE:
            return None
        there[:] = query
        search()
        if rows.item(-1) < 0 or not scores.item(0) > _LEAST_SCORE:
            return None
        np.not_equal(later, earlier, differ)
        places = chosen.nonzero()[0]
        found, their_scores = rows.take(places), scores.take(places)
        listed = found.tolist()
        if self._uneven is None or (self._uneven and not self._uneven.isdisjoint(listed)):
            their_scores /= self._norms.take(found)
            order = (-their_scores).argsort(kind="stable")
            found, their_scores = found.take(order), their_scores.take(order)
            listed = found.tolist()
        k = self.k
        if len(set(listed[:k])) < k:
            return None
        return their_scores[None, :k], found[None, :k]


class _Place(threading.local):
    """Where FAISS reads one query and writes what it finds, and the call itself: making these takes a while."""

    def __init__(self, funnel: faiss.Index, parameters: faiss.SearchParameters, taken: int) -> None:
        faiss.omp_set_num_threads(1)
        query = np.empty((1, funnel.d), np.float32)
        scores, rows = np.empty(taken, np.float32), np.empty(taken, np.int64)
        chosen = np.ones(taken, bool)  # those that differ from the one before
        x, found_scores, found_rows = map(faiss.swig_ptr, (query, scores, rows))
        # FAISS's call in C++, without its wrapper in Python.
        search = partial(funnel.search_c, 1, x, taken, found_scores, found_rows, parameters)
        self.parts = query, scores, rows, rows[:-1], rows[1:], chosen[1:], chosen, search
