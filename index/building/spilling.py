"""Spilling: codes far from their list's centroid are in another list too, so that fewer lists find as many.

What a search misses are mostly codes at the edge of their list. A second list whose centroid errs in another direction
is near a query that the first is far from.

Source: Sun et al., SOAR: Improved Indexing for Approximate Nearest Neighbor Search, NeurIPS 2023 (arXiv:2404.00774),
equation 4; there every code has a second list.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]

# The nearest lists, among which the second is chosen.
_CANDIDATES = 8
# lambda of equation 4: what an error along the first list's weighs beside its length.
_ALONG = 1.0
_TINY = 1e-12
# Codes whose second list is sought at a time.
_CHUNK = 4096


class SpillingWriter:
    """Fills a trained IndexIVFPQFastScan; FAISS lets the lists be chosen only in its plain form (IndexIVFPQ).

    Memory: the lists twice while `finish` makes the one form of the other.
    """

    def __init__(self, index: faiss.IndexIVFPQFastScan, sample: Vectors, *, share: float) -> None:
        """Learn from a sample of the unit vectors, (m, d), which `share` of them is farthest from its centroid."""
        self._trained = index  # owns the centroids
        self._plain = faiss.IndexIVFPQ(index.quantizer, index.d, index.nlist, index.pq.M, 4, index.metric_type)
        self._plain.pq, self._plain.by_residual, self._plain.is_trained = index.pq, index.by_residual, True
        self._centroids: Vectors = faiss.downcast_index(index.quantizer).reconstruct_n(0, index.nlist)
        likeness, _ = index.quantizer.search(sample, 1)
        self._far = float(np.quantile(likeness, share)) if index.nlist > 1 else -np.inf
        self._count = 0

    def add(self, vectors: Vectors) -> None:
        """Add unit vectors (n, d), numbered on from those before."""
        likeness, lists = self._plain.quantizer.search(vectors, min(_CANDIDATES, len(self._centroids)))
        numbers = np.arange(self._count, self._count + len(vectors))
        self._put(vectors, numbers, lists[:, 0])
        for far in np.array_split(rows := np.flatnonzero(likeness[:, 0] <= self._far), len(rows) // _CHUNK + 1):
            self._put(vectors[far], numbers[far], choose_second_lists(vectors[far], lists[far], self._centroids))
        self._count += len(vectors)

    def finish(self) -> faiss.IndexIVFPQFastScan:
        """Return the index with what was added; it looks into this writer, which has to be kept."""
        index = faiss.IndexIVFPQFastScan(self._plain)
        index.ntotal = self._count  # and not what is in the lists
        return index

    def _put(self, vectors: Vectors, numbers: Ids, lists: Ids) -> None:
        arrays = [np.ascontiguousarray(array) for array in (vectors, numbers, lists)]
        self._plain.add_core(len(vectors), *map(faiss.swig_ptr, arrays))


def choose_second_lists(vectors: Vectors, lists: Ids, centroids: Vectors) -> Ids:
    """Return a second list for each vector, (n,): the candidate that least repeats the error of the first list.

    Args:
        vectors: (n, d).
        lists: of each vector the numbers of the nearest, nearest first, (n, at least 2); -1 marks none.
    """
    first = vectors - centroids[lists[:, 0]]
    first /= np.linalg.norm(first, axis=1, keepdims=True).clip(min=_TINY)
    errors = vectors[:, None] - centroids[lists[:, 1:]]
    along = np.einsum("ncd,nd->nc", errors, first)
    loss = np.einsum("ncd,ncd->nc", errors, errors) + _ALONG * along**2
    loss[lists[:, 1:] < 0] = np.inf
    return np.take_along_axis(lists, 1 + loss.argmin(1)[:, None], 1)[:, 0]
