"""One FAISS index of one prefix length: unit prefixes, inner product, so that scores are cosines."""

from __future__ import annotations

from functools import partial

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.exact import rerank
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.compact_codes import CompactCodes
from eigenlens.index.faiss_engine.graph.prepared_search import PreparedGraphSearch
from eigenlens.index.faiss_engine.kinds import graph_of_lists, require_kind
from eigenlens.index.faiss_engine.prepared_search import FunnelBuffers, PreparedSearch
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.threads import all_cores, use_all_threads

# Largest difference between cosines of the same codes that are computed in a different order.
ROUNDING = 1e-5
# Results beyond k that FAISS rescores, since its inner products of nearly unit codes are only nearly cosines.
_SPARE = 4
# If a larger share of the codes than this has a norm other than 1, all scores are divided by the norms.
_MAX_UNNORMALISED_SHARE = 0.01
# Plans with a prepared search.
_PREPARED_CACHE_SIZE = 256

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


def file_name(spec: IndexSpec) -> str:
    """Return the name of an index's file in a generation, or of its directory."""
    return f"prefix-{spec.length:04d}-{spec.kind}.{require_kind(spec.kind).suffix}"


class PrefixIndex:
    """The index of one prefix length, over its codes. Several threads may search at once.

    index = open_prefix_index(generation, IndexSpec(64, "ivf-sq8"), codes)
    scores, rows = index.run(queries, plan=Plan(64, "ivf-sq8", effort=8), k=10)

    Attributes:
        spec: length and kind of the index.
        kind: object with the methods that depend on the kind.
        codes: codes of all rows, which rescore a shortlist.
        compact: the same in fewer bits, for plans that first rescore by these; None without them.
        count: number of rows in the index.
        index: FAISS's index.
        max_effort: the effort at which a search compares every code; None if the kind has no effort.
    """

    def __init__(
        self, index: faiss.Index, spec: IndexSpec, codes: Codes, *, compact: CompactCodes | None = None
    ) -> None:
        """Search `index`, which holds the first `index.ntotal` rows of the codes."""
        self.spec, self.kind, self.codes, self.compact = spec, require_kind(spec.kind), codes, compact
        self.count = int(index.ntotal)
        self.max_effort = self.kind.max_effort(index)
        self.index = index
        unnormalised = codes.unnormalised_rows
        few = len(unnormalised) <= _MAX_UNNORMALISED_SHARE * len(codes)
        self._unnormalised_rows = frozenset(unnormalised.tolist()) if few else None
        self._prepared: dict[tuple[Plan, int], PreparedSearch | PreparedGraphSearch] = {}
        self._shape_of_one = (1, codes.code_length)
        self._open()

    def _open(self) -> None:
        """Set up what a search needs of FAISS."""
        index, spec, codes = self.index, self.spec, self.codes
        self._graph = graph_of_lists(index)
        exhaustive = self.kind.exhaustive_index(index)
        self._exhaustive: PrefixIndex | None = None
        if exhaustive is not None:
            self._exhaustive = PrefixIndex(exhaustive[0], IndexSpec(spec.length, exhaustive[1]), codes)
        self._finds_rows_twice = self.kind.finds_rows_twice(index)
        self.kind.prepare_for_search(index)
        # Full codes in, prefixes sliced and normalised inside, a shortlist rescored from the mapped codes: one call.
        first = faiss.IndexPreTransform(index)
        first.prepend_transform(faiss.NormalizationTransform(spec.length, 2.0))
        if spec.length < codes.code_length:
            first.prepend_transform(faiss.RemapDimensionsTransform(codes.code_length, spec.length, False))
        scan = codes.scan(self.count)
        second = faiss.IndexRefine(first, scan)
        self._funnel = self._compact_funnel = _of_unit_codes(second, codes.code_length)
        self._held = [first, scan, second]
        if self.compact is not None:
            compact_scan = self.compact.scan(self.count)
            middle = faiss.IndexRefine(first, compact_scan)
            second = faiss.IndexRefine(middle, scan)
            self._compact_funnel = _of_unit_codes(second, codes.code_length)
            self._held += [compact_scan, middle, second]

    def run(self, queries: Scores, *, plan: Plan, k: int, selection: Selection | None = None) -> tuple[Scores, Rows]:
        """Return scores (cosines) and rows of the k nearest by a plan, each (q, at most k), best first.

        Args:
            queries: codes, (q, code_length).
            plan: a plan of this index's length and kind.
            selection: rows that may be returned; all if None.

        Returns: row -1 at the end of a query's results, if the search finds fewer than k.
        """
        if plan.shortlist is None or plan.rerank_length is None:
            return self.search(queries, k, effort=plan.effort, selection=selection)
        if selection is None and len(queries) == 1:
            self.prepare(plan, k)
            results = self.run_prepared(queries, plan, k)
            if results is not None:
                return results
        if plan.rerank_length == self.codes.code_length:
            return self._search_and_rescore(queries, k, plan=plan, selection=selection)
        shortlist = self._shortlist(plan.shortlist, k)
        _, rows = self.search(queries, shortlist, effort=plan.effort, selection=selection)
        return rerank(queries, rows, self.codes.codes, length=plan.rerank_length, k=k)

    def run_prepared(self, query: Scores, plan: Plan, k: int) -> tuple[Scores, Rows] | None:
        """Return the results of one query (1, code_length) by a plan that `run` prepared before, with the fewest steps.

        Returns: as `run`; None if the plan is not prepared, or the query is one that only `run` answers correctly.
        """
        prepared = self._prepared.get((plan, k))
        return None if prepared is None or query.shape != self._shape_of_one else prepared.search(query)

    def prepare(self, plan: Plan, k: int) -> None:
        """Prepare a plan for `run_prepared`; not a plan that visits everything or that reranks by a shorter prefix."""
        if plan.rerank_length != self.codes.code_length or plan.shortlist is None:
            return
        if k < 1 or (plan, k) in self._prepared:
            return
        prepared = self._prepare(plan, k)
        if prepared is None:
            return
        if len(self._prepared) >= _PREPARED_CACHE_SIZE:
            self._prepared.clear()
        self._prepared[plan, k] = prepared

    def _prepare(self, plan: Plan, k: int) -> PreparedSearch | PreparedGraphSearch | None:
        """Return a prepared search; None for an effort that visits everything."""
        effort = self._clamp(plan.effort)
        if self._is_whole(effort) or (self._exhaustive is not None and effort == self.count):
            return None
        return PreparedSearch(
            partial(FunnelBuffers, *self._refining(plan, k, None)),
            k=k,
            norms=self.codes.norms,
            unnormalised_rows=self._unnormalised_rows,
            finds_rows_twice=self._finds_rows_twice,
        )

    def search(
        self, queries: Scores, k: int, *, effort: int | None = None, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """Return the index's own scores and the rows of the k nearest, each (q, k), best first; row -1 if fewer.

        Args:
            queries: codes, (q, code_length); this method slices and normalises them.
            effort: how much of the index to visit; the maximum if None.
        """
        scores, rows = self._search(queries, k, effort=effort, selection=selection)
        return without_repeats(scores, rows) if self._finds_rows_twice else (scores, rows)

    def search_entries(self, queries: Scores, k: int, *, effort: int | None = None) -> Rows:
        """Return the rows of the k nearest entries of the index, (q, k), best first: a row may be in two lists."""
        search = self._search if self._finds_rows_twice else self.search
        return search(queries, k, effort=effort)[1]

    def _search(
        self, queries: Scores, k: int, *, effort: int | None, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """Return what `search` does, with a row that is in two lists twice."""
        effort = self._clamp(effort)
        if self._exhaustive is not None and effort == self.count:
            return self._exhaustive._search(queries, k, effort=None, selection=selection)
        prefixes = unit_prefix(queries, self.spec.length)
        parameters = self._parameters(effort, selection)
        with all_cores(use_all_threads(queries)):
            if self._is_whole(effort):
                return self._search_all_lists(prefixes, k, parameters)
            found: tuple[Scores, Rows] = self.index.search(prefixes, k, params=parameters)
            return found

    def _results_for(self, k: int) -> int:
        """Return how many of FAISS's results contain k different rows, as a row can be in two lists."""
        return 2 * k if self._finds_rows_twice else k

    def _shortlist(self, shortlist: int, k: int) -> int:
        """Return how many of FAISS's results to rescore: as many whatever k is, as long as they can hold k rows."""
        return min(shortlist if shortlist >= k else self._results_for(k), self._results_for(self.count))

    def search_above(
        self, queries: Scores, k: int, *, least: Scores, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """Return what `search` does, for an index that prunes, if k rows are known to score `least` (q,) or more."""
        if use_all_threads(queries):
            return self.search(queries, k, selection=selection)
        scores, rows = np.empty((len(queries), k), dtype=np.float32), np.empty((len(queries), k), dtype=np.int64)
        parameters = self._parameters(None, selection)
        prefixes = unit_prefix(queries, self.spec.length)
        with all_cores(False):
            for number, bound in enumerate(least.tolist()):
                _, range_scores, range_rows = self.index.range_search(
                    prefixes[number : number + 1], bound - ROUNDING, params=parameters
                )
                best = np.argsort(-range_scores, kind="stable")[:k]
                scores[number], rows[number] = range_scores[best], range_rows[best]
        return scores, rows

    def _is_whole(self, effort: int | None) -> bool:
        """Return whether the effort visits all lists of an index with a graph over its centroids."""
        return self._graph is not None and effort == self.max_effort

    def _search_all_lists(
        self, prefixes: Scores, k: int, parameters: faiss.SearchParameters | None
    ) -> tuple[Scores, Rows]:
        """Search all lists by number, since a graph over the centroids may hold some that no path leads to."""
        centroids = self._graph.reconstruct_n(0, self._graph.ntotal)
        count = len(prefixes)
        lists, similarities = np.tile(np.arange(len(centroids)), (count, 1)), prefixes @ centroids.T
        scores, rows = np.empty((count, k), dtype=np.float32), np.empty((count, k), dtype=np.int64)
        x, list_numbers, list_scores, scores_pointer, rows_pointer = map(
            faiss.swig_ptr, (prefixes, lists, similarities, scores, rows)
        )
        # FAISS's wrapper in Python takes no parameters.
        self.index.search_preassigned_c(
            count, x, k, list_numbers, list_scores, scores_pointer, rows_pointer, False, parameters
        )
        return scores, rows

    def _search_and_rescore(
        self,
        queries: Scores,
        k: int,
        *,
        plan: Plan,
        selection: Selection | None = None,
    ) -> tuple[Scores, Rows]:
        """Return the k nearest of a shortlist by the cosine of full codes, each (q, k); row -1, score -inf if fewer.

        Args:
            queries: codes, (q, code_length).
        """
        effort = self._clamp(plan.effort)
        if self._exhaustive is not None and effort == self.count:
            return self._exhaustive._search_and_rescore(queries, k, plan=plan, selection=selection)
        if self._is_whole(effort):
            shortlist = self._shortlist(plan.shortlist or k, k)
            _, rows = self.search(queries, shortlist, effort=effort, selection=selection)
            return rerank(queries, rows, self.codes.codes, length=self.codes.code_length, k=k)
        funnel, parameters, refined = self._refining(plan, k, selection)
        count = len(queries)
        unit = unit_prefix(queries, self.codes.code_length)
        scores, rows = np.empty((count, refined), np.float32), np.empty((count, refined), np.int64)
        with all_cores(use_all_threads(queries)):
            x, scores_pointer, rows_pointer = map(faiss.swig_ptr, (unit, scores, rows))
            funnel.search_c(count, x, refined, scores_pointer, rows_pointer, parameters)
        if self._finds_rows_twice:
            scores, rows = without_repeats(scores, rows)
        scores[rows < 0] = -np.inf
        scores /= self.codes.norms[rows]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _refining(
        self, plan: Plan, k: int, selection: Selection | None
    ) -> tuple[faiss.Index, faiss.SearchParameters, int]:
        """Return the index to search for k results, FAISS's parameters for that, and how many results to ask for."""
        # FAISS rescores by inner products with codes whose norm is 1 only up to rounding. It returns a few results more
        # than k, and the caller orders them by their cosines.
        shortlist = self._shortlist(plan.shortlist or k, k)
        refined = min(self._results_for(k) + _SPARE, shortlist)
        parameters = self._parameters(self._clamp(plan.effort), selection)
        funnel = self._funnel
        if self.compact is not None and plan.final_shortlist:
            final = min(max(plan.final_shortlist, refined), shortlist)
            parameters = _taking(shortlist, final, parameters)
            funnel, shortlist = self._compact_funnel, final
        parameters = faiss.SearchParametersPreTransform(index_params=_taking(shortlist, refined, parameters))
        return funnel, parameters, refined

    def _parameters(self, effort: int | None, selection: Selection | None) -> faiss.SearchParameters | None:
        selector = None if selection is None else faiss.IDSelectorBitmap(selection.bits)
        return self.kind.search_parameters(effort=effort, selector=selector)

    def _clamp(self, effort: int | None) -> int | None:
        """Return an effort that the index has, the maximum when None; None, if its kind has no effort."""
        if self.max_effort is None:
            return None
        return self.max_effort if effort is None else max(1, min(effort, self.max_effort))


def _of_unit_codes(index: faiss.Index, code_length: int) -> faiss.IndexPreTransform:
    """Return an index that normalises queries before it searches another."""
    normalising = faiss.IndexPreTransform(index)
    normalising.prepend_transform(faiss.NormalizationTransform(code_length, 2.0))
    return normalising


def _taking(candidates: int, results: int, parameters: faiss.SearchParameters | None) -> faiss.SearchParameters:
    """Return parameters of an IndexRefine: rescore `candidates` of the index below, searched with `parameters`."""
    # FAISS takes int(results * factor): a little more keeps rounding from taking one off.
    return faiss.IndexRefineSearchParameters(k_factor=candidates / results + 1e-6, base_index_params=parameters)


def without_repeats(scores: Scores, rows: Rows) -> tuple[Scores, Rows]:
    """Return results (q, k) with each row once: row -1 and score -inf replace the second result of a row."""
    order = rows.argsort(axis=1, kind="stable")
    sorted_rows = np.take_along_axis(rows, order, 1)
    repeated = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], sorted_rows[:, 1:] == sorted_rows[:, :-1], 1)
    return np.where(repeated, -np.inf, scores).astype(np.float32), np.where(repeated, -1, rows)
