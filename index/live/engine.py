"""The engine of a live gallery: a generation, a mask of the rows not removed, and the codes that were added since."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.eigenfunctions import Eigenfunctions
from eigenlens.index.codes.similarities import NearestSimilarities
from eigenlens.index.codes.typicality import Typicality
from eigenlens.index.engine import IndexDescription, Neighbors
from eigenlens.index.filters.parse import Filter
from eigenlens.index.filters.selection import Selection
from eigenlens.index.live.delta import Delta
from eigenlens.index.live.generation import BaseGeneration
from eigenlens.index.method_cache import cache_of
from eigenlens.index.plans.calibration import Calibration
from eigenlens.index.plans.plan import Plan
from eigenlens.index.plans.reach import Reach

_SELECTION_CACHE_SIZE = 16
# Results beyond k of which removed rows are dropped.
_SPARE = 8


class LiveEngine:
    """Searches a generation and the codes that were added since; implements `index.engine.Engine`.

    engine = LiveEngine(Generation(path, codes))
    nearest = engine.search(queries, plan=PlanChooser(engine).choose(PlanRequest(), k=10).plan, k=10)
    """

    def __init__(self, generation: BaseGeneration) -> None:
        """Search a generation, whichever engine has its indexes."""
        self.generation = generation
        self.encoder_id: str = generation.encoder_id
        self.code_length: int = generation.code_length
        self.lengths: tuple[int, ...] = generation.lengths
        self.calibration: Calibration = generation.calibration
        self.graph: IndexDescription | None = generation.graph
        self.keys: NDArray[np.int64] = generation.keys
        self.eigenfunctions: Eigenfunctions | None = generation.eigenfunctions
        self.similarities: NearestSimilarities | None = generation.similarities
        self.typicality: Typicality | None = generation.typicality
        self.fields: Mapping[str, Sequence[str]] = generation.attributes.fields
        self.device: str = generation.device
        self.is_remote: bool = generation.is_remote
        self._delta = Delta(generation.code_length, generation.lengths)
        self._present = np.ones(len(generation), dtype=bool)
        self._removed = 0
        self._lock = threading.Lock()
        self._cached_selection = cache_of(self._select, _SELECTION_CACHE_SIZE)

    def __len__(self) -> int:
        return len(self.generation) - self._removed + len(self._delta)

    @property
    def added(self) -> int:
        """Number of images that were added since the build."""
        return len(self._delta)

    @property
    def added_ms(self) -> float:
        """Milliseconds that a search takes longer because of images that were added since the build."""
        return self._delta.search_ms

    @property
    def removed(self) -> int:
        """Number of images that were removed or replaced since the build."""
        return self._removed

    def describe(self, length: int) -> IndexDescription:
        """Describe the index of a prefix length. Raises: PrefixLengthError."""
        return self.generation.describe(length)

    def search(
        self, codes: NDArray[np.float32], *, plan: Plan, k: int, filter: Filter | None = None
    ) -> list[Neighbors]:
        """Return the k nearest images of each code (q, code_length), best first, or all that match if they are fewer.

        Raises: PrefixLengthError; ResultCountError; CodesError.
        """
        length = plan.rerank_length or plan.prefix_length
        drops = filter is None and k > 0 and self._drops_removed
        selection = None if drops else self._selection(filter)
        # Search the delta first, so that no image is missed while a rebuild moves it into the generation.
        recent = [self._delta.search(code, length=length, k=k, filter=filter) for code in codes]
        if selection is not None and not selection.count:
            return recent
        if drops:
            scores, rows = self._search_and_drop(codes, plan=plan, k=k)
        else:
            scores, rows = self.generation.search(codes, plan=plan, k=k, selection=selection)
        keys = self.keys[rows].tolist()
        built = [
            [(key, score) for key, score, row in zip(*columns, strict=True) if row >= 0]
            for columns in zip(keys, scores.tolist(), rows.tolist(), strict=True)
        ]
        return [
            sorted(new + old, key=lambda neighbor: (-neighbor[1], neighbor[0]))[:k] if new else old
            for new, old in zip(recent, built, strict=True)
        ]

    @property
    def _drops_removed(self) -> bool:
        """Whether so few rows were removed that a search drops them from its results."""
        return 0 < self._removed <= self.generation.tuning.max_dropped_share * len(self._present)

    def _search_and_drop(
        self, codes: NDArray[np.float32], *, plan: Plan, k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and rows of the k nearest that were not removed, as Generation.search.

        The results for a smaller k are the first of those for a larger one: both are of the same shortlist.
        """
        present, count = self._present, len(self._present)
        limit = count if plan.ranked is None else min(plan.ranked, count)
        width = min(k + _SPARE, limit)
        while width >= k:
            scores, rows = self.generation.search(codes, plan=plan, k=width)
            is_kept = (rows >= 0) & present[rows]
            if (is_kept.sum(1) >= min(k, count - self._removed)).all():
                order = np.argsort(~is_kept, axis=1, kind="stable")[:, :k]
                is_kept = np.take_along_axis(is_kept, order, 1)
                rows = np.where(is_kept, np.take_along_axis(rows, order, 1), -1)
                return np.take_along_axis(scores, order, 1), rows
            if width == limit:
                break
            width = min(2 * width, limit)
        return self.generation.search(codes, plan=plan, k=k, selection=self._selection(None))

    def reach(self, codes: NDArray[np.float32], *, k: int, filter: Filter | None = None) -> list[Reach | None]:
        """Estimate how many of the nearest images of each code hold k that may be returned.

        None for all, where so few may be that each of them is scored.
        """
        selection = None if filter is None and self._drops_removed else self._selection(filter)
        if selection is None:
            return [Reach(k)] * len(codes)
        if self.generation.scores_directly(selection, k):
            return [None] * len(codes)
        return list(self.generation.reaches(codes, selection, k=k))

    def codes_of(self, keys: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Return the full code (code_length,) of each key; unknown keys are left out."""
        codes = self.generation.codes
        rows = codes.rows_of(np.asarray(keys, dtype=np.int64))
        stored = np.asarray(codes.codes[rows[rows >= 0]], dtype=np.float32)
        result = dict(zip(codes.keys[rows[rows >= 0]].tolist(), stored, strict=True))
        for position in np.flatnonzero(rows < 0):
            code = self._delta.code_of(keys[int(position)])
            if code is not None:
                result[keys[int(position)]] = code
        return result

    def leading(self, width: int) -> NDArray[np.float32]:
        """Return the first coordinates of the build's unit codes, (n, width), in the order of `keys`."""
        return self.generation.leading(width)

    def add(self, keys: Sequence[int], codes: NDArray[np.float32], metadata: Sequence[Mapping[str, Any]]) -> None:
        """Add the codes (m, code_length) and metadata of images; a key that the engine already holds is unchanged."""
        rows = self.generation.codes.rows_of(np.asarray(keys, dtype=np.int64))
        new = np.flatnonzero(rows < 0).tolist()
        if new:
            self._delta.add([keys[i] for i in new], np.asarray(codes)[new], [metadata[i] for i in new])

    def remove(self, keys: Sequence[int]) -> None:
        """Remove images from all later searches; unknown keys are ignored."""
        for key in keys:
            self._delta.remove(key)
        rows = self.generation.codes.rows_of(np.asarray(keys, dtype=np.int64))
        with self._lock:
            self._present[rows[rows >= 0]] = False
            self._removed = len(self._present) - int(np.count_nonzero(self._present))

    def warm_up(self) -> None:
        """Open the files that a default search needs, so that the first search does not wait for them."""
        self.generation.warm_up()

    def _selection(self, filter: Filter | None) -> Selection | None:
        """Return the rows that a search may return; None if it may return all."""
        if filter is not None:
            self.generation.check_filter(filter)
        removed = self._removed
        return None if removed == 0 and filter is None else self._cached_selection(removed, filter)

    def _select(self, _removed: int, filter: Filter | None) -> Selection:
        """Select rows. The number of removals is part of the cache's key, so an outdated selection is not reused."""
        with self._lock:
            present = self._present.copy()
        if filter is None:
            return Selection(present)
        mask = present & self.generation.attributes.mask(filter, self.generation.coordinate)
        return Selection(mask, filter=filter, is_all_of_filter=bool(present.all()))
