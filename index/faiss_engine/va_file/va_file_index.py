"""A VA-file over its codes: exact search, of a gallery or of some of its rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import faiss
import numpy as np

from eigenlens.index.codes.exact import best_of_runs, rerank
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.graph.vamana import has_numba
from eigenlens.index.faiss_engine.prefix_index import ROUNDING, PrefixIndex, Rows, Scores
from eigenlens.index.faiss_engine.va_file.kind import LEVELS, bound_of, first_part, ranges_of
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import Plan
from eigenlens.index.threads import all_cores, allowed_threads, use_all_threads

# Of the rows with the largest bounds, so many at least and for each result give a first lower bound of the k-th best.
_PROBED, _PROBED_OF_RESULT = 64, 4
_ALL = np.zeros(0, np.uint8)


class VaFileIndex(PrefixIndex):
    """A PrefixIndex whose search is exact: bounds exclude most rows, and full codes score the others."""

    def _open(self) -> None:
        self._finds_rows_twice = False
        least, self._ranges = ranges_of(self.index)
        self._middles = least + self._ranges / (2 * LEVELS)  # of the values that are stored as 0
        self._is_compiled = has_numba()
        self._half_precision = np.asarray(self.codes.codes).view(np.uint16).reshape(-1)
        self._half_precision.flags.writeable = False

    def search(
        self, queries: Scores, k: int, *, effort: int | None = None, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """Return what PrefixIndex.search does: cosines by full codes."""
        return self._scan(queries, k, np.full(len(queries), -np.inf, np.float32), selection)

    def search_above(
        self, queries: Scores, k: int, *, least: Scores, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """Return what PrefixIndex.search_above does."""
        return self._scan(queries, k, least, selection)

    def _scan(self, queries: Scores, k: int, least: Scores, selection: Selection | None) -> tuple[Scores, Rows]:
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        unit = unit_prefix(queries, self.codes.code_length)
        scan = partial(self._scan_compiled if self._is_compiled else self._scan_by_faiss, selection=selection)
        calls = [(unit[i : i + 1], float(least[i]), scores[i], rows[i]) for i in range(len(queries))]
        if use_all_threads(queries):
            with ThreadPoolExecutor(allowed_threads()) as pool:
                list(pool.map(lambda call: scan(*call), calls))
        else:
            for call in calls:
                scan(*call)
        return scores, rows

    def _scan_compiled(
        self, unit: Scores, least: float, scores: Scores, rows: Rows, *, selection: Selection | None
    ) -> None:
        """Write the best of one query (1, code_length) into scores and rows, each (k,)."""
        from eigenlens.index.faiss_engine.va_file.bounded_scan import QueryBound, StoredCodes, scan_with_bound

        bound = bound_of(unit, self._ranges)
        part, middles, halves = first_part(len(self._ranges)), self._middles, self._ranges / (2 * LEVELS)
        vector = bound.vector[0].copy()
        constant = float(vector @ middles) + bound.slack
        if part < len(vector):
            vector[part - 1] = bound.norm_after_first_part
        first = vector[:part]
        query = QueryBound(
            unit[0],
            vector * (self._ranges / LEVELS),
            part,
            np.float32(first @ middles[:part] + np.abs(first) @ halves[:part]),
            np.float32(constant),
            np.float32(least),
            np.float32(ROUNDING),
        )
        numbers = faiss.rev_swig_ptr(self.index.invlists.get_codes(0), self.count * int(self.index.code_size))
        stored = StoredCodes(numbers, self._half_precision, self.codes.norms)
        scan_with_bound(query, stored, _ALL if selection is None else selection.bits, scores, rows)

    def _scan_by_faiss(
        self, unit: Scores, least: float, scores: Scores, rows: Rows, *, selection: Selection | None
    ) -> None:
        """As _scan_compiled."""
        k, length, parameters = len(scores), self.codes.code_length, self._parameters(None, selection)
        bound = bound_of(unit, self._ranges)
        with all_cores(False):
            if least == -np.inf:
                probed = min(self.count, max(_PROBED, _PROBED_OF_RESULT * k))
                _, candidates = self.index.search(bound.vector, probed, params=parameters)
                best, _ = rerank(unit, candidates, self.codes.codes, length=length, k=k)
                least = float(best[0, k - 1]) if best.shape[1] == k else least
            threshold = max(least - bound.slack - ROUNDING, float(np.finfo(np.float32).min))
            _, _, found = self.index.range_search(bound.vector, threshold, params=parameters)
        found = np.sort(found)
        step = self.codes.tuning.rows_per_run
        runs = ((some, self.codes.take(some)) for some in np.split(found, range(step, len(found), step)))
        best, best_rows = best_of_runs(runs, unit, length=length, k=k)
        scores[: best.shape[1]], rows[: best.shape[1]] = best[0], best_rows[0]

    def _search_and_rescore(
        self, queries: Scores, k: int, *, plan: Plan, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        return self.search(queries, k, selection=selection)

    def _prepare(self, plan: Plan, k: int) -> None:
        return None
