"""A graph over one prefix, beside the indexes of the lengths: Vamana, built by Intel's library SVS (`scalable-vs`).

A search walks from neighbour to nearer neighbour and looks at some hundred prefixes. Over a short prefix that is the
quickest first pass for one query at a time: the codes' order puts what tells neighbours apart into few coordinates. The
graph cannot leave rows out, so that searches with a filter use the indexes of the lengths. SVS chooses the links; the
walk is this package's own (`walk`), compiled by Numba.

Source: Jayaram Subramanya et al., DiskANN: Fast Accurate Billion-point Nearest Neighbor Search on a Single Node,
NeurIPS 2019; Aguerrebere et al., Similarity search in the blink of an eye with compressed indices, VLDB 2023
(arXiv:2304.04759).
"""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import IndexKindError
from eigenlens.index.faiss_engine.kind import Kind
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning
from eigenlens.install import install_line

# Links of each row: with their number, 128 bytes, which is two lines of the processor's cache.
DEGREE = 31
# SVS keeps three directories: settings, links, vectors.
SETTINGS, LINKS, VECTORS = "settings", "links", "vectors"
# A longer list of candidates takes longer than a scan of the prefixes.
MAX_WINDOW = 10_000

# Of SVS's files of links and vectors, before the numbers.
_HEADER_BYTES = 1024
# Links that lead to each row, where its neighbours have slots left: as many for all as there is room for.
_ARRIVING = (2, 4, 8, 16, 24)
# Rows where a walk may begin.
_ENTRIES = 256
# Rows that are converted at once: what this takes meanwhile, the process may keep.
_CHUNK = 8192
_LINE = 64

Search = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]], bool]


class VamanaGraph:
    """An open graph over unit prefixes. Several threads may search at once.

    Attributes:
        d: coordinates of a prefix.
        ntotal: number of rows.
    """

    def __init__(self, links: NDArray[np.uint32], prefixes: NDArray[np.float16]) -> None:
        """Keep links (count, DEGREE + 1), each row's number of links before them, and compact prefixes (count, d).

        Raises: RuntimeError, for links that lead nowhere.
        """
        from eigenlens.index.faiss_engine.graph.links import link_back
        from eigenlens.index.faiss_engine.graph.walk import ENTRY_LENGTH, LINK_SLOTS, layout

        self.ntotal, self.d = int(prefixes.shape[0]), int(prefixes.shape[1])
        self._links = _in_lines((self.ntotal, LINK_SLOTS), np.uint32)
        self._links[:] = links
        if self.ntotal and (self._links[:, 0].max() > DEGREE or self._links[:, 1:].max() >= self.ntotal):
            raise RuntimeError("it has links to rows that are not there")
        link_back(self._links, np.array(_ARRIVING, np.uint32))
        wide, narrow = layout(self.d)
        chunks = [slice(start, start + _CHUNK) for start in range(0, self.ntotal, _CHUNK)]
        largest = np.max([np.abs(prefixes[chunk]).max(axis=0) for chunk in chunks], axis=0, initial=0)
        largest = np.maximum(largest[: wide + narrow].astype(np.float32), np.finfo(np.float32).tiny)
        self._scales = largest / np.repeat(np.array([2**15 - 1, 2**7 - 1], np.float32), (wide, narrow))
        self._narrow = _in_lines((self.ntotal, 2 * wide + narrow), np.int8)
        self._wide = self._narrow.view(np.int16)
        for chunk in chunks:
            stored = np.rint(prefixes[chunk, : wide + narrow].astype(np.float32) / self._scales)
            self._wide[chunk, :wide], self._narrow[chunk, 2 * wide :] = stored[:, :wide], stored[:, wide:]
        # Rows are in the order of clusters, so that rows at equal distances in it are in clusters of all kinds.
        self._entries = np.linspace(0, self.ntotal - 1, min(self.ntotal, _ENTRIES)).astype(np.uint32)
        first = min(ENTRY_LENGTH, wide + narrow)
        self._entry_prefixes = prefixes[self._entries, :first].astype(np.float32) / self._scales[:first]

    def searching(self, codes: NDArray[np.float16], *, window: int, shortlist: int) -> Search:
        """Return a function that searches for queries and writes what it finds into two arrays.

        search(queries, scores, rows): float32 (q, code_length), float32 (q, k) and int64 (q, k); see `walk`. It
        returns whether every query has k results, no two of which have the same score.

        Args:
            codes: of all rows, (count, code_length).
            window: candidates that a walk keeps.
            shortlist: how many of them are rescored by full codes; 0 for the inner products of unit prefixes.
        """
        from eigenlens.index.faiss_engine.graph.walk import StoredGraph, layout, search_graph

        half_precision = np.asarray(codes).view(np.uint16).reshape(-1)
        half_precision.flags.writeable = False
        graph = StoredGraph(
            narrow=self._narrow.reshape(-1),
            wide=self._wide.reshape(-1),
            links=self._links.reshape(-1),
            entries=self._entries,
            entry_prefixes=self._entry_prefixes.reshape(-1),
            scales=self._scales,
            length=self.d,
            wide_length=layout(self.d)[0],
            codes=half_precision,
        )

        def search(queries: NDArray[np.float32], scores: NDArray[np.float32], rows: NDArray[np.int64]) -> bool:
            # For arrays of another kind it would be compiled anew, which takes seconds.
            if not (queries.flags.c_contiguous and queries.flags.writeable):
                queries = queries.copy()
            return search_graph(queries, scores, rows, window, shortlist, graph)  # type: ignore[no-any-return]

        return search


def in_threads(
    search: Search, queries: NDArray[np.float32], k: int, *, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return what a search finds for queries (q, code_length), each (q, k), with a share of them for each thread."""
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    if threads < 2:
        search(queries, scores, rows)
        return scores, rows
    parts = [np.array_split(array, threads) for array in (queries, scores, rows)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(search, *parts))
    return scores, rows


@dataclass(frozen=True)
class VamanaKind(Kind):
    """A graph over prefixes of 16 and 8 bits a coordinate."""

    name: str = "vamana"
    encoding: str = ""
    lossy: bool = True

    effort: ClassVar[str | None] = "window"
    mapped: ClassVar[bool] = False
    min_measured_effort: ClassVar[int] = 10
    copies_while_built: ClassVar[int] = 2
    library: ClassVar[str] = "Eigenlens"
    suffix: ClassVar[str] = "svs"
    filters: ClassVar[bool] = False

    def read(self, path: Path) -> VamanaGraph:
        """Return the graph in a directory.

        Raises: IndexKindError, where Numba is not installed; RuntimeError, for what is no graph.
        """
        require_graph_search()
        return read_graph(path, settings=path / SETTINGS)

    def max_effort(self, index: VamanaGraph) -> int | None:
        return index.ntotal

    def max_shortlist(self, effort: int | None) -> int | None:
        return max(effort or 1, self.min_measured_effort)  # a longer shortlist would need more candidates

    def index_bytes(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> int:
        return count * (2 * length + 4 * (DEGREE + 1))


VAMANA = VamanaKind()


def has_numba() -> bool:
    """Whether Numba is installed, which compiles the walk, and the scan of a VA-file."""
    return importlib.util.find_spec("numba") is not None


def require_graph_search() -> None:
    """Raise IndexKindError, which says how to install Numba, unless it is there."""
    if not has_numba():
        raise IndexKindError(f"a graph over a prefix needs Numba, which is not installed: {install_line('svs')}")


def has_svs() -> bool:
    """Whether SVS is installed, which builds graphs."""
    return importlib.util.find_spec("svs") is not None


def require_svs() -> None:
    """Raise IndexKindError, which says how to install them, unless SVS and Numba are there: a build searches, too."""
    if not has_svs():
        raise IndexKindError(f"a graph over a prefix needs SVS, which is not installed: {install_line('svs')}")
    require_graph_search()


def save(index: Any, path: Path) -> None:
    """Write an index of SVS into a new directory."""
    directories = [path / name for name in (SETTINGS, LINKS, VECTORS)]
    for directory in directories:
        directory.mkdir(parents=True)
    index.save(*map(str, directories))


def load(path: Path, *, settings: Path) -> Any:
    """Return SVS's index of the links and vectors at `path`, with the settings of any graph that was built alike."""
    import svs

    vectors = svs.VectorDataLoader(str(path / VECTORS), svs.DataType.float16)
    return svs.Vamana(str(settings), svs.GraphLoader(str(path / LINKS)), vectors, svs.DistanceType.MIP, num_threads=1)


def read_graph(path: Path, *, settings: Path) -> VamanaGraph:
    """Return the graph whose links and vectors SVS wrote at `path`. Raises: RuntimeError, for what is no graph."""
    try:
        tomllib.loads((settings / "svs_config.toml").read_text())
        links = tomllib.loads((path / LINKS / "svs_config.toml").read_text())["object"]
        vectors = tomllib.loads((path / VECTORS / "svs_config.toml").read_text())["object"]
        count, length = int(links["num_vertices"]), int(vectors["dims"])
        slots = np.memmap(path / LINKS / links["binary_file"], np.uint32, "r", _HEADER_BYTES, (count, DEGREE + 1))
        prefixes = np.memmap(path / VECTORS / vectors["binary_file"], np.float16, "r", _HEADER_BYTES, (count, length))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(str(error)) from error
    return VamanaGraph(slots, prefixes)


def _in_lines(shape: tuple[int, int], dtype: type[np.generic]) -> NDArray[Any]:
    """Return an empty array that begins with a line of the processor's cache, in pages as large as the system has."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + size].view(dtype).reshape(shape)
