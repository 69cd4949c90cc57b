"""A second engine: plain numpy over all codes. It shows what a further engine has to do, and checks the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.engine import IndexDescription, Neighbors
from eigenlens.index.errors import CodesError, PrefixLengthError, ResultCountError
from eigenlens.index.filters.parse import Filter, kind_of, matches, scalars_of
from eigenlens.index.plans.calibration import Calibration, Measured, Recall
from eigenlens.index.plans.plan import Plan
from eigenlens.index.plans.reach import Reach

KIND = "numpy"


class NumpyEngine:
    """Scores every image for every query; satisfies `index.engine.Engine`."""

    device = "cpu"
    is_remote = False
    added_ms = 0.0
    eigenfunctions = similarities = typicality = graph = None

    def __init__(
        self,
        keys: Sequence[int],
        codes: NDArray[np.floating],
        metadata: Sequence[Mapping[str, Any]],
        *,
        lengths: Sequence[int],
        encoder_id: str,
    ) -> None:
        """Search codes (n, code_length) of images at `lengths`, of which the last is the code length."""
        self.encoder_id, self.lengths, self.code_length = encoder_id, tuple(lengths), lengths[-1]
        self.keys = np.asarray(keys, dtype=np.int64)
        self._codes = {int(key): np.asarray(code, np.float32) for key, code in zip(keys, codes, strict=True)}
        self._all = np.asarray(codes, np.float32).reshape(-1, self.code_length)
        self._metadata = dict(zip(self._codes, metadata, strict=True))
        self._built = frozenset(self._codes)
        times = dict.fromkeys(("p50", "p95", "p99"), 1.0)
        exact = Measured(Plan(self.code_length, KIND), {1: Recall(1.0, 1.0)}, times, 4.0 * self.code_length, exact=True)
        self.calibration = Calibration((exact,), efforts={}, queries=0)

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def added(self) -> int:
        """Images that were added since the build."""
        return len(self._codes.keys() - self._built)

    @property
    def removed(self) -> int:
        """Images that were removed since the build."""
        return len(self._built - self._codes.keys())

    @property
    def fields(self) -> dict[str, list[str]]:
        """Metadata fields, and the kinds of their values."""
        kinds: dict[str, set[str]] = {}
        for metadata in self._metadata.values():
            for field, value in metadata.items():
                kinds.setdefault(field, set()).update(kind_of(scalar) for scalar in scalars_of(value))
        return {field: sorted(of_field) for field, of_field in kinds.items()}

    def describe(self, length: int) -> IndexDescription:
        """Describe the index of a prefix length. Raises: PrefixLengthError."""
        if length not in self.lengths:
            raise PrefixLengthError(length, self.lengths)
        return IndexDescription(length, KIND, bytes=0, max_effort=None, lossy=False)

    def search(
        self, codes: NDArray[np.float32], *, plan: Plan, k: int, filter: Filter | None = None
    ) -> list[Neighbors]:
        """Return the k nearest images of each code, best first."""
        self.describe(plan.prefix_length)
        if k < 1:
            raise ResultCountError(f"k is {k}; ask for 1 result or more")
        if codes.shape[1:] != (self.code_length,) or not np.isfinite(codes).all():
            raise CodesError(f"queries have {self.code_length} finite coordinates")
        stored, metadata = self._codes, self._metadata
        unit = {key: code / (np.linalg.norm(code) or 1.0) for key, code in stored.items()}
        keys = [key for key in stored if filter is None or matches(filter, metadata[key], unit[key])]
        nearest = [self._rank(code, keys, stored, length=plan.prefix_length) for code in codes]
        if plan.rerank_length is not None:
            shortlists = [[key for key, _ in neighbors[: max(plan.shortlist or 0, k)]] for neighbors in nearest]
            pairs = zip(codes, shortlists, strict=True)
            nearest = [self._rank(code, shortlist, stored, length=plan.rerank_length) for code, shortlist in pairs]
        return [neighbors[:k] for neighbors in nearest]

    @staticmethod
    def _rank(
        code: NDArray[np.float32], keys: list[int], stored: Mapping[int, NDArray[np.float32]], *, length: int
    ) -> Neighbors:
        query = code[:length].astype(np.float64)
        norms = {key: np.linalg.norm(stored[key][:length]) * np.linalg.norm(query) for key in keys}
        scores = [(key, float(stored[key][:length] @ query / norm) if norm else 0.0) for key, norm in norms.items()]
        return sorted(scores, key=lambda neighbor: (-neighbor[1], neighbor[0]))

    def reach(self, codes: NDArray[np.float32], *, k: int, filter: Filter | None = None) -> list[Reach | None]:
        """None for each code: every image is scored."""
        return [None] * len(codes)

    def codes_of(self, keys: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Return full codes by key; keys that are not here are left out."""
        return {key: code for key, code in self._codes.items() if key in keys}

    def leading(self, width: int) -> NDArray[np.float32]:
        """Return the first coordinates of the build's unit codes, (n, width), in the order of `keys`."""
        return unit_prefix(self._all, self.code_length)[:, :width]

    def add(self, keys: Sequence[int], codes: NDArray[np.float32], metadata: Sequence[Mapping[str, Any]]) -> None:
        """Add codes of images; keys that are here already are left as they are."""
        for key, code, values in zip(keys, codes, metadata, strict=True):
            if key not in self._codes:
                self._metadata = {**self._metadata, key: values}
                self._codes = {**self._codes, key: np.asarray(code, np.float32)}

    def remove(self, keys: Sequence[int]) -> None:
        """Never return these images again."""
        self._codes = {key: code for key, code in self._codes.items() if key not in keys}

    def warm_up(self) -> None:
        """Nothing has to be opened."""
