"""The graph over one prefix, over its codes: what it finds is rescored by full codes."""

from __future__ import annotations

import numpy as np

from eigenlens.index.codes.exact import best_of_runs, rerank
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.graph.prepared_search import PreparedGraphSearch
from eigenlens.index.faiss_engine.graph.vamana import MAX_WINDOW, VamanaGraph, in_threads
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex, Rows, Scores
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import Plan
from eigenlens.index.threads import allowed_threads, use_all_threads


class GraphIndex(PrefixIndex):
    """A PrefixIndex whose first pass walks a graph. It has no selections: where there is one, another index answers."""

    index: VamanaGraph

    def _open(self) -> None:
        self._finds_rows_twice = False

    def search(
        self, queries: Scores, k: int, *, effort: int | None = None, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """Return what PrefixIndex.search does, without a selection. An effort of thousands or more scans the codes."""
        assert selection is None
        window = max(k, self.count if effort is None else effort)
        if window >= min(self.count, MAX_WINDOW):
            return best_of_runs(self.codes.runs(0, self.count), queries, length=self.spec.length, k=k)
        search = self.index.searching(self.codes.codes, window=window, shortlist=0)
        # The walk refuses some norms.
        unit = unit_prefix(queries, self.codes.code_length)
        return in_threads(search, unit, k, threads=_threads_for(queries))

    def run(self, queries: Scores, *, plan: Plan, k: int, selection: Selection | None = None) -> tuple[Scores, Rows]:
        """Return what PrefixIndex.run does."""
        assert selection is None
        self.prepare(plan, k)
        # One query takes the fewest steps, in a calibration's trials as in a service.
        found = self.run_prepared(queries, plan, k)
        if found is not None:
            return found
        prepared = self._prepared.get((plan, k))
        if isinstance(prepared, PreparedGraphSearch):
            scores, rows, decided = prepared.search_many(_as_floats(queries), threads=_threads_for(queries))
            if decided.all():
                return scores, rows
        else:
            scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
            decided = np.zeros(len(queries), bool)
        shortlist = min(max(plan.shortlist or k, k), self.count)
        for number in np.flatnonzero(~decided):
            query = queries[number : number + 1]
            _, candidates = self.search(query, shortlist, effort=plan.effort)
            scores[number], rows[number] = rerank(
                query, candidates, self.codes.codes, length=self.codes.code_length, k=k
            )
        return scores, rows

    def _prepare(self, plan: Plan, k: int) -> PreparedGraphSearch | None:
        effort, shortlist = self._clamp(plan.effort), min(max(plan.shortlist or k, k), self.count)
        window = max(shortlist, self.count if effort is None else effort)
        if window >= min(self.count, MAX_WINDOW):
            return None
        search = self.index.searching(self.codes.codes, window=window, shortlist=shortlist)
        return PreparedGraphSearch(search, self.codes, shortlist=shortlist, k=k, unnormalised=self._unnormalised_rows)


def _as_floats(queries: Scores) -> Scores:
    return np.ascontiguousarray(queries, dtype=np.float32)


def _threads_for(queries: Scores) -> int:
    return allowed_threads() if use_all_threads(queries) else 1
