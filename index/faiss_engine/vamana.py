"""A graph over one prefix, beside the indexes of the lengths: Vamana, by Intel's library SVS (`scalable-vs`).

A search walks from neighbour to nearer neighbour and looks at some hundred prefixes. Over a short prefix that is the
quickest first pass for one query at a time: the codes' order puts what tells neighbours apart into few coordinates. The
graph cannot leave rows out, so that searches with a filter use the indexes of the lengths.

Source: Jayaram Subramanya et al., DiskANN: Fast Accurate Billion-point Nearest Neighbor Search on a Single Node,
NeurIPS 2019; Aguerrebere et al., Similarity search in the blink of an eye with compressed indices, VLDB 2023
(arXiv:2304.04759).
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import IndexKindError
from eigenlens.index.faiss_engine.huge_pages import new_memory_in_huge_pages
from eigenlens.index.faiss_engine.kind import Kind
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning
from eigenlens.install import install_line

# Links of each row: with their number, 128 bytes, which is two lines of the processor's cache.
DEGREE = 31
# SVS keeps three directories: settings, links, vectors.
SETTINGS, LINKS, VECTORS = "settings", "links", "vectors"
# A longer list of candidates takes longer than a scan of the prefixes.
MAX_WINDOW = 10_000


class VamanaGraph:
    """An open graph over unit prefixes. Several threads may search at once; they take turns.

    Attributes:
        d: coordinates of a prefix.
        ntotal: number of rows.
    """

    def __init__(self, index: Any, *, d: int) -> None:
        """Search an index of SVS, over prefixes of `d` coordinates."""
        self.d, self.ntotal = d, int(index.size)
        self._index = index
        self._lock = threading.Lock()
        # Window and threads of the last search: setting them anew takes longer than comparing them.
        self._settings = 0, 0

    def search(
        self, prefixes: NDArray[np.float32], k: int, *, window: int, threads: int = 1
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return inner products and rows of the k nearest that are found, each (q, k), best first.

        Args:
            prefixes: (q, d), contiguous, of any norm.
            window: candidates that a search keeps, at least k.
        """
        rows, scores = self.walk(k, window=window, threads=threads)(prefixes)
        return scores, rows.view(np.int64)

    def walk(
        self, k: int, *, window: int, threads: int = 1
    ) -> Callable[[NDArray[np.float32]], tuple[NDArray[np.uint64], NDArray[np.float32]]]:
        """Return a function of prefixes (q, d) that finds the k nearest rows and their inner products, each (q, k)."""
        index, lock, settings = self._index, self._lock, (window, threads)

        def search(prefixes: NDArray[np.float32]) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
            with lock:
                if self._settings != settings:
                    index.search_window_size, index.num_threads = settings
                    self._settings = settings
                rows, scores = index.search(prefixes, k)
            return rows, scores

        return search


@dataclass(frozen=True)
class VamanaKind(Kind):
    """A graph over prefixes in half precision."""

    name: str = "vamana"
    encoding: str = ""
    lossy: bool = True

    effort: ClassVar[str | None] = "window"
    mapped: ClassVar[bool] = False
    min_measured_effort: ClassVar[int] = 10
    copies_while_built: ClassVar[int] = 2
    library: ClassVar[str] = "SVS"
    suffix: ClassVar[str] = "svs"
    filters: ClassVar[bool] = False

    def read(self, path: Path) -> VamanaGraph:
        """Return the graph in a directory.

        Raises: IndexKindError, where SVS is not installed; RuntimeError, for what SVS cannot read.
        """
        require_svs()
        with new_memory_in_huge_pages():
            index = load(path, settings=path / SETTINGS)
        return VamanaGraph(index, d=int(index.dimensions))

    def max_effort(self, index: VamanaGraph) -> int | None:
        return index.ntotal

    def max_shortlist(self, effort: int | None) -> int | None:
        return max(effort or 1, self.min_measured_effort)  # a longer shortlist would need more candidates

    def index_bytes(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> int:
        return count * (2 * length + 4 * (DEGREE + 1))


VAMANA = VamanaKind()


def has_svs() -> bool:
    """Whether SVS is installed."""
    return importlib.util.find_spec("svs") is not None


def require_svs() -> None:
    """Raise IndexKindError, which says how to install SVS, unless it is there."""
    if not has_svs():
        raise IndexKindError(f"a graph over a prefix needs SVS, which is not installed: {install_line('svs')}")


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
