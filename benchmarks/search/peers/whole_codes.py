"""Other people's indexes over whole codes, each with the settings that its documentation suggests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import faiss
import numpy as np

from eigenlens.benchmarks.search.setup import CORES, Ids, K, Vectors


class Peer(Protocol):
    """An approximate index over unit vectors by inner product.

    Attributes:
        efforts: what its search is tuned by, ascending; recall grows with it.
        settings: what it was built with, for the records.
    """

    efforts: Sequence[int]
    settings: dict[str, Any]

    def build(self, vectors: Vectors) -> None:
        """Build with all cores."""

    def prepare(self, effort: int) -> Callable[[Vectors], Ids]:
        """A search of one thread: one query (1, d) to the ids of its 10 nearest, (10,)."""

    def prepare_batches(self, effort: int, threads: int) -> Callable[[Vectors], Ids]:
        """The library's own search of batches with so many threads: queries (q, d) to ids, (q, 10)."""


_GRAPH_EFFORTS = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 200, 256, 400)


class Hnswlib:
    """hnswlib's HNSW."""

    def __init__(self) -> None:
        self.efforts: Sequence[int] = _GRAPH_EFFORTS
        self.settings: dict[str, Any] = {"M": 16, "ef_construction": 100}

    def build(self, vectors: Vectors) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", vectors.shape[1])
        self._index.init_index(len(vectors), **self.settings)
        self._index.set_num_threads(CORES)
        self._index.add_items(vectors)

    def prepare(self, effort: int) -> Callable[[Vectors], Ids]:
        self._index.set_num_threads(1)
        self._index.set_ef(effort)
        return lambda query: np.asarray(self._index.knn_query(query, K)[0][0], dtype=np.int64)

    def prepare_batches(self, effort: int, threads: int) -> Callable[[Vectors], Ids]:
        self._index.set_ef(effort)
        return lambda queries: np.asarray(self._index.knn_query(queries, K, threads)[0], dtype=np.int64)


class Usearch:
    """USearch's HNSW."""

    def __init__(self) -> None:
        self.efforts: Sequence[int] = _GRAPH_EFFORTS
        self.settings: dict[str, Any] = {"connectivity": 16, "expansion_add": 100, "dtype": "f32"}

    def build(self, vectors: Vectors) -> None:
        from usearch.index import Index

        self._index = Index(ndim=vectors.shape[1], metric="ip", **self.settings)
        self._index.add(np.arange(len(vectors)), vectors, threads=CORES)

    def prepare(self, effort: int) -> Callable[[Vectors], Ids]:
        self._index.expansion_search = effort
        return lambda query: np.asarray(self._index.search(query[0], K, threads=1).keys, dtype=np.int64)

    def prepare_batches(self, effort: int, threads: int) -> Callable[[Vectors], Ids]:
        self._index.expansion_search = effort
        return lambda queries: np.asarray(self._index.search(queries, K, threads=threads).keys, dtype=np.int64).reshape(
            -1, K
        )


class FaissHnsw:
    """FAISS's HNSW over full float32 vectors."""

    def __init__(self) -> None:
        self.efforts: Sequence[int] = _GRAPH_EFFORTS
        self.settings: dict[str, Any] = {"M": 16, "efConstruction": 100}

    def build(self, vectors: Vectors) -> None:
        self._index = faiss.IndexHNSWFlat(vectors.shape[1], self.settings["M"], faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = self.settings["efConstruction"]
        faiss.omp_set_num_threads(CORES)
        self._index.add(vectors)

    def prepare(self, effort: int) -> Callable[[Vectors], Ids]:
        faiss.omp_set_num_threads(1)
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        return lambda query: np.asarray(self._index.search(query, K, params=parameters)[1][0])

    def prepare_batches(self, effort: int, threads: int) -> Callable[[Vectors], Ids]:
        parameters = faiss.SearchParametersHNSW(efSearch=effort)

        def search(queries: Vectors) -> Ids:
            faiss.omp_set_num_threads(threads)  # of the calling thread
            return np.asarray(self._index.search(queries, K, params=parameters)[1])

        return search


class Scann:
    """ScaNN: a tree, anisotropic quantisation, and a rescoring of ten times the results at full precision."""

    def __init__(self) -> None:
        self.efforts: Sequence[int] = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 400)
        self.settings: dict[str, Any] = {
            "leaves": "sqrt(n)",
            "dimensions_per_block": 2,
            "threshold": 0.2,
            "reorder": 100,
        }

    def build(self, vectors: Vectors) -> None:
        from scann import scann_ops_pybind

        leaves = int(np.sqrt(len(vectors)))
        self._index = (
            scann_ops_pybind.builder(vectors, 10, "dot_product")
            .tree(num_leaves=leaves, num_leaves_to_search=10, training_sample_size=min(len(vectors), 250_000))
            .score_ah(2, anisotropic_quantization_threshold=0.2)
            .reorder(100)
            .build()
        )

    def prepare(self, effort: int) -> Callable[[Vectors], Ids]:
        return lambda query: np.asarray(
            self._index.search(query[0], leaves_to_search=effort, pre_reorder_num_neighbors=100)[0], dtype=np.int64
        )

    def prepare_batches(self, effort: int, threads: int) -> Callable[[Vectors], Ids]:
        self._index.set_num_threads(threads)
        search = self._index.search_batched_parallel if threads > 1 else self._index.search_batched
        return lambda queries: np.asarray(
            search(queries, leaves_to_search=effort, pre_reorder_num_neighbors=100)[0], dtype=np.int64
        )


class Svs:
    """Intel's SVS: a Vamana graph over float32 vectors."""

    def __init__(self) -> None:
        self.efforts: Sequence[int] = _GRAPH_EFFORTS
        self.settings: dict[str, Any] = {"graph_max_degree": 32, "window_size": 100, "alpha": 0.95}

    def build(self, vectors: Vectors) -> None:
        import svs

        parameters = svs.VamanaBuildParameters(**self.settings)
        self._index = svs.Vamana.build(parameters, np.asarray(vectors), svs.DistanceType.MIP, num_threads=CORES)

    def prepare(self, effort: int) -> Callable[[Vectors], Ids]:
        self._index.num_threads = 1
        self._index.search_window_size = effort
        return lambda query: np.asarray(self._index.search(query, K)[0][0], dtype=np.int64)

    def prepare_batches(self, effort: int, threads: int) -> Callable[[Vectors], Ids]:
        self._index.num_threads = threads
        self._index.search_window_size = effort
        return lambda queries: np.asarray(self._index.search(queries, K)[0], dtype=np.int64)


class Vsag:
    """VSAG's HGraph: 8-bit vectors in a graph, and half-precision ones to rescore from."""

    def __init__(self) -> None:
        self.efforts: Sequence[int] = _GRAPH_EFFORTS
        self.settings: dict[str, Any] = {
            "base_quantization_type": "sq8_uniform",
            "use_reorder": True,
            "precise_quantization_type": "fp16",
            "max_degree": 32,
            "ef_construction": 100,
        }

    def build(self, vectors: Vectors) -> None:
        import pyvsag

        count, dimensions = vectors.shape
        parameters = {"dtype": "float32", "metric_type": "ip", "dim": dimensions}
        index_parameters = self.settings | {"build_thread_count": CORES}
        self._index = pyvsag.Index("hgraph", json.dumps(parameters | {"index_param": index_parameters}))
        self._index.build(vectors=vectors.reshape(-1), ids=np.arange(count), num_elements=count, dim=dimensions)

    def prepare(self, effort: int) -> Callable[[Vectors], Ids]:
        parameters = json.dumps({"hgraph": {"ef_search": effort}})
        return lambda query: np.asarray(self._index.knn_search(query[0], K, parameters)[0])

    def prepare_batches(self, effort: int, threads: int) -> Callable[[Vectors], Ids]:
        """It has none in Python: one query after the other."""
        search = self.prepare(effort)
        return lambda queries: np.stack([search(query[None]) for query in queries])


PEERS: dict[str, Callable[[], Peer]] = {
    "hnswlib": Hnswlib,
    "svs": Svs,
    "scann": Scann,
    "faiss-hnsw": FaissHnsw,
    "usearch": Usearch,
    "vsag": Vsag,
}

# Where the module's name is not the method's.
PACKAGES = {"faiss-hnsw": "faiss", "vsag": "pyvsag"}
