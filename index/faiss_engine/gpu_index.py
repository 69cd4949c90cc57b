"""The index of one prefix length with a copy on a GPU: the same plans, the same results but for rounding.

What the GPU cannot do is done by the index on the CPU, which stays mapped.
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
    """As a PrefixIndex. The GPU's searches come one after the other; those on the CPU wait for none."""

    def __init__(self, index: PrefixIndex, copy: faiss.Index, gpu: Gpu, *, max_results: int) -> None:
        """Search `copy`, on the GPU, or `index` for more than `max_results` results or lists."""
        self._gpu, self._max_results = gpu, max_results
        self._copy = PrefixIndex(copy, index.spec, index.codes)
        super().__init__(index.index, index.spec, index.codes)

    def __del__(self) -> None:
        with self._gpu.lock:
            del self._copy

    def run(self, queries: Scores, *, plan: Plan, k: int, selection: Selection | None = None) -> tuple[Scores, Rows]:
        """As PrefixIndex.run. The GPU knows no selections: it finds as many more as these leave out, to be dropped."""
        more = 0 if selection is None else selection.left_out
        shortlist = None if plan.shortlist is None else plan.shortlist + more
        wider = replace(plan, effort=self.raised(plan.effort, selection), shortlist=shortlist)
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
        """None: the GPU's searches are not prepared."""
        return None

    def search(
        self, queries: Scores, k: int, *, effort: int | None = None, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """As PrefixIndex.search; with a selection on the CPU."""
        results = None
        if selection is None:
            raised = self.raised(effort, None)
            results = self._on_gpu(lambda: self._copy.search(queries, k, effort=raised), k=k, effort=raised)
        return super().search(queries, k, effort=effort, selection=selection) if results is None else results

    def _on_gpu(
        self, search: Callable[[], tuple[Scores, Rows]], *, k: int, effort: int | None
    ) -> tuple[Scores, Rows] | None:
        """What a search of k by the GPU finds; None if it is too much for it."""
        if max(k, effort or 0) > self._max_results:
            return None
        try:
            with self._gpu.lock:
                return search()
        except RuntimeError as error:  # no memory is left there for a search of so many
            log.warning("a search runs on the CPU: %s", error)
            return None


def on_gpu(index: PrefixIndex, gpu: Gpu | None, *, tuning: Tuning = DEFAULT_TUNING) -> PrefixIndex:
    """The index with a copy on the GPU; itself without a GPU, or where that does not know its kind or has no room."""
    if gpu is None or not index.kind.gpu:
        return index
    copy = gpu.copy_of(index.kind.without_graph(index.index), f"the index of length {index.spec.length}")
    return index if copy is None else GpuIndex(index, copy, gpu, max_results=tuning.max_gpu_results)


def _only(selection: Selection, scores: Scores, rows: Rows, *, k: int) -> tuple[Scores, Rows]:
    """The first k of each query that are selected; row -1, score -inf where there are fewer."""
    is_selected = (rows >= 0) & selection.mask[rows]
    first = np.argsort(~is_selected, axis=1, kind="stable")[:, :k]
    is_selected = np.take_along_axis(is_selected, first, 1)
    rows = np.where(is_selected, np.take_along_axis(rows, first, 1), -1)
    return np.where(is_selected, np.take_along_axis(scores, first, 1), np.float32(-np.inf)), rows
