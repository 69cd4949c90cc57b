"""The interface between the service and a search engine: codes, a plan and a filter in, keys and cosines out.

`index/live/engine.py` implements it with FAISS. A further engine is one more folder that implements it.
`tests/index/live/test_engines.py` runs over every engine and compares its results with exact search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.eigenfunctions import Eigenfunctions
from eigenlens.index.codes.similarities import NearestSimilarities
from eigenlens.index.codes.typicality import Typicality
from eigenlens.index.filters.parse import Filter
from eigenlens.index.plans.calibration import Calibration
from eigenlens.index.plans.plan import Plan
from eigenlens.index.plans.reach import Reach

# Keys of images and the cosines of their codes with the query's: best first, and the smaller key first among equals.
Neighbors = list[tuple[int, float]]


@dataclass(frozen=True)
class IndexDescription:
    """Properties of the index of one prefix length.

    Attributes:
        length: leading coordinates that the index holds.
        kind: name of the index kind, as in a plan.
        bytes: size on disk; 0 if searches read the codes themselves.
        max_effort: the effort at which a search compares every code; None if the kind has no effort.
        lossy: whether the index stores codes approximately, so that its results are always rescored.
    """

    length: int
    kind: str
    bytes: int
    max_effort: int | None
    lossy: bool


class Indexes(Protocol):
    """The indexes that a plan is chosen among, and the calibration of their plans."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """The prefix lengths that can be searched, ascending; the last is the full code length."""

    @property
    def code_length(self) -> int:
        """Coordinates of a full code."""

    @property
    def keys(self) -> NDArray[np.int64]:
        """Keys (n,) of the images in the build, removed ones included; similar images are close in this order."""

    @property
    def calibration(self) -> Calibration:
        """Measured recall and latency of plans."""

    @property
    def added_ms(self) -> float:
        """Milliseconds that a search takes longer because of images that were added since the build, as measured."""

    @property
    def graph(self) -> IndexDescription | None:
        """A graph over a prefix, beside the indexes of the lengths, for searches without a filter; None without one."""

    def describe(self, length: int) -> IndexDescription:
        """Describe the index of a prefix length. Raises: PrefixLengthError, which lists the lengths that were built."""


class Engine(Indexes, Protocol):
    """A searchable set of codes, each stored under the key of its image. Several threads may call all methods at once.

    The next search after `add` finds the added images; the next search after `remove` no longer finds the removed ones.
    """

    @property
    def encoder_id(self) -> str:
        """Id of the encoder that made the codes."""

    @property
    def device(self) -> str:
        """Name of the device that searches, as calibrations record it: "cpu" or "gpu"."""

    @property
    def is_remote(self) -> bool:
        """Whether another process searches, whose answers are waited for."""

    @property
    def fields(self) -> Mapping[str, Sequence[str]]:
        """Metadata fields that a filter can use, each with the types of its values."""

    @property
    def eigenfunctions(self) -> Eigenfunctions | None:
        """Statistics of each coordinate over the build, and example images; None if the build did not keep them."""

    @property
    def similarities(self) -> NearestSimilarities | None:
        """How near the images of the build are to their nearest other; None where that was not measured."""

    @property
    def typicality(self) -> Typicality | None:
        """How far the codes of the build lie from their centre; None where that was not measured."""

    @property
    def added(self) -> int:
        """Number of images that were added since the build."""

    @property
    def removed(self) -> int:
        """Number of images that were removed or replaced since the build."""

    def __len__(self) -> int:
        """Count the images that a search can return."""

    def search(
        self, codes: NDArray[np.float32], *, plan: Plan, k: int, filter: Filter | None = None
    ) -> list[Neighbors]:
        """Return the k nearest images of each code, best first; fewer only where fewer may be returned.

        Results for a smaller k are the first of those for a larger one, as long as the plan is the same and nothing
        changes: pages fit together.

        Args:
            codes: full codes, (q, code_length), of any norm; the engine slices and normalises the prefixes.
            plan: how to search, as a PlanChooser returns it; its prefix length is one of `lengths`.
            filter: which images may be returned; all if None.

        Raises: PrefixLengthError; ResultCountError; CodesError.
        """

    def reach(self, codes: NDArray[np.float32], *, k: int, filter: Filter | None = None) -> list[Reach | None]:
        """Estimate how many of the nearest images of each code hold k that may be returned.

        It is k where all may be. A filter that has nothing to do with the query makes it k divided by the filter's
        share; one that leaves only images far from the query, many times that. A plan is chosen for so many results.
        None, where every image that may be returned is scored, whatever the plan.

        Args:
            codes: full codes, (q, code_length).
            filter: which images may be returned; all that were not removed when None.
        """

    def codes_of(self, keys: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Return the full code (code_length,) of each key; unknown keys are left out."""

    def leading(self, width: int) -> NDArray[np.float32]:
        """Return the first coordinates of the build's unit codes, (n, width), in the order of `keys`."""

    def add(self, keys: Sequence[int], codes: NDArray[np.float32], metadata: Sequence[Mapping[str, Any]]) -> None:
        """Add the codes (m, code_length) and metadata of images; a key that the engine already holds is unchanged."""

    def remove(self, keys: Sequence[int]) -> None:
        """Remove images from all later searches; unknown keys are ignored."""

    def warm_up(self) -> None:
        """Open the files that a default search needs, so that the first search does not wait for them."""
