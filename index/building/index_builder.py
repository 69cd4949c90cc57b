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
from eigenlens.index.faiss_engine.kind import Kind
from eigenlens.index.faiss_engine.kinds import graph_of_lists, require_kind
from eigenlens.index.faiss_engine.prefix_index import Scores, file_name
from eigenlens.index.faiss_engine.va_file.kind import VaFileKind, VaFileWriter
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.threads import all_cores
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

TRAINING_VECTORS = 262_144
# One training vector in so many is used to find how far from their centroid the spilled ones are.
_SAMPLE_STEP = 16


class Builder:
    """Makes the index of one prefix length in memory: trained at once, filled in one or several runs of rows.

    Memory: the index itself and a sample of the codes to train it; the codes are read in chunks.

    Attributes:
        codes: that it reads.
        spec: what it builds.
    """

    def __init__(
        self,
        codes: Codes,
        spec: IndexSpec,
        *,
        sample: NDArray[np.float16],
        seed: int = 0,
        gpu: Gpu | None = None,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        """Train on a fair sample of the codes, (m, code_length); k-means runs on the GPU where there is one."""
        self.codes, self.spec, self._kind = codes, spec, require_kind(spec.kind)
        self._writer: SpillingWriter | VaFileWriter | None = None
        if not self._kind.has_file:
            self._index = codes.scan(0)
            return
        # 1. An empty index of the right size, whose k-means is set up.
        self._index = self._kind.create(len(codes), spec.length, seed=seed, tuning=tuning)
        if isinstance(self._kind, VaFileKind):  # it is trained on all codes: no bound may be too low
            self._writer = VaFileWriter(self._index, codes)
            return
        vectors = unit_prefix(sample, spec.length)
        # 2. Centroids of many lists are found in two levels, and kept in a graph.
        graph = graph_of_lists(self._index)
        if graph is not None:
            with all_cores():
                graph.add(two_level_centroids(vectors, int(self._index.nlist), seed=seed, gpu=gpu))
        # 3. What is left to train: centroids of few lists, and how vectors are quantised.
        if not self._index.is_trained:
            with all_cores():
                _train(self._index, vectors, self._kind, gpu)
        # 4. Codes far from their centroid are to be in two lists.
        if self._kind.finds_rows_twice(self._index):
            self._writer = SpillingWriter(self._index, vectors[::_SAMPLE_STEP], share=tuning.spilled_share)

    @property
    def index(self) -> faiss.Index:
        """FAISS's index of what was added so far; it may look into the builder, which has to be kept."""
        return self._index if self._writer is None else self._writer.finish()

    def add(self, start: int, stop: int) -> None:
        """Add the rows from start to stop; they come in the order of rows."""
        if not self._kind.has_file:
            self._index = self.codes.scan(stop)
            return
        for _, rows in self.codes.runs(start, stop):
            with all_cores():
                (self._writer or self._index).add(unit_prefix(rows, self.spec.length))

    def write(self, directory: Path) -> int:
        """Write the index to its file, if its kind has one. Returns: the file's size in bytes."""
        if not self._kind.has_file:
            return 0
        path = directory / file_name(self.spec)
        faiss.write_index(self.index, str(path))
        return path.stat().st_size


def _train(index: faiss.Index, vectors: Scores, kind: Kind, gpu: Gpu | None) -> None:
    if not kind.has_lists:
        index.train(vectors)
        return
    assigner = flat_index(index.d, gpu)
    index.clustering_index = assigner
    index.train(vectors)
    index.clustering_index = None
    assigner.thisown = True  # the index took it as its own, but frees it never
