"""The kinds of FAISS index: how an index of each kind is made, read and searched.

Everything that depends on the kind is a method of it; no other module checks the class of a FAISS index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import faiss

from eigenlens.index.errors import IndexKindError
from eigenlens.index.faiss_engine.graph.vamana import VAMANA
from eigenlens.index.faiss_engine.kind import Kind, bytes_of_vectors
from eigenlens.index.faiss_engine.packed_lists import pack_lists
from eigenlens.index.faiss_engine.va_file.kind import VaFileKind
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

# k-means needs some tens of training vectors for each list.
_MIN_VECTORS_PER_LIST, _MAX_VECTORS_PER_LIST = 39, 64
_MAX_LISTS = 65_536
_KMEANS_STEPS = 8
_EF_CONSTRUCTION = 100
# Candidates that the graph over centroids keeps while codes are assigned to lists.
_EF_ASSIGNMENT = 24
# Fewer vectors do not train a product quantiser.
_MIN_CODES_FOR_PQ = 256
# FAISS's FastScan implementation that visits each query's own lists, nearest first: few queries at once share no lists.
_LIST_BY_LIST = 11
# Smallest and largest batch of Panorama, which stores vectors in batches and returns at most one batch of results.
# Large galleries get larger batches, since a batch costs as much as some hundreds of vectors.
_PANORAMA_BATCH, _MAX_PANORAMA_BATCH = 1024, 65_536
# Least number of larger batches: the last one is padded, and the first is scored in full if there is no bound yet.
_MIN_PANORAMA_BATCHES = 32
_BYTES_OF_ID = 8
_BYTES_OF_LINK = 4
# Codes that centroids were not trained on are less like them, so more of them have a second list.
_SPILLED_BEYOND_SHARE = 1.3


def list_count(count: int) -> int:
    """Return the number of inverted lists for `count` codes: a power of two near 4 sqrt(n), enough vectors in each."""
    lists = 1
    while lists * lists < 12 * count and 2 * lists * _MIN_VECTORS_PER_LIST <= count and lists < _MAX_LISTS:
        lists *= 2
    return lists


def graph_of_lists(index: faiss.Index) -> Any:
    """Return the graph (IndexHNSW) over the centroids of an index with very many lists; None without such a graph."""
    quantizer = faiss.downcast_index(index.quantizer) if isinstance(index, faiss.IndexIVF) else None
    return quantizer if isinstance(quantizer, faiss.IndexHNSW) else None


@dataclass(frozen=True)
class CodesKind(Kind):
    """The codes themselves, in half precision: no file, and the full length alone."""

    has_file: ClassVar[bool] = False
    scores_codes: ClassVar[bool] = True

    def index_bytes(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> int:
        return 0


@dataclass(frozen=True)
class PanoramaKind(Kind):
    """A scan that skips vectors as soon as they cannot reach a known lower bound of the results' scores."""

    mapped: ClassVar[bool] = False
    prunes: ClassVar[bool] = True
    max_results: ClassVar[int | None] = _PANORAMA_BATCH

    def factory(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> str:
        batch = _PANORAMA_BATCH
        while batch < _MAX_PANORAMA_BATCH and 2 * batch * _MIN_PANORAMA_BATCHES <= count:
            batch *= 2
        levels = next(levels for levels in (16, 8, 4, 2, 1) if length % levels == 0)
        return f"{self.encoding}{levels}_{batch}"


@dataclass(frozen=True)
class IvfKind(Kind):
    """Inverted lists, of which a search visits the nearest; very many lists have a graph over their centroids."""

    effort: ClassVar[str | None] = "nprobe"
    has_lists: ClassVar[bool] = True

    def factory(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> str:
        lists = list_count(count)
        # Centroids in half precision stay in the cache between searches, and quantise as well.
        graph = "(HNSW16,SQfp16)" if lists > tuning.max_scanned_lists else ""
        return f"IVF{lists}{graph},{self.encoding}"

    def create(self, count: int, length: int, *, seed: int = 0, tuning: Tuning = DEFAULT_TUNING) -> faiss.Index:
        index = super().create(count, length, seed=seed, tuning=tuning)
        clustering = index.cp
        clustering.niter, clustering.seed = _KMEANS_STEPS, seed + 1
        clustering.max_points_per_centroid = _MAX_VECTORS_PER_LIST
        clustering.min_points_per_centroid = 1  # it only warns, of galleries that are small on purpose
        graph = graph_of_lists(index)
        if graph is not None:
            graph.hnsw.efConstruction = _EF_CONSTRUCTION
            graph.hnsw.efSearch = _EF_ASSIGNMENT
        return index

    def max_effort(self, index: faiss.Index) -> int | None:
        return int(index.nlist)

    def without_graph(self, index: faiss.Index) -> faiss.Index:
        graph = graph_of_lists(index)
        if graph is None:
            return index
        centroids = faiss.IndexFlatIP(index.d)
        centroids.add(graph.reconstruct_n(0, graph.ntotal))
        scanned = self._with_centroids(index, centroids)
        scanned.replace_invlists(index.invlists, False)
        scanned.ntotal, scanned.is_trained = index.ntotal, True
        return scanned

    def _with_centroids(self, index: faiss.Index, centroids: faiss.Index) -> faiss.Index:
        """Return an empty index that encodes vectors as `index` does, with lists around other centroids."""
        return faiss.IndexIVFFlat(centroids, index.d, index.nlist, index.metric_type)

    def search_parameters(
        self, *, effort: int | None, selector: faiss.IDSelector | None
    ) -> faiss.SearchParameters | None:
        return self._parameters(
            nprobe=effort,
            # A graph over the lists keeps as many candidates as lists are visited; a scan ignores it.
            quantizer_params=faiss.SearchParametersHNSW(efSearch=effort),
            **({} if selector is None else {"sel": selector}),
        )

    def _parameters(self, **parameters: Any) -> faiss.SearchParameters:
        return faiss.SearchParametersIVF(**parameters)

    def index_bytes(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> int:
        index = self.create(count, length, tuning=tuning)
        listed, stored = self._entries(index, count, tuning)
        quantizer = faiss.downcast_index(index.quantizer)
        lists = int(index.nlist)
        centroids = (
            bytes_of_vectors(quantizer, lists) if graph_of_lists(index) is None else _bytes_of_graph(quantizer, lists)
        )
        return stored * int(index.code_size) + listed * _BYTES_OF_ID + centroids

    def _entries(self, index: faiss.Index, count: int, tuning: Tuning) -> tuple[int, int]:
        """Return how many entries the lists have, and how many they have space for."""
        return count, count


@dataclass(frozen=True)
class ScalarIvfKind(IvfKind):
    """Lists of vectors with each coordinate in 8 bits."""

    def _with_centroids(self, index: faiss.Index, centroids: faiss.Index) -> faiss.Index:
        same = faiss.IndexIVFScalarQuantizer(
            centroids, index.d, index.nlist, index.sq.qtype, index.metric_type, index.by_residual
        )
        same.sq = index.sq
        return same


@dataclass(frozen=True)
class RaBitQKind(IvfKind):
    """Lists of vectors with each coordinate in 1 bit."""

    def _parameters(self, **parameters: Any) -> faiss.SearchParameters:
        return faiss.IVFRaBitQSearchParameters(**parameters)


@dataclass(frozen=True)
class FastScanKind(IvfKind):
    """Lists of vectors with each coordinate in 4 bits, some vectors in two lists; float32 for a small gallery."""

    mapped: ClassVar[bool] = False
    copies_while_built: ClassVar[int] = 2  # lists get their last form from a first one

    def factory(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> str:
        lists = super().factory(count, length, tuning=tuning).removesuffix(self.encoding)
        # 4 bits of each coordinate of what its list's centroid leaves.
        return f"{lists}PQ{length}x4fsr" if count >= _MIN_CODES_FOR_PQ else f"{lists}Flat"

    def create(self, count: int, length: int, *, seed: int = 0, tuning: Tuning = DEFAULT_TUNING) -> faiss.Index:
        index = super().create(count, length, seed=seed, tuning=tuning)
        if self.finds_rows_twice(index):
            index.pq.cp.min_points_per_centroid = 1
        return index

    def read(self, path: Path) -> faiss.Index:
        index = super().read(path)
        if self.finds_rows_twice(index):
            pack_lists(index)
        return index

    def prepare_for_search(self, index: faiss.Index) -> None:
        if self.finds_rows_twice(index):
            index.implem = _LIST_BY_LIST

    def finds_rows_twice(self, index: faiss.Index) -> bool:
        return isinstance(index, faiss.IndexIVFPQFastScan)

    def _entries(self, index: faiss.Index, count: int, tuning: Tuning) -> tuple[int, int]:
        if not self.finds_rows_twice(index):
            return count, count
        listed = count + round(_SPILLED_BEYOND_SHARE * tuning.spilled_share * count)
        return listed, listed + int(index.nlist) * int(index.bbs) // 2  # the last block of each list is filled up


@dataclass(frozen=True)
class HnswKind(Kind):
    """A graph over the vectors; a search follows its links to ever nearer vectors."""

    effort: ClassVar[str | None] = "efSearch"
    min_measured_effort: ClassVar[int] = 10

    def create(self, count: int, length: int, *, seed: int = 0, tuning: Tuning = DEFAULT_TUNING) -> faiss.Index:
        index = super().create(count, length, seed=seed, tuning=tuning)
        index.hnsw.efConstruction = _EF_CONSTRUCTION
        return index

    def max_effort(self, index: faiss.Index) -> int | None:
        return int(index.ntotal)

    def max_shortlist(self, effort: int | None) -> int | None:
        return max(effort or 1, self.min_measured_effort)  # a longer shortlist would raise FAISS's efSearch

    def exhaustive_index(self, index: faiss.Index) -> tuple[faiss.Index, str] | None:
        # A graph may hold nodes that no path leads to, so a search that must visit everything scans its vectors.
        return faiss.downcast_index(index.storage), "sq8"

    def search_parameters(
        self, *, effort: int | None, selector: faiss.IDSelector | None
    ) -> faiss.SearchParameters | None:
        return faiss.SearchParametersHNSW(efSearch=effort, **({} if selector is None else {"sel": selector}))

    def index_bytes(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> int:
        return _bytes_of_graph(self.create(count, length, tuning=tuning), count)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("flat", "Flat", lossy=False, gpu=True),
        VaFileKind("va-file", "SQ8", lossy=False),
        PanoramaKind("panorama", "FlatIPPanorama", lossy=False),
        CodesKind("half", "SQfp16", lossy=True),
        Kind("sq8", "SQ8", lossy=True),
        IvfKind("ivf", "Flat", lossy=False, gpu=True),
        ScalarIvfKind("ivf-sq8", "SQ8", lossy=True, gpu=True),
        FastScanKind("ivf-pq", "PQ", lossy=True),
        RaBitQKind("ivf-rabitq", "RaBitQ", lossy=True),
        HnswKind("hnsw", "HNSW16,SQ8", lossy=True),
    )
}


def require_kind(name: str) -> Kind:
    """Return the kind with a name. Raises: IndexKindError, which lists those that a length can have."""
    if name == VAMANA.name:
        return VAMANA
    if name not in KINDS:
        raise IndexKindError(f"there is no index kind '{name}'; available: {', '.join(KINDS)}")
    return KINDS[name]


def _bytes_of_graph(index: faiss.Index, count: int) -> int:
    """Return the size of `count` vectors and of the graph over them."""
    # Each vector has 2 M links in the lowest level, and M in each level above that it is in (one vector in M is in the
    # next level); then its level (4 bytes) and its offset (8 bytes).
    m = int(index.hnsw.nb_neighbors(1))
    links = _BYTES_OF_LINK * (2 * m + m / (m - 1)) + 4 + 8
    return round(count * (int(faiss.downcast_index(index.storage).code_size) + links))
