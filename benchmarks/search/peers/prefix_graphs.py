"""Other people's graphs over prefixes of codes, which find a shortlist for rescoring; kept on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import faiss
import numpy as np

from eigenlens.benchmarks.search.setup import CORES, Ids, Vectors

Shortlist = Callable[[Vectors], Ids]


class PrefixGraph(Protocol):
    """A graph over prefixes of unit norm, by inner product.

    Attributes:
        variant: tells it from other graphs of its library; empty where there is one.
        package: the module that it needs.
        rescores: whether it is given whole codes and needs no rescoring.
        settings: what it is built with, for the records.
    """

    variant: ClassVar[str] = ""
    rescores: ClassVar[bool] = False
    package: ClassVar[str]
    settings: ClassVar[dict[str, Any]]

    def build(self, vectors: Vectors, *, length: int) -> None:
        """Build with all cores from unit vectors, (n, length), or (n, code_length) if it rescores itself."""

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""

    def load(self, folder: Path, *, length: int) -> None:
        """Open what was saved, in memory."""

    def prepare(self, *, limit: int, effort: int) -> Shortlist:
        """A search of one thread: a prefix (1, length) to `limit` rows, best first, (limit,)."""

    def prepare_batches(self, *, limit: int, effort: int, threads: int) -> Shortlist:
        """A search of so many threads: prefixes (q, length) to rows, best first, (q, limit)."""


class HnswlibGraph(PrefixGraph):
    """hnswlib's HNSW, float32."""

    package: ClassVar[str] = "hnswlib"
    settings: ClassVar[dict[str, Any]] = {"M": 16, "ef_construction": 100}

    def build(self, vectors: Vectors, *, length: int) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", vectors.shape[1])
        self._index.init_index(len(vectors), **self.settings)
        self._index.add_items(vectors, num_threads=CORES)

    def save(self, folder: Path) -> None:
        self._index.save_index(str(folder / "index"))

    def load(self, folder: Path, *, length: int) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", length)
        self._index.load_index(str(folder / "index"))

    def prepare(self, *, limit: int, effort: int) -> Shortlist:
        self._index.set_ef(max(effort, limit))
        search = self._index.knn_query
        return lambda prefix: search(prefix, limit, 1)[0][0].view(np.int64)

    def prepare_batches(self, *, limit: int, effort: int, threads: int) -> Shortlist:
        self._index.set_ef(max(effort, limit))
        search = self._index.knn_query
        return lambda prefixes: search(prefixes, limit, threads)[0].view(np.int64)


class UsearchGraph(PrefixGraph):
    """USearch's HNSW, half precision."""

    package: ClassVar[str] = "usearch"
    settings: ClassVar[dict[str, Any]] = {"connectivity": 16, "expansion_add": 100, "dtype": "f16"}

    def _empty(self, length: int) -> Any:
        from usearch.index import Index

        return Index(ndim=length, metric="ip", **self.settings)

    def build(self, vectors: Vectors, *, length: int) -> None:
        self._index = self._empty(vectors.shape[1])
        self._index.add(np.arange(len(vectors)), vectors, threads=CORES)

    def save(self, folder: Path) -> None:
        self._index.save(str(folder / "index"))

    def load(self, folder: Path, *, length: int) -> None:
        self._index = self._empty(length)
        self._index.load(str(folder / "index"))

    def prepare(self, *, limit: int, effort: int) -> Shortlist:
        self._index.expansion_search = max(effort, limit)
        search = self._index.search
        return lambda prefix: search(prefix[0], limit, threads=1).keys.view(np.int64)

    def prepare_batches(self, *, limit: int, effort: int, threads: int) -> Shortlist:
        self._index.expansion_search = max(effort, limit)
        search = self._index.search
        # A single query comes back without the first axis.
        return lambda prefixes: search(prefixes, limit, threads=threads).keys.view(np.int64).reshape(-1, limit)


class FaissGraph(PrefixGraph):
    """FAISS's HNSW, float32."""

    package: ClassVar[str] = "faiss"
    settings: ClassVar[dict[str, Any]] = {"M": 16, "efConstruction": 100}

    def build(self, vectors: Vectors, *, length: int) -> None:
        self._index = faiss.IndexHNSWFlat(vectors.shape[1], self.settings["M"], faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = self.settings["efConstruction"]
        faiss.omp_set_num_threads(CORES)
        self._index.add(vectors)

    def save(self, folder: Path) -> None:
        faiss.write_index(self._index, str(folder / "index"))

    def load(self, folder: Path, *, length: int) -> None:
        self._index = faiss.read_index(str(folder / "index"))

    def prepare(self, *, limit: int, effort: int) -> Shortlist:
        faiss.omp_set_num_threads(1)
        query, scores = np.empty((1, self._index.d), np.float32), np.empty(limit, np.float32)
        rows = np.empty(limit, np.int64)
        parameters = faiss.SearchParametersHNSW(efSearch=max(effort, limit))
        x, scores_pointer, rows_pointer = map(faiss.swig_ptr, (query, scores, rows))
        # FAISS's call in C++, without its wrapper in Python.
        search = partial(self._index.search_c, 1, x, limit, scores_pointer, rows_pointer, parameters)
        buffers = query, scores, rows  # pointers alone would not keep them

        def shortlist(prefix: Vectors) -> Ids:
            buffers[0][...] = prefix
            search()
            return buffers[2]

        return shortlist

    def prepare_batches(self, *, limit: int, effort: int, threads: int) -> Shortlist:
        parameters = faiss.SearchParametersHNSW(efSearch=max(effort, limit))

        def shortlist(prefixes: Vectors) -> Ids:
            faiss.omp_set_num_threads(threads)  # of the calling thread
            return np.asarray(self._index.search(prefixes, limit, params=parameters)[1])

        return shortlist


class SvsGraph(PrefixGraph):
    """Intel's SVS: a Vamana graph, half precision."""

    variant: ClassVar[str] = "float16"
    package: ClassVar[str] = "svs"
    settings: ClassVar[dict[str, Any]] = {"graph_max_degree": 32, "window_size": 100, "alpha": 0.95}

    def build(self, vectors: Vectors, *, length: int) -> None:
        import svs

        parameters = svs.VamanaBuildParameters(**self.settings)
        halves = vectors.astype(np.float16)
        self._index = svs.Vamana.build(parameters, halves, svs.DistanceType.MIP, num_threads=CORES)

    def save(self, folder: Path) -> None:
        self._index.save(*(str(folder / part) for part in ("config", "graph", "data")))

    def _loader(self, folder: Path) -> Any:
        import svs

        return svs.VectorDataLoader(str(folder / "data"), svs.DataType.float16)

    def load(self, folder: Path, *, length: int) -> None:
        import svs

        graph = svs.GraphLoader(str(folder / "graph"))
        self._index = svs.Vamana(
            str(folder / "config"), graph, self._loader(folder), svs.DistanceType.MIP, num_threads=1
        )

    def prepare(self, *, limit: int, effort: int) -> Shortlist:
        search = self._searching(limit=limit, effort=effort, threads=1)
        return lambda prefix: search(prefix, limit)[0][0].view(np.int64)

    def prepare_batches(self, *, limit: int, effort: int, threads: int) -> Shortlist:
        search = self._searching(limit=limit, effort=effort, threads=threads)
        return lambda prefixes: search(prefixes, limit)[0].view(np.int64)

    def _searching(self, *, limit: int, effort: int, threads: int) -> Callable[..., Any]:
        if self._index.num_threads != threads:
            self._index.num_threads = threads
        self._index.search_window_size = max(effort, limit)
        search: Callable[..., Any] = self._index.search
        return search


class SvsLvqGraph(SvsGraph):
    """SVS with vectors compressed to 4 and 8 bits (LVQ4x8): on Intel's processors only."""

    variant: ClassVar[str] = "LVQ4x8"

    def build(self, vectors: Vectors, *, length: int) -> None:
        import svs

        parameters = svs.VamanaBuildParameters(**self.settings)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "vectors.fvecs")
            svs.write_vecs(vectors, path)
            loader = self._compressing(svs.VectorDataLoader(path, svs.DataType.float32, vectors.shape[1]), length)
            self._index = svs.Vamana.build(parameters, loader, svs.DistanceType.MIP, num_threads=CORES)

    def _compressing(self, vectors: Any, length: int) -> Any:
        import svs

        return svs.LVQLoader(vectors, primary=4, residual=8)

    def _loader(self, folder: Path) -> Any:
        import svs

        return svs.LVQLoader(str(folder / "data"))


class SvsLeanVecGraph(SvsLvqGraph):
    """SVS over whole codes that it reduces to the prefix's length and rescores itself: on Intel's processors only."""

    variant: ClassVar[str] = "LeanVec"
    rescores: ClassVar[bool] = True

    def _compressing(self, vectors: Any, length: int) -> Any:
        import svs

        return svs.LeanVecLoader(vectors, leanvec_dims=length)

    def _loader(self, folder: Path) -> Any:
        import svs

        return svs.LeanVecLoader(str(folder / "data"))


PREFIX_GRAPHS: dict[str, Sequence[type[PrefixGraph]]] = {
    "hnswlib+prefix": (HnswlibGraph,),
    "svs+prefix": (SvsGraph, SvsLvqGraph, SvsLeanVecGraph),
    "usearch+prefix": (UsearchGraph,),
    "faiss-hnsw+prefix": (FaissGraph,),
}
