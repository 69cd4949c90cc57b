"""The graph over one prefix, over its codes: what it finds is rescored by full codes."""

from __future__ import annotations

import numpy as np

from eigenlens.index.codes.exact import best_of_runs, rerank
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex, Rows, Scores
from eigenlens.index.faiss_engine.prepared_graph_search import PreparedGraphSearch
from eigenlens.index.faiss_engine.vamana import MAX_WINDOW, VamanaGraph
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
        threads = allowed_threads() if use_all_threads(queries) else 1
        return self.index.search(unit_prefix(queries, self.spec.length), k, window=window, threads=threads)

    def run(self, queries: Scores, *, plan: Plan, k: int, selection: Selection | None = None) -> tuple[Scores, Rows]:
        """Return what PrefixIndex.run does, one query after the other, so that each takes the fewest steps."""
        assert selection is None
        self.prepare(plan, k)
        shortlist = min(max(plan.shortlist or k, k), self.count)
        results = []
        for query in queries[:, None]:
            found = self.run_prepared(query, plan, k)
            if found is None:
                _, candidates = self.search(query, shortlist, effort=plan.effort)
                found = rerank(query, candidates, self.codes.codes, length=self.codes.code_length, k=k)
            results.append(found)
        scores, rows = zip(*results, strict=True)
        return np.concatenate(scores), np.concatenate(rows)

    def _prepare(self, plan: Plan, k: int) -> PreparedGraphSearch | None:
        effort, shortlist = self._clamp(plan.effort), min(max(plan.shortlist or k, k), self.count)
        window = max(shortlist, self.count if effort is None else effort)
        if window >= min(self.count, MAX_WINDOW):
            return None
        walk = self.index.walk(shortlist, window=window)
        return PreparedGraphSearch(
            walk, self.index.d, self.codes, shortlist=shortlist, k=k, unnormalised=self._unnormalised_rows
        )
