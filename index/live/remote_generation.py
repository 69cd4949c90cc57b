"""A generation whose indexes another server has: its directory says what they take, and the server follows filters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.engine import IndexDescription
from eigenlens.index.errors import IndexKindError
from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.generation import BaseGeneration
from eigenlens.index.live.prefix_index import DrawnPrefixIndex
from eigenlens.index.live.sampled_reach import SampledReach
from eigenlens.index.plans.reach import Reach


class RemoteGeneration(BaseGeneration):
    """An open generation that a database searches, of which an engine implements the search.

    The codes artifact stays in the gallery's directory: builds, backups and the map read it in order, and a search
    only the keys of its results.
    """

    device = "cpu"
    is_remote = True

    def describe(self, length: int) -> IndexDescription:
        """Describe the index of a prefix length. Raises: PrefixLengthError."""
        index = self.prefix_index(length)
        return IndexDescription(length, index.spec.kind, self.bytes_of(length), index.max_effort, lossy=False)

    @abstractmethod
    def prefix_index(self, length: int) -> DrawnPrefixIndex:
        """Return the index of a prefix length, as calibration measures it. Raises: PrefixLengthError."""

    def bytes_of(self, length: int) -> int:
        """Return the bytes of an index, as the build recorded them; 0 for a scan. Raises: PrefixLengthError."""
        return int(self.artifact.properties["index_bytes"].get(str(self._spec(length).length), 0))

    def reaches(self, queries: NDArray[np.float32], selection: Selection, *, k: int) -> list[Reach]:
        """Return k for each query: a shortlist holds as many selected rows as it would without a filter.

        Under a filter against the query it has to hold more.
        """
        reaches = self._sampled_reach.estimate(queries, selection, k=k)
        return [replace(reach, share=selection.share) for reach in reaches]

    @cached_property
    def _sampled_reach(self) -> SampledReach:
        return SampledReach(self.codes)


def check_kinds(asked: Mapping[int, str], *, backend: str, kinds: Collection[str], lengths: Sequence[int]) -> None:
    """Check the kinds that are asked for. Raises: IndexKindError, for one of another backend or a length not built."""
    for length, kind in asked.items():
        if kind not in kinds:
            raise IndexKindError(f"{backend} has no index of kind '{kind}'; it has {', '.join(kinds)}")
        if length not in lengths:
            raise IndexKindError(
                f"kind '{kind}' for length {length}, which is not built: {', '.join(map(str, lengths))}"
            )
