"""What every kind of index has in common: how an index of it is made, read and searched, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import faiss

from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

_BYTES_OF_SUM = 4


@dataclass(frozen=True)
class Kind:
    """A kind of index: one that scans all vectors, unless a subclass says otherwise.

        kind = require_kind("ivf-sq8")
        index = kind.create(count=1_000_000, length=32)

    Attributes:
        name: as plans, manifests and the API call it.
        encoding: of the vectors, in FAISS's factory strings.
        lossy: whether it keeps codes approximately; what it finds is then always rescored from the codes themselves.
        gpu: whether FAISS can search it on a GPU.
        effort: what its effort counts: "nprobe" (lists visited), "efSearch" (candidates kept); None if it has none.
        has_file: whether an index has a file of its own; the codes themselves are the index otherwise.
        has_lists: whether vectors are in inverted lists.
        mapped: whether FAISS maps its file; one that it reads into memory is opened by the first search that needs it.
        prunes: whether, given a lower bound of the results' scores, it skips vectors that cannot reach it.
        max_results: largest number of results of one search; None without a limit.
        min_measured_effort: the smallest effort that a calibration measures.
        copies_while_built: number of copies of the index in memory at the end of its build.
        library: that reads it.
        suffix: of its file's name, or its directory's.
        is_remote: whether another process searches it.
        filters: whether a search can be limited to some rows.
        scores_codes: whether every search scores the codes themselves: it is for the full length alone.
    """

    name: str
    encoding: str
    lossy: bool
    gpu: bool = False

    effort: ClassVar[str | None] = None
    has_file: ClassVar[bool] = True
    has_lists: ClassVar[bool] = False
    mapped: ClassVar[bool] = True
    prunes: ClassVar[bool] = False
    max_results: ClassVar[int | None] = None
    min_measured_effort: ClassVar[int] = 1
    copies_while_built: ClassVar[int] = 1
    library: ClassVar[str] = "FAISS"
    suffix: ClassVar[str] = "faiss"
    is_remote: ClassVar[bool] = False
    filters: ClassVar[bool] = True
    scores_codes: ClassVar[bool] = False

    @property
    def exact(self) -> bool:
        """Whether it finds the true nearest neighbours by its prefix when it visits everything."""
        return not self.lossy or not self.has_file

    def factory(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> str:
        """Return FAISS's factory string for `count` codes of `length` coordinates."""
        return self.encoding

    def create(self, count: int, length: int, *, seed: int = 0, tuning: Tuning = DEFAULT_TUNING) -> faiss.Index:
        """Return an empty index for `count` codes of `length` coordinates, set up to be trained and filled."""
        return faiss.index_factory(length, self.factory(count, length, tuning=tuning), faiss.METRIC_INNER_PRODUCT)

    def read(self, path: Path) -> faiss.Index:
        """Return the index in a file. Raises: RuntimeError, as FAISS does, for a file that it cannot read."""
        # An index that is read into memory is not mapped as well: the pages would count as memory of this process too.
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if self.mapped else 0)

    def fits(self, index: faiss.Index, length: int) -> bool:
        """Whether an index is over prefixes of this length."""
        return bool(index.d == length)

    def prepare_for_search(self, index: faiss.Index) -> None:
        """Set what a filled index needs before its first search."""

    def max_effort(self, index: faiss.Index) -> int | None:
        """Return the effort at which a search compares every vector; None if the kind has no effort."""
        return None

    def max_shortlist(self, effort: int | None) -> int | None:
        """Return the longest shortlist that a search of this effort finds without working harder; None: any length."""
        return self.max_results

    def exhaustive_index(self, index: faiss.Index) -> tuple[faiss.Index, str] | None:
        """Return an index, and its kind, for searches that must visit everything; None if this index can do that."""
        return None

    def finds_rows_twice(self, index: faiss.Index) -> bool:
        """Whether a row can be in two lists of the index."""
        return False

    def without_graph(self, index: faiss.Index) -> faiss.Index:
        """Return the same index without the graph over its centroids, which no GPU can search."""
        return index

    def search_parameters(
        self, *, effort: int | None, selector: faiss.IDSelector | None
    ) -> faiss.SearchParameters | None:
        """Return FAISS's parameters for one call; a shared index itself is never changed."""
        return None if selector is None else faiss.SearchParameters(sel=selector)

    def index_bytes(self, count: int, length: int, *, tuning: Tuning = DEFAULT_TUNING) -> int:
        """Return the size of the file for `count` codes of `length` coordinates, to some percent."""
        return bytes_of_vectors(self.create(count, length, tuning=tuning), count)


def bytes_of_vectors(index: faiss.Index, count: int) -> int:
    """Return the size of `count` stored vectors, and of their sums if the index stores those (Panorama)."""
    sums = _BYTES_OF_SUM * (int(index.n_levels) + 1) if hasattr(index, "n_levels") else 0
    return count * (int(index.code_size) + sums)
