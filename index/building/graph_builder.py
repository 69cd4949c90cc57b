"""Building a graph over one prefix, beside the indexes of the lengths."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.graph.vamana import (
    DEGREE,
    LINKS,
    SETTINGS,
    VECTORS,
    VamanaGraph,
    load,
    read_graph,
    save,
)
from eigenlens.index.faiss_engine.prefix_index import file_name
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.threads import allowed_threads

# Candidates while the links of a row are chosen, and how much shorter than a detour a link has to be.
_WINDOW, _ALPHA = 100, 0.95


class GraphBuilder:
    """Makes a graph of the first rows, and adds the last ones to it, as `Builder` does with FAISS's indexes.

    Memory: the prefixes in half precision twice, and the links; both twice while rows are added.

    Attributes:
        codes: that it reads.
        spec: what it builds.
    """

    def __init__(self, codes: Codes, spec: IndexSpec, *, scratch: Path) -> None:
        """Prepare an empty graph; files that are needed meanwhile are below `scratch`."""
        self.codes, self.spec = codes, spec
        self._scratch = scratch
        self._index: Any = None  # SVS's, from the first rows on

    @property
    def index(self) -> VamanaGraph:
        """The graph of what was added so far. SVS tells its links in files alone."""
        with self._temporary_directory() as directory:
            save(self._index, directory / "graph")
            return read_graph(directory / "graph", settings=directory / "graph" / SETTINGS)

    def add(self, start: int, stop: int) -> None:
        """Add the rows from start to stop; they come in the order of rows, most of them at once."""
        import svs

        if start == stop:
            return
        runs = [unit_prefix(codes, self.spec.length).astype(np.float16) for _, codes in self.codes.runs(start, stop)]
        vectors = np.concatenate(runs)
        del runs
        if self._index is not None:
            self._index = self._with_more_rows(vectors)
            return
        parameters = svs.VamanaBuildParameters(graph_max_degree=DEGREE, window_size=_WINDOW, alpha=_ALPHA)
        self._index = svs.Vamana.build(parameters, vectors, svs.DistanceType.MIP, num_threads=allowed_threads())

    def write(self, directory: Path) -> int:
        """Write the graph below a directory. Returns: bytes that were written."""
        path = directory / file_name(self.spec)
        save(self._index, path)
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    def _with_more_rows(self, vectors: NDArray[np.float16]) -> Any:
        """Return the graph with more rows, (m, length), at its end: SVS adds rows only to a graph of another class."""
        import svs

        count = int(self._index.size)
        with self._temporary_directory() as directory:
            first, second = directory / "first", directory / "second"
            save(self._index, first)
            self._index = None
            growing = svs.DynamicVamana(
                str(first / SETTINGS),
                svs.GraphLoader(str(first / LINKS)),
                svs.VectorDataLoader(str(first / VECTORS), svs.DataType.float16),
                svs.DistanceType.MIP,
                svs.DataType.float32,
                num_threads=allowed_threads(),
                debug_load_from_static=True,
            )
            growing.add(vectors.astype(np.float32), np.arange(count, count + len(vectors), dtype=np.uint64))
            save(growing, second)
            del growing
            # A graph from which nothing was removed numbers its rows as they came.
            return load(second, settings=first / SETTINGS)

    @contextmanager
    def _temporary_directory(self) -> Iterator[Path]:
        directory = Path(tempfile.mkdtemp(prefix="graph-", dir=self._scratch))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
