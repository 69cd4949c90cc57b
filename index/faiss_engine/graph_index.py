"""The graph over one prefix, over its codes: what it finds is rescored by full codes."""

from __future__ import annotations

import math
from functools import partial

import faiss
import numpy as np

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.exact import best_of_runs, rerank
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex, Rows, Scores
from eigenlens.index.faiss_engine.prepared_search import MakeBuffers
from eigenlens.index.faiss_engine.vamana import MAX_WINDOW, VamanaGraph
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import Plan
from eigenlens.index.threads import allowed_threads, use_all_threads

# Results beyond k that are put in order, so that the caller sees whether the k-th has a tie.
_SPARE = 1
# Outside of these, float32 holds the squares of a query's coordinates only roughly, or not at all.
_SMALL, _LARGE = 1e-20, 1e30


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

    def _buffers_for(self, plan: Plan, k: int) -> MakeBuffers | None:
        effort, shortlist = self._clamp(plan.effort), min(max(plan.shortlist or k, k), self.count)
        window = max(shortlist, self.count if effort is None else effort)
        if window >= min(self.count, MAX_WINDOW):
            return None
        return partial(_GraphBuffers, self.index, self.codes, shortlist, window, min(k + _SPARE, shortlist))


class _GraphBuffers:
    """Buffers of a search that walks the graph and rescores what it finds, with the fewest steps in Python."""

    def __init__(self, graph: VamanaGraph, codes: Codes, shortlist: int, window: int, ranked: int) -> None:
        """Rescore `shortlist` rows that a search with `window` candidates finds, and put `ranked` of them in order."""
        faiss.omp_set_num_threads(1)
        length = codes.code_length
        self.query = np.empty((1, length), np.float32)
        self.scores, self.rows = np.empty(ranked, np.float32), np.empty(ranked, np.int64)
        self._prefix = self.query[:, : graph.d]
        self._walk = partial(graph.search, self._prefix, shortlist, window=window)
        self._take = codes.codes.take
        self._shortlist = np.empty((shortlist, length), np.float16)
        self._best, self._best_rows = np.empty(ranked, np.float32), np.empty(ranked, np.int64)
        # FAISS scores half-precision codes four times as fast as numpy, which has no instructions to convert them.
        self._quantizer = faiss.IndexFlatIP(length)
        self._lists = faiss.IndexIVFScalarQuantizer(
            self._quantizer, length, 1, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        self._scanner = self._lists.get_InvertedListScanner(False, None, None)
        self._scanner.set_list(0, 0.0)
        self._set_query = partial(self._scanner.set_query, faiss.swig_ptr(self.query))
        self._scan = partial(self._scanner.scan_codes, shortlist, faiss.swig_ptr(self._shortlist.view(np.uint8)))
        self._heap = faiss.swig_ptr(self._best), faiss.swig_ptr(self._best_rows), ranked

    def search(self) -> None:
        """Read the query; write scores and rows. A query whose squared norm is no ordinary number has no rows."""
        query = self.query[0]
        with np.errstate(over="ignore"):
            squared_norm = float(query.dot(query))
        if not _SMALL < squared_norm < _LARGE:
            self.rows.fill(-1)
            return
        rows = self._walk()[1][0]
        self._take(rows, axis=0, out=self._shortlist, mode="clip")
        self._set_query()
        best, best_rows = self._best, self._best_rows
        best.fill(-np.inf)
        self._scan(faiss.swig_ptr(rows), *self._heap)
        order = best.argsort()[::-1]
        np.multiply(best[order], 1 / math.sqrt(squared_norm), out=self.scores)
        best_rows.take(order, out=self.rows, mode="clip")
