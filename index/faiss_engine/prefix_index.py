"""One FAISS index of one prefix length: unit prefixes, inner product, so that scores are cosines."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.artifact import Artifact
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.exact import rerank
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.errors import SearchError
from eigenlens.index.faiss_engine.kinds import graph_of_lists, require_kind
from eigenlens.index.faiss_engine.prepared_search import PreparedSearch
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import IndexSpec, Plan
from eigenlens.index.threads import all_cores, use_all_threads

# By which cosines of the same codes differ when they are computed in another order.
_ROUNDING = 1e-5
_SPARE = 4
# Where a larger share of the codes has a norm that is not 1, all scores are divided by the norms.
_MAX_UNNORMALISED_SHARE = 0.01
# Plans that are kept prepared for one query.
_PREPARED_CACHE_SIZE = 256

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


def file_name(spec: IndexSpec) -> str:
    """Name of an index's file within a generation."""
    return f"prefix-{spec.length:04d}-{spec.kind}.faiss"


class PrefixIndex:
    """The index of one prefix length over its codes. Searches may run in several threads at once.

    Attributes:
        spec: its length and kind.
        index: FAISS's.
        max_effort: at which it looks at everything; None where its kind has no effort.
    """

    def __init__(self, index: faiss.Index, spec: IndexSpec, codes: Codes) -> None:
        """Search `index`, which holds the first `index.ntotal` rows of the codes."""
        self.spec, self.kind, self.codes = spec, require_kind(spec.kind), codes
        self.count = int(index.ntotal)
        self.max_effort = self.kind.max_effort(index)
        self._graph = graph_of_lists(index)
        exhaustive = self.kind.exhaustive_index(index)
        self._exhaustive: PrefixIndex | None = None
        if exhaustive is not None:
            self._exhaustive = PrefixIndex(exhaustive[0], IndexSpec(spec.length, exhaustive[1]), codes)
        self._finds_rows_twice = self.kind.finds_rows_twice(index)
        self.kind.prepare_for_search(index)
        self.index = index
        # Full codes in, prefixes sliced and normalised inside, a shortlist rescored from the mapped codes: one call.
        first = faiss.IndexPreTransform(index)
        first.prepend_transform(faiss.NormalizationTransform(spec.length, 2.0))
        if spec.length < codes.code_length:
            first.prepend_transform(faiss.RemapDimensionsTransform(codes.code_length, spec.length, False))
        scan = codes.scan(self.count)
        second = faiss.IndexRefine(first, scan)
        self._funnel = faiss.IndexPreTransform(second)
        self._funnel.prepend_transform(faiss.NormalizationTransform(codes.code_length, 2.0))
        self._held = (first, scan, second)
        unnormalised = codes.unnormalised_rows
        few = len(unnormalised) <= _MAX_UNNORMALISED_SHARE * len(codes)
        self._unnormalised_rows = frozenset(unnormalised.tolist()) if few else None
        self._prepared: dict[tuple[Plan, int], PreparedSearch] = {}
        self._shape_of_one = (1, codes.code_length)

    def run(self, queries: Scores, *, plan: Plan, k: int, selection: Selection | None = None) -> tuple[Scores, Rows]:
        """The results of a plan for this index: scores (cosines) and rows, each (q, at most k), best first.

        Args:
            queries: codes, (q, code_length).
            selection: rows that may be returned; all when None. The effort grows as it leaves fewer rows.

        Returns: row -1 where fewer were found.
        """
        if plan.shortlist is None or plan.rerank_length is None:
            return self.search(queries, k, effort=plan.effort, selection=selection)
        if selection is None and len(queries) == 1:
            self._prepare(plan, k)
            found_by_one = self.run_prepared(queries, plan, k)
            if found_by_one is not None:
                return found_by_one
        shortlist = self._shortlist(plan.shortlist, k)
        if plan.rerank_length == self.codes.code_length:
            return self._search_and_rescore(queries, k, shortlist=shortlist, effort=plan.effort, selection=selection)
        _, found = self.search(queries, shortlist, effort=plan.effort, selection=selection)
        return rerank(queries, found, self.codes.codes, length=plan.rerank_length, k=k)

    def run_prepared(self, query: Scores, plan: Plan, k: int) -> tuple[Scores, Rows] | None:
        """As run, of one query by a plan that was run before: None where it was not, or the query is not like others.

        It takes what run does before FAISS's search, and after it, in the fewest steps.
        """
        prepared = self._prepared.get((plan, k))
        return None if prepared is None or query.shape != self._shape_of_one else prepared.search(query)

    def _prepare(self, plan: Plan, k: int) -> None:
        """Prepare a plan, unless it is, or looks at everything, or rescores by less than full codes."""
        if (plan, k) in self._prepared or plan.rerank_length != self.codes.code_length or plan.shortlist is None:
            return
        effort = self.raised(plan.effort, None)
        if self._is_whole(effort) or (self._exhaustive is not None and effort == self.count):
            return
        refined, parameters = self._refining(k, self._shortlist(plan.shortlist, k), effort, None)
        if len(self._prepared) >= _PREPARED_CACHE_SIZE:
            self._prepared.clear()
        self._prepared[plan, k] = PreparedSearch(
            self._funnel,
            parameters,
            k=k,
            refined=refined,
            norms=self.codes.norms,
            unnormalised_rows=self._unnormalised_rows,
        )

    def search(
        self, queries: Scores, k: int, *, effort: int | None = None, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """Scores by the index itself and rows of the k best, each (q, k), best first; row -1 where fewer were found.

        Args:
            queries: codes, (q, code_length); sliced and normalised here.
            effort: of an index that has one; the maximum when None. It grows as a selection leaves fewer rows.
        """
        effort = self.raised(effort, selection)
        if self._exhaustive is not None and effort == self.count:
            return self._exhaustive.search(queries, k, selection=selection)
        prefixes = unit_prefix(queries, self.spec.length)
        parameters = self._parameters(effort, selection)
        with all_cores(use_all_threads(queries)):
            if self._is_whole(effort):
                scores, rows = self._search_all_lists(prefixes, k, parameters)
            else:
                scores, rows = self.index.search(prefixes, k, params=parameters)
        return without_repeats(scores, rows) if self._finds_rows_twice else (scores, rows)

    def _results_for(self, k: int) -> int:
        """How many of FAISS's results hold k different rows: some are in two lists."""
        return 2 * k if self._finds_rows_twice else k

    def _shortlist(self, wanted: int, k: int) -> int:
        return min(max(wanted, self._results_for(k)), self._results_for(self.count))

    def search_above(
        self, queries: Scores, k: int, *, least: Scores, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """As search, of an index that prunes, where k rows are known to score `least` (q,) or more."""
        scores, rows = np.empty((len(queries), k), dtype=np.float32), np.empty((len(queries), k), dtype=np.int64)
        parameters = self._parameters(None, selection)
        prefixes = unit_prefix(queries, self.spec.length)
        with all_cores(False):
            for number, bound in enumerate(least.tolist()):
                _, found, places = self.index.range_search(
                    prefixes[number : number + 1], bound - _ROUNDING, params=parameters
                )
                best = np.argsort(-found, kind="stable")[:k]
                scores[number], rows[number] = found[best], places[best]
        return scores, rows

    def _is_whole(self, effort: int | None) -> bool:
        """Whether all lists are to be visited of an index with a graph over them."""
        return self._graph is not None and effort == self.max_effort

    def _search_all_lists(
        self, prefixes: Scores, k: int, parameters: faiss.SearchParameters | None
    ) -> tuple[Scores, Rows]:
        """Name the lists to visit instead of seeking them: a graph may hold some that no path leads to."""
        centroids = self._graph.reconstruct_n(0, self._graph.ntotal)
        count = len(prefixes)
        lists, similarities = np.tile(np.arange(len(centroids)), (count, 1)), prefixes @ centroids.T
        scores, rows = np.empty((count, k), dtype=np.float32), np.empty((count, k), dtype=np.int64)
        x, keys, distances, found, places = map(faiss.swig_ptr, (prefixes, lists, similarities, scores, rows))
        # FAISS's wrapper in Python takes no parameters.
        self.index.search_preassigned_c(count, x, k, keys, distances, found, places, False, parameters)
        return scores, rows

    def _search_and_rescore(
        self,
        queries: Scores,
        k: int,
        *,
        shortlist: int,
        effort: int | None = None,
        selection: Selection | None = None,
    ) -> tuple[Scores, Rows]:
        """The k best of a shortlist by the cosine of full codes, each (q, k); row -1, score -inf where there are fewer.

        Args:
            queries: codes, (q, code_length).
        """
        effort = self.raised(effort, selection)
        if self._exhaustive is not None and effort == self.count:
            return self._exhaustive._search_and_rescore(queries, k, shortlist=shortlist, selection=selection)
        if self._is_whole(effort):
            _, listed = self.search(queries, shortlist, effort=effort, selection=selection)
            return rerank(queries, listed, self.codes.codes, length=self.codes.code_length, k=k)
        refined, parameters = self._refining(k, shortlist, effort, selection)
        count = len(queries)
        unit = unit_prefix(queries, self.codes.code_length)
        scores, rows = np.empty((count, refined), np.float32), np.empty((count, refined), np.int64)
        with all_cores(use_all_threads(queries)):
            x, found_scores, found_rows = map(faiss.swig_ptr, (unit, scores, rows))
            self._funnel.search_c(count, x, refined, found_scores, found_rows, parameters)
        if self._finds_rows_twice:
            scores, rows = without_repeats(scores, rows)
        scores[rows < 0] = -np.inf
        scores /= self.codes.norms[rows]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _refining(
        self, k: int, shortlist: int, effort: int | None, selection: Selection | None
    ) -> tuple[int, faiss.SearchParameters]:
        """How many results to take of the shortlist for k of them, and FAISS's parameters of that."""
        # Inner products with codes whose norm is 1 only up to rounding: a few more, then the cosines decide.
        refined = min(self._results_for(k) + _SPARE, shortlist)
        refining = faiss.IndexRefineSearchParameters(
            # FAISS takes int(k * factor): a little more keeps rounding from taking one off.
            k_factor=shortlist / refined + 1e-6,
            base_index_params=self._parameters(effort, selection),
        )
        return refined, faiss.SearchParametersPreTransform(index_params=refining)

    def _parameters(self, effort: int | None, selection: Selection | None) -> faiss.SearchParameters | None:
        selector = None if selection is None else faiss.IDSelectorBitmap(selection.bits)
        return self.kind.search_parameters(effort=effort, selector=selector)

    def raised(self, effort: int | None, selection: Selection | None) -> int | None:
        """The effort of a search, the maximum when None: it grows as a selection leaves fewer rows."""
        if self.max_effort is None:
            return None
        wanted = self.max_effort if effort is None else effort
        if selection is not None and selection.share < 1:
            wanted = int(wanted / max(selection.share, 1 / self.count)) + 1
        return max(1, min(wanted, self.max_effort))


def without_repeats(scores: Scores, rows: Rows) -> tuple[Scores, Rows]:
    """Results, each (q, k), with a row that two lists hold at its first place only; -1 and -inf at the other."""
    order = rows.argsort(axis=1, kind="stable")
    found = np.take_along_axis(rows, order, 1)
    repeated = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], found[:, 1:] == found[:, :-1], 1)
    return np.where(repeated, -np.inf, scores).astype(np.float32), np.where(repeated, -1, rows)


def open_prefix_index(generation: Artifact, spec: IndexSpec, codes: Codes) -> PrefixIndex:
    """Open an index of a generation.

    Raises: ArtifactDamagedError, if its file is not listed; SearchError, if it cannot be read or holds something else.
    """
    if require_kind(spec.kind).has_file:
        generation.file(file_name(spec))
    return read_prefix_index(generation.path, spec, codes)


def read_prefix_index(directory: Path, spec: IndexSpec, codes: Codes) -> PrefixIndex:
    """Open an index that was written to a directory. Raises: SearchError, if it cannot be read or is another."""
    kind = require_kind(spec.kind)
    if not kind.has_file:
        return PrefixIndex(codes.scan(len(codes)), spec, codes)
    path = directory / file_name(spec)
    try:
        index = kind.read(path)
    except RuntimeError as error:
        raise SearchError(f"FAISS cannot read {path}: {error}") from error
    if index.d != spec.length or index.ntotal != len(codes):
        raise SearchError(
            f"{path} holds {index.ntotal} vectors of {index.d} coordinates, not {len(codes)} of {spec.length}"
        )
    return PrefixIndex(index, spec, codes)
