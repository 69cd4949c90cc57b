"""A prepared search: one query by one plan, without the steps around FAISS that would add a tenth to its time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

# Below these a first coordinate, or a best score, does not show how exactly the query's norm is known.
_MIN_FIRST_COORDINATE, _MIN_BEST_SCORE = 1e-12, 1e-6

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


class Buffers(Protocol):
    """The arrays that one thread's searches read a query from and write results to, and the search between them.

    Attributes:
        query: (1, code_length), float32, of any norm.
        scores, rows: (m,), best first: inner products of the unit query with the codes, and their rows; -1 if fewer. A
            row may be there twice, the second time right after the first.
        search: reads `query`, writes `scores` and `rows`.
    """

    @property
    def query(self) -> Scores: ...

    @property
    def scores(self) -> Scores: ...

    @property
    def rows(self) -> Rows: ...

    @property
    def search(self) -> Callable[[], object]: ...


MakeBuffers = Callable[[], Buffers]


class PreparedSearch:
    """Searches by one plan, one query at a time. Several threads may search at once: each has buffers of its own.

    Attributes:
        k: results of a search.
    """

    def __init__(
        self,
        make_buffers: MakeBuffers,
        *,
        k: int,
        norms: Scores,
        unnormalised_rows: frozenset[int] | None,
        finds_rows_twice: bool = True,
    ) -> None:
        """Prepare.

        Args:
            make_buffers: called in each thread that searches; they hold enough results for k different rows.
            norms: of the codes, (n,), to divide scores by.
            unnormalised_rows: the only rows whose norm is not 1; None where it may be any.
            finds_rows_twice: whether a row may be in the results twice.
        """
        self.k = k
        self._thread = _Thread(make_buffers)
        self._norms, self._unnormalised_rows = norms, unnormalised_rows
        self._finds_rows_twice = finds_rows_twice

    def search(self, query: NDArray[np.floating]) -> tuple[Scores, Rows] | None:
        """Return scores (cosines) and rows of the k nearest codes, each (1, k), best first.

        Args:
            query: a code, (1, code_length), of any norm.

        Returns: None where only PrefixIndex.run answers correctly: for a norm that is too small, too large or not
            finite, without a similar code or with too few rows, and where two of the results, or the last of them and
            the next, have the same score.
        """
        query_buffer, scores, rows, earlier, later, differs, is_first, search = self._thread.parts
        if not abs(query.item(0)) > _MIN_FIRST_COORDINATE:
            return None
        query_buffer[:] = query
        search()
        if rows.item(-1) < 0 or not scores.item(0) > _MIN_BEST_SCORE:
            return None
        if self._finds_rows_twice:  # the second result of a row comes right after its first
            np.not_equal(later, earlier, differs)
            indices = is_first.nonzero()[0]
            result_rows, result_scores = rows.take(indices), scores.take(indices)
        else:
            result_rows, result_scores = rows.copy(), scores.copy()
        # Inner products are cosines but for the rows whose norm is not 1.
        if self._unnormalised_rows is None or (
            self._unnormalised_rows and not self._unnormalised_rows.isdisjoint(result_rows.tolist())
        ):
            result_scores /= self._norms.take(result_rows)
            order = (-result_scores).argsort(kind="stable")
            result_rows, result_scores = result_rows.take(order), result_scores.take(order)
        k = self.k
        best = result_scores[: k + 1]
        if len(best) < k or len(set(best.tolist())) < len(best):
            return None
        return result_scores[None, :k], result_rows[None, :k]


class _Thread(threading.local):
    """A thread's buffers and views of them: made once for each thread."""

    def __init__(self, make_buffers: MakeBuffers) -> None:
        buffers = make_buffers()
        rows = buffers.rows
        is_first = np.ones(len(rows), bool)  # whether a row differs from the one before
        self.parts = (
            *(buffers.query, buffers.scores, rows, rows[:-1], rows[1:], is_first[1:], is_first),
            buffers.search,
        )


class FunnelBuffers:
    """Buffers of a search that FAISS makes in one call: a first pass, and the rescoring of its shortlist."""

    def __init__(self, funnel: faiss.Index, parameters: faiss.SearchParameters, refined: int) -> None:
        """Search `funnel`, which finds a shortlist and rescores it, for `refined` results."""
        faiss.omp_set_num_threads(1)
        self.query = np.empty((1, funnel.d), np.float32)
        self.scores, self.rows = np.empty(refined, np.float32), np.empty(refined, np.int64)
        x, scores, rows = map(faiss.swig_ptr, (self.query, self.scores, self.rows))
        # FAISS's call in C++, without its wrapper in Python.
        self.search = partial(funnel.search_c, 1, x, refined, scores, rows, parameters)
