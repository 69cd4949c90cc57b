"""A generation, whichever engine searches it: its artifact, the codes that it was built from, and its metadata."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.eigenfunctions import Eigenfunctions
from eigenlens.index.codes.similarities import NearestSimilarities
from eigenlens.index.codes.typicality import Typicality
from eigenlens.index.engine import IndexDescription
from eigenlens.index.errors import CodesError, PrefixLengthError, ResultCountError
from eigenlens.index.filters.columns import Attributes
from eigenlens.index.filters.parse import Filter, require_coordinate
from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.prefix_index import AnyCompactCodes, AnyPrefixIndex
from eigenlens.index.method_cache import cache_of
from eigenlens.index.plans.calibration import Calibration
from eigenlens.index.plans.plan import IndexSpec, Optimise, Plan
from eigenlens.index.plans.reach import Reach
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

KIND = "generation"
# Columns of codes that filters used last stay in memory: 4 bytes an image each.
_KEPT_COORDINATES = 8


class BaseGeneration(ABC):
    """An open generation, of which an engine implements the search. Several threads may search at once.

    Attributes:
        specs: the index of each length, ascending.
        optimise: what the build was for.
        lengths: the prefix lengths that were built, ascending; the last is the full code length.
        requested_lengths: those that the build was asked for; None where an earlier version left out some of them.
        keys: (n,), int64: the gallery's key of each row.
        code_length: coordinates of a full code.
        calibration: measured recall and latency of the generation's plans.
        attributes: metadata of the rows, for filters.
        eigenfunctions: statistics of each coordinate; None in a generation that an earlier version built.
        similarities: of its images with their nearest other; None of very few images and of an earlier version.
        typicality: how far its codes lie from their centre; None likewise.
        compact: codes in fewer bits, which rescore shortlists; None of a build that is not for memory.
        is_remote: whether another process searches, whose answers are waited for.
        added_ms: milliseconds that images beside it take of a search: none.
    """

    added_ms = 0.0
    is_remote = False

    def __init__(self, path: Path, codes: Codes, *, verify: bool = True, tuning: Tuning = DEFAULT_TUNING) -> None:
        """Open the generation at `path` over the codes that it was built from.

        Args:
            verify: whether to compare the files with the hashes in the manifest.

        Raises: ArtifactError, which names a missing or damaged file; CodesError, if these are other codes.
        """
        self.artifact = artifact.read(path, kind=KIND, verify=verify)
        if self.artifact.made_from["codes"] != codes.id:
            raise CodesError(f"{path} was built from codes {self.artifact.made_from['codes']}, not from {codes.id}")
        self.codes, self.tuning = codes, tuning
        self.keys = codes.keys
        self.encoder_id, self.code_length = codes.encoder_id, codes.code_length
        self.specs = tuple(IndexSpec(**entry) for entry in self.artifact.properties["indexes"])
        self.lengths: tuple[int, ...] = tuple(spec.length for spec in self.specs)
        self.compact: AnyCompactCodes | None = None
        self.open_indexes()
        self.optimise: Optimise = self.artifact.properties.get("optimise", "memory")
        built = None if self.optimise == "build" else self.lengths
        self.requested_lengths: Sequence[int] | None = self.artifact.properties.get("lengths", built)
        self.calibration = Calibration.from_json(self.artifact.properties["calibration"])
        self._cached_coordinate = cache_of(self._read_coordinate, _KEPT_COORDINATES)
        self.attributes = Attributes(path, count=len(codes))
        has_eigenfunctions = Eigenfunctions.are_in(self.artifact)
        self.eigenfunctions = Eigenfunctions(self.artifact) if has_eigenfunctions else None
        similarities = self.artifact.properties.get("similarities")
        self.similarities = None if similarities is None else NearestSimilarities.from_json(similarities)
        self.typicality = Typicality(self.artifact) if Typicality.is_in(self.artifact) else None

    def __len__(self) -> int:
        return len(self.keys)

    def open_indexes(self) -> None:
        """Open what is opened before the rest is read, so that damage of an index is told first."""
        return

    @property
    def all_specs(self) -> tuple[IndexSpec, ...]:
        """The index of each length, and the graph."""
        return self.specs

    def open_index(self, spec: IndexSpec) -> AnyPrefixIndex:
        """Return an open index, one of `all_specs`. Raises: ArtifactError; SearchError."""
        return self.prefix_index(spec.length)

    def size_of(self, spec: IndexSpec) -> int:
        """Return the bytes of an index, one of `all_specs`."""
        return self.bytes_of(spec.length)

    @property
    def graph(self) -> IndexDescription | None:
        """The graph over a prefix, beside the indexes of the lengths; None without one."""
        return None

    @property
    @abstractmethod
    def device(self) -> str:
        """Name of the device that searches, as calibrations record it."""

    @abstractmethod
    def describe(self, length: int) -> IndexDescription:
        """Describe the index of a prefix length. Raises: PrefixLengthError."""

    @abstractmethod
    def bytes_of(self, length: int) -> int:
        """Return the bytes on disk of an index, 0 if it is the codes themselves. Raises: PrefixLengthError."""

    @abstractmethod
    def prefix_index(self, length: int) -> AnyPrefixIndex:
        """Return the index of a prefix length, as calibration measures it. Raises: PrefixLengthError."""

    def check(self) -> None:
        """Check that the engine has the indexes. Raises: SearchError, which says what to do."""
        return

    def check_filter(self, filter: Filter) -> None:
        """Check that the engine can compare what a filter does. Raises: FilterError, which says what can be."""
        return

    @abstractmethod
    def search(
        self, queries: NDArray[np.float32], *, plan: Plan, k: int, selection: Selection | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores (cosines) and rows of the k nearest, each (q, min(k, n)), best first; row -1 if fewer.

        Among equal scores the smaller key is first.

        Args:
            queries: codes, (q, code_length).
            selection: rows that may be returned; all if None. If it leaves few rows, all of them are scored exactly.

        Raises: PrefixLengthError; ResultCountError; CodesError.
        """

    @abstractmethod
    def reaches(self, queries: NDArray[np.float32], selection: Selection, *, k: int) -> list[Reach]:
        """Estimate for each query (q, code_length) how many of the nearest rows hold k that are selected."""

    def check_search(self, queries: NDArray[np.float32], k: int) -> None:
        """Check the arguments of a search. Raises: ResultCountError; CodesError."""
        if k < 1:
            raise ResultCountError(f"k is {k}; ask for 1 result or more")
        if queries.ndim != 2 or queries.shape[1] != self.code_length:
            raise CodesError(f"queries have shape {queries.shape}; codes here have {self.code_length} coordinates")
        # A finite sum of squares proves that all values are finite; an infinite one may be an overflow of large values.
        if not math.isfinite(np.vdot(queries, queries)) and not np.isfinite(queries).all():
            raise CodesError("queries hold values that are not finite; they have no nearest codes")

    def scores_directly(self, selection: Selection, k: int) -> bool:
        """Whether a search scores every row of a selection, whatever its plan."""
        return selection.count <= max(self.tuning.max_rows_scored_directly, k)

    def warm_up(self) -> None:
        """Open the index of the default plan, so that the first search does not wait for it."""
        self.search(self.codes.codes[:1].astype(np.float32), plan=self.calibration.choose(k=1).for_k(1), k=1)

    def leading(self, width: int) -> NDArray[np.float32]:
        """Return the first coordinates of all unit codes, (n, width)."""
        return self._unit(slice(width))

    def coordinate(self, number: int) -> NDArray[np.float32]:
        """Return one coordinate, counted from 1, of all unit codes, (n,). Raises: FilterError, if there are fewer."""
        require_coordinate(number, code_length=self.code_length)
        return self._cached_coordinate(number)

    def _read_coordinate(self, number: int) -> NDArray[np.float32]:
        return self._unit(slice(number - 1, number))[:, 0]

    def _unit(self, coordinates: slice) -> NDArray[np.float32]:
        """Read some coordinates of all unit codes, (n, width); the others are in memory for one run of rows only."""
        runs = [codes[:, coordinates].astype(np.float32) for _, codes in self.codes.runs(0, len(self))]
        values = np.concatenate(runs) if runs else np.empty((0, coordinates.stop), dtype=np.float32)
        return np.asarray(values / self.codes.norms[:, None], dtype=np.float32)

    def _spec(self, length: int) -> IndexSpec:
        if length not in self.lengths:
            raise PrefixLengthError(length, self.lengths)
        return self.specs[self.lengths.index(length)]
