"""The seam between the service and what searches for it: codes, a plan and a filter go in, keys and cosines come out.

`index/faiss_engine/engine.py` satisfies the protocol with FAISS. A further engine is one folder that satisfies it too;
the tests of `tests/index/test_engines.py` run over every engine and compare its results with exact search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.eigenfunctions import Eigenfunctions
from eigenlens.index.filters.parse import Filter
from eigenlens.index.plans.calibration import Calibration
from eigenlens.index.plans.plan import Plan

# Keys of images and the cosines of their codes with the query's, best first.
Neighbors = list[tuple[int, float]]


@dataclass(frozen=True)
class IndexDescription:
    """The index of one prefix length.

    Attributes:
        kind: its name, as in plans.
        bytes: on disk; 0 where the codes themselves are searched.
        max_effort: the effort at which it looks at everything; None where the kind has no effort.
        lossy: whether it keeps codes approximately, so that what it finds is always rescored.
    """

    length: int
    kind: str
    bytes: int
    max_effort: int | None
    lossy: bool


class Indexes(Protocol):
    """What a plan is chosen from: indexes of prefixes, and what calibration measured of them."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """The prefix lengths that can be searched, ascending; the last is the full code length."""

    @property
    def code_length(self) -> int:
        """Coordinates of a full code."""

    @property
    def calibration(self) -> Calibration:
        """Measured recall and latency of plans."""

    def describe(self, length: int) -> IndexDescription:
        """Describe the index of a prefix length. Raises: PrefixLengthError, which lists those that were built."""


class Engine(Indexes, Protocol):
    """A searchable set of codes, each under the key of an image. Every method may be called from several threads.

    An image that was added is found by the next search, one that was removed is not.
    """

    @property
    def encoder_id(self) -> str:
        """Id of the encoder whose codes these are."""

    @property
    def device(self) -> str:
        """Name of the device that searches, as calibrations record it: "cpu" or "gpu"."""

    @property
    def keys(self) -> NDArray[np.int64]:
        """Keys of the build (n,), in an order in which similar images are near each other; removed ones included."""

    @property
    def fields(self) -> Mapping[str, Sequence[str]]:
        """Metadata fields that can be filtered by, and the kinds of their values."""

    @property
    def eigenfunctions(self) -> Eigenfunctions | None:
        """What the coordinates look like over the build; None where that was not kept."""

    @property
    def added(self) -> int:
        """Images that were added since the build."""

    @property
    def removed(self) -> int:
        """Images that were removed or replaced since the build."""

    def __len__(self) -> int:
        """Count the images that can be found."""

    def search(
        self, codes: NDArray[np.float32], *, plan: Plan, k: int, filter: Filter | None = None
    ) -> list[Neighbors]:
        """Return the k nearest images of each code, best first; fewer where fewer were found.

        Args:
            codes: full codes, (q, code_length), of any norm; prefixes are sliced and normalised here.
            plan: of one of `lengths`, as a PlanChooser makes them.
            filter: which images may be returned; all when None.

        Raises: PrefixLengthError; ResultCountError; CodesError.
        """

    def codes_of(self, keys: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Return full codes (code_length,) by key; keys that are not here are left out."""

    def add(self, keys: Sequence[int], codes: NDArray[np.float32], metadata: Sequence[Mapping[str, Any]]) -> None:
        """Add codes (m, code_length) of images; keys that are here already are left as they are."""

    def remove(self, keys: Sequence[int]) -> None:
        """Never return these images again; keys that are not here are passed over."""

    def warm_up(self) -> None:
        """Open what a plain search needs, so that the first one does not wait for it."""
