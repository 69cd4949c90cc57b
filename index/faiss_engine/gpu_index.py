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
from eigenlens.index.faiss_engine.prefix_index import PrefixIndex, Rows, Scores, graph_of_lists
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.plan import Plan

log = logging.getLogger(__name__)

# Results, and lists visited, of one search on a GPU at most.
_MOST = 2048


class GpuIndex(PrefixIndex):
    """As a PrefixIndex. The GPU's searches come one after the other; those on the CPU wait for none."""

    def __init__(self, index: PrefixIndex, copy: faiss.Index, gpu: Gpu) -> None:
        """Search `copy`, on the GPU, or `index`."""
        self._gpu = gpu
        self._there = PrefixIndex(copy, index.spec, index.codes)
        super().__init__(index.index, index.spec, index.codes)

    def __del__(self) -> None:
        with self._gpu.lock:
            del self._there

    def run(self, queries: Scores, *, plan: Plan, k: int, selection: Selection | None = None) -> tuple[Scores, Rows]:
        """As PrefixIndex.run. The GPU knows no selections: it finds as many more as these leave out, to be dropped."""
        more = 0 if selection is None else selection.left_out
        shortlist = None if plan.shortlist is None else plan.shortlist + more
        wider = replace(plan, effort=self.raised(plan.effort, selection), shortlist=shortlist)
        wanted = min(k + more, self.count)
        found = self._on_gpu(
            lambda: self._there.run(queries, plan=wider, k=wanted), k=max(shortlist or 0, wanted), effort=wider.effort
        )
        if found is None:
            return super().run(queries, plan=plan, k=k, selection=selection)
        return found if selection is None else _only(selection, *found, k=k)

    def run_prepared(self, query: Scores, plan: Plan, k: int) -> tuple[Scores, Rows] | None:
        """None: the GPU's searches are not prepared."""
        return None

    def search(
        self, queries: Scores, k: int, *, effort: int | None = None, selection: Selection | None = None
    ) -> tuple[Scores, Rows]:
        """As PrefixIndex.search; with a selection on the CPU."""
        found = None
        if selection is None:
            raised = self.raised(effort, None)
            found = self._on_gpu(lambda: self._there.search(queries, k, effort=raised), k=k, effort=raised)
        return super().search(queries, k, effort=effort, selection=selection) if found is None else found

    def _on_gpu(
        self, search: Callable[[], tuple[Scores, Rows]], *, k: int, effort: int | None
    ) -> tuple[Scores, Rows] | None:
        """What a search of k by the GPU finds; None if it is too much for it."""
        if max(k, effort or 0) > _MOST:
            return None
        try:
            with self._gpu.lock:
                return search()
        except RuntimeError as error:  # no memory is left there for a search of so many
            log.warning("a search runs on the CPU: %s", error)
            return None


def on_gpu(index: PrefixIndex, gpu: Gpu | None) -> PrefixIndex:
    """The index with a copy on the GPU; itself without a GPU, or where that does not know its kind or has no room."""
    if gpu is None or not index.kind.gpu:
        return index
    copy = gpu.copy_of(_without_graph(index.index), f"the index of length {index.spec.length}")
    return index if copy is None else GpuIndex(index, copy, gpu)


def _without_graph(index: faiss.Index) -> faiss.Index:
    """The same lists, found by a scan of their centroids where they are found by a graph; only these are copied."""
    graph = graph_of_lists(index)
    if graph is None:
        return index
    centroids = faiss.IndexFlatIP(index.d)
    centroids.add(graph.reconstruct_n(0, graph.ntotal))
    lists = index.d, index.nlist
    if isinstance(index, faiss.IndexIVFScalarQuantizer):
        same = faiss.IndexIVFScalarQuantizer(centroids, *lists, index.sq.qtype, index.metric_type, index.by_residual)
        same.sq = index.sq
    else:
        same = faiss.IndexIVFFlat(centroids, *lists, index.metric_type)
    same.replace_invlists(index.invlists, False)
    same.ntotal, same.is_trained = index.ntotal, True
    return same


def _only(selection: Selection, scores: Scores, rows: Rows, *, k: int) -> tuple[Scores, Rows]:
    """The first k of each query that are selected; row -1, score -inf where there are fewer."""
    kept = (rows >= 0) & selection.mask[rows]
    first = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(kept, first, 1)
    rows = np.where(kept, np.take_along_axis(rows, first, 1), -1)
    return np.where(kept, np.take_along_axis(scores, first, 1), np.float32(-np.inf)), rows
