"""Smoothing over the edges: products with S = D^-1/2 (A + I) D^-1/2, in blocks of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.sparse import Floats, SparseRows

_ENTRIES_PER_BLOCK = 1 << 22
# Of a product and its factor together.
_BYTES = 640 << 20
# The numbers of a cache line: rows of so many columns are read from memory in one go.
_COLUMNS = 16


class Smoother:
    """Products with S of a graph: the neighbours' mean, each node among its own, by the square roots of degrees.

        S = D^-1/2 (A + I) D^-1/2,   D = diag(degree + 1)

    smoother = Smoother(graph)
    smoothed = smoother.smooth(values, 2)  # S² values

    The adjacency stays on disk; a product holds the factor, (n, m), the result and one block of edges.
    """

    def __init__(self, graph: Graph, *, dtype: np.dtype[Any] | type[np.floating[Any]] = np.float32) -> None:
        """Compute in `dtype`."""
        self._graph = graph
        self.dtype = np.dtype(dtype)
        self.scale = (1 / np.sqrt(graph.degrees + 1.0)).astype(self.dtype)
        self._blocks = _row_blocks(graph.indptr)
        largest = max((int(graph.indptr[stop] - graph.indptr[start]) for start, stop in self._blocks), default=0)
        self._ones = np.ones(largest, dtype=self.dtype)

    @property
    def columns_at_once(self) -> int:
        """How many columns to smooth at once, so that a product and its factor take 640 MiB."""
        columns = _BYTES // (2 * self.dtype.itemsize * self._graph.count)
        return max(1, columns // _COLUMNS) * _COLUMNS

    def smooth(self, values: Floats, hops: int) -> Floats:
        """Return S^hops values, (n, m); `values` may be overwritten."""
        for _ in range(hops):
            values = self._multiply(values)
        return values

    def _multiply(self, values: Floats) -> Floats:
        values = np.ascontiguousarray(values, dtype=self.dtype)
        values *= self.scale[:, None]
        product = np.empty_like(values)
        graph = self._graph
        for start, stop in self._blocks:
            begin, end = int(graph.indptr[start]), int(graph.indptr[stop])
            rows = SparseRows(
                graph.indptr[start : stop + 1] - begin, graph.indices[begin:end], self._ones[: end - begin], graph.count
            )
            np.add(rows.multiply(values), values[start:stop], out=product[start:stop])
        product *= self.scale[:, None]
        return product


def _row_blocks(indptr: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return blocks of rows with few enough edges each."""
    blocks, start, count = [], 0, len(indptr) - 1
    while start < count:
        stop = int(np.searchsorted(indptr, indptr[start] + _ENTRIES_PER_BLOCK, side="right")) - 1
        blocks.append((start, max(stop, start + 1)))
        start = blocks[-1][1]
    return blocks
