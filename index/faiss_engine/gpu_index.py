"""An index with a copy on a GPU: it runs the same plans, and its results are the same up to rounding.

The index on the CPU stays mapped and runs the searches that the GPU cannot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import faiss
import numpy as np

from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex, Rows, Scores
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import Plan
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

log = logging.getLogger(__name__)


class GpuIndex(PrefixIndex):
    """A PrefixIndex with a copy on the GPU. Searches on the GPU run one at a time; searches on the CPU never wait."""

    def __init__(self, index: PrefixIndex, copy: faiss.Index, gpu: Gpu, *, max_results: int) -> None:
        """Search `copy`, on the GPU, or `index` for more than `max_results` results or lists."""
        self._gpu, self._max_results = gpu, max_results
        self._copy = PrefixIndex(copy, index.spec, index.codes)
        super().__init__(index.index, index.spec, index.codes, compact=index.compact)

    def __del__(self) -> None:
        with self._gpu.lock:
            del self._copy

    def run(self, queries: Scores, *, plan: Plan, k: int, selection: Selection | None = None) -> tuple[Scores, Rows]:
        """Return what PrefixIndex.run does.

        The GPU has no selections: it returns more results, by as many rows as the selection leaves out, and the other
        rows are dropped here.
        """
        more = 0 if selection is None else selection.left_out
        shortlist = None if plan.shortlist is None else plan.shortlist + more
        wider = replace(plan, effort=self._clamp(plan.effort), shortlist=shortlist)
        max_results = min(k + more, self.count)
        results = self._on_gpu(
            lambda: self._copy.run(queries, plan=wider, k=max_results),
            k=max(shortlist or 0, max_results),
            effort=wider.effort,
        )
        if results is None:
            return super().run(queries, plan=plan, k=k, selection=selection)
        return results if selection is None else _only(selection, *results, k=k)

    def run_prepared(self, query: Scores, plan: Plan, k: int) -> tuple[Scores, Rows] | None:
        """Return None, since searches on the GPU are not prepared."""
        return None

    def search(
        self, queries: Scores, k: int, *, effort: int | None = None, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """Return what PrefixIndex.search does; a search with a selection runs on the CPU."""
        results = None
        if selection is None:
            clamped = self._clamp(effort)
            results = self._on_gpu(lambda: self._copy.search(queries, k, effort=clamped), k=k, effort=clamped)
        return super().search(queries, k, effort=effort, selection=selection) if results is None else results

    def _on_gpu(
        self, search: Callable[[], tuple[Scores, Rows]], *, k: int, effort: int | None
    ) -> tuple[Scores, Rows] | None:
        """Return the results of a search for k on the GPU; None if it is too large for the GPU."""
        if max(k, effort or 0) > self._max_results:
            return None
        try:
            with self._gpu.lock:
                return search()
        except RuntimeError as error:  # the GPU has too little free memory for this search
            log.warning("a search runs on the CPU: %s", error)
            return None


def on_gpu(index: PrefixIndex, gpu: Gpu | None, *, tuning: Tuning = DEFAULT_TUNING) -> PrefixIndex:
    """Return the index with a copy on the GPU; the index itself if there is no GPU, or it lacks the kind or memory."""
    if gpu is None or not index.kind.gpu:
        return index
    copy = gpu.copy_of(index.kind.without_graph(index.index), f"the index of length {index.spec.length}")
    return index if copy is None else GpuIndex(index, copy, gpu, max_results=tuning.max_gpu_results)


def _only(selection: Selection, scores: Scores, rows: Rows, *, k: int) -> tuple[Scores, Rows]:
    """Return the first k selected results of each query; row -1, score -inf if there are fewer."""
    is_selected = (rows >= 0) & selection.mask[rows]
    first = np.argsort(~is_selected, axis=1, kind="stable")[:, :k]
    is_selected = np.take_along_axis(is_selected, first, 1)
    rows = np.where(is_selected, np.take_along_axis(rows, first, 1), -1)
    return np.where(is_selected, np.take_along_axis(scores, first, 1), np.float32(-np.inf)), rows
