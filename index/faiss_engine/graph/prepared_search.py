"""A prepared search of a graph: a walk, and a shortlist rescored from half-precision codes, in one call.

Each step in Python costs several times what it does by itself: after a walk, the processor's caches hold little of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.faiss_engine.graph.vamana import Search, in_threads

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]

# Results beyond k that are put in order: they show whether the k-th has a tie.
_SPARE = 1


class PreparedGraphSearch:
    """Searches by one plan. Several threads may search at once."""

    def __init__(
        self,
        search: Search,
        codes: Codes,
        *,
        shortlist: int,
        k: int,
        unnormalised: frozenset[int] | None,
    ) -> None:
        """Prepare a search for k results.

        Args:
            search: walks and rescores a shortlist of so many rows.
            unnormalised: the only rows whose norm is not 1; None where it may be any.
        """
        self._search, self._codes, self._k, self._unnormalised = search, codes, k, unnormalised
        self._ranked = min(k + _SPARE, shortlist)

    def search(self, query: NDArray[np.floating]) -> tuple[Scores, Rows] | None:
        """Return scores (cosines) and rows of the k nearest codes of a query (1, code_length), each (1, k), best first.

        Returns: None where only PrefixIndex.run answers correctly: for a norm that is too small, too large or not
            finite, and where two of the results, or the last of them and the next, have the same score.
        """
        ranked = self._ranked
        scores, rows = np.empty((1, ranked), np.float32), np.empty((1, ranked), np.int64)
        is_decided = self._search(query if query.dtype == np.float32 else query.astype(np.float32), scores, rows)
        # Inner products are cosines but for the rows whose norm is not 1.
        unnormalised = self._unnormalised
        if unnormalised is None or (unnormalised and not unnormalised.isdisjoint(rows[0].tolist())):
            scores, rows = self._as_cosines(scores, rows)
            is_decided = is_decided and bool((scores[:, 1:] != scores[:, :-1]).all())
        if not is_decided:
            return None
        return scores[:, : self._k], rows[:, : self._k]

    def search_many(self, queries: Scores, *, threads: int) -> tuple[Scores, Rows, NDArray[np.bool_]]:
        """Return for queries (q, code_length) what `search` does, each (q, k), and for which it is the answer, (q,)."""
        scores, rows = in_threads(self._search, queries, self._ranked, threads=threads)
        if self._unnormalised is None or self._unnormalised:
            scores, rows = self._as_cosines(scores, rows)
        decided = (scores[:, 1:] != scores[:, :-1]).all(axis=1) & (rows >= 0).all(axis=1)
        return scores[:, : self._k], rows[:, : self._k], decided

    def _as_cosines(self, scores: Scores, rows: Rows) -> tuple[Scores, Rows]:
        scores = scores / self._codes.norms[rows]
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
