"""Building the index of one prefix length: trained on a sample, filled run by run, written to its file."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.index.building.clustering import two_level_centroids
from eigenlens.index.building.spilling import SpillingWriter
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.gpu import Gpu, flat_index
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.faiss_engine.prefix_index import Scores, file_name, graph_of_lists
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.threads import all_cores

TRAINING_VECTORS = 262_144
_VECTORS_PER_LIST = 64
_KMEANS_STEPS = 8
_EF_CONSTRUCTION = 100
_EF_ASSIGNMENT = 24
# One training vector in so many tells which are far from their centroid.
_SAMPLED = 16


class Builder:
    """Makes the index of one prefix length in memory: trained at once, filled in one or several runs of rows.

    Memory: the index itself and a sample of the codes to train it; the codes are read in chunks.

    Attributes:
        codes: that it reads.
        spec: what it builds.
    """

    def __init__(
        self, codes: Codes, spec: IndexSpec, *, sample: NDArray[np.float16], seed: int = 0, gpu: Gpu | None = None
    ) -> None:
        """Train on a fair sample of the codes, (m, code_length); k-means runs on the GPU where there is one."""
        self.codes, self.spec, self._kind = codes, spec, require_kind(spec.kind)
        self._spilling: SpillingWriter | None = None
        if self._kind.factory is None:
            self._index = codes.scan(0)
            return
        factory = self._kind.factory(len(codes), spec.length)
        self._index = faiss.index_factory(spec.length, factory, faiss.METRIC_INNER_PRODUCT)
        vectors = unit_prefix(sample, spec.length)
        if isinstance(self._index, faiss.IndexHNSW):
            self._index.hnsw.efConstruction = _EF_CONSTRUCTION
        if isinstance(self._index, faiss.IndexIVF):
            clustering = self._index.cp
            clustering.niter, clustering.seed = _KMEANS_STEPS, seed + 1
            clustering.max_points_per_centroid = _VECTORS_PER_LIST
            clustering.min_points_per_centroid = 1  # it only warns, of galleries that are small on purpose
            graph = graph_of_lists(self._index)
            if graph is not None:
                graph.hnsw.efConstruction = _EF_CONSTRUCTION
                graph.hnsw.efSearch = _EF_ASSIGNMENT
                with all_cores():
                    graph.add(two_level_centroids(vectors, int(self._index.nlist), seed=seed, gpu=gpu))
        if isinstance(self._index, faiss.IndexIVFPQFastScan):
            self._index.pq.cp.min_points_per_centroid = 1
        if not self._index.is_trained:
            with all_cores():
                _train(self._index, vectors, gpu)
        if isinstance(self._index, faiss.IndexIVFPQFastScan):
            self._spilling = SpillingWriter(self._index, vectors[::_SAMPLED])

    @property
    def index(self) -> faiss.Index:
        """FAISS's index of what was added so far; it may look into the builder, which has to be kept."""
        return self._index if self._spilling is None else self._spilling.finish()

    def add(self, start: int, stop: int) -> None:
        """Add the rows from start to stop; they come in the order of rows."""
        if self._kind.factory is None:
            self._index = self.codes.scan(stop)
            return
        for _, rows in self.codes.runs(start, stop):
            with all_cores():
                (self._spilling or self._index).add(unit_prefix(rows, self.spec.length))

    def write(self, directory: Path) -> int:
        """Write the index to its file, if its kind has one. Returns: the file's size in bytes."""
        if self._kind.factory is None:
            return 0
        path = directory / file_name(self.spec)
        faiss.write_index(self.index, str(path))
        return path.stat().st_size


def _train(index: faiss.Index, vectors: Scores, gpu: Gpu | None) -> None:
    if not isinstance(index, faiss.IndexIVF):
        index.train(vectors)
        return
    assigner = flat_index(index.d, gpu)
    index.clustering_index = assigner
    index.train(vectors)
    index.clustering_index = None
    assigner.thisown = True  # the index took it as its own, but frees it never
