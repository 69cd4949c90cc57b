"""The delta: codes that were added since the generation was built, searched exactly, from the next search on."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import Floats, unit_prefix
from eigenlens.index.filters.growing_columns import GrowingColumns
from eigenlens.index.filters.masks import coordinate_of
from eigenlens.index.filters.parse import Filter

_FIRST_CAPACITY = 1024
# A search is timed when there are so many images, and again each time that there are a quarter more. Fewer take less
# time than can be told.
_FIRST_TIMED, _TIMED_GROWTH, _TIMED_SEARCHES = 1000, 1.25, 3
_MASK_CACHE_SIZE = 16
# A prefix of a smaller norm than this counts as zero: its cosine with any other is 0.
_TINY = 1e-20


@dataclass(frozen=True)
class _View:
    """What a reader sees: the first `count` rows of arrays that only ever grow."""

    count: int
    codes: NDArray[np.float32]
    inverse_norms: NDArray[np.float32]
    keys: NDArray[np.int64]
    present: NDArray[np.bool_]


class Delta:
    """Codes in memory, in the order of their arrival. One writer at a time; readers never wait.

    Memory: a little more than 4 bytes a coordinate, and some tens of bytes a value of their metadata.

    Attributes:
        search_ms: milliseconds that a search takes, as it was timed while codes were added; 0 for few of them.
    """

    def __init__(self, code_length: int, lengths: Sequence[int]) -> None:
        """Start empty, for codes of `code_length`; `add` computes the norms of their prefixes of `lengths`."""
        self._columns = {length: column for column, length in enumerate(lengths)}
        self._attributes = GrowingColumns()
        self.search_ms = 0.0
        self._next_timed = _FIRST_TIMED
        self._places: dict[int, int] = {}
        self._writing = threading.Lock()
        self._filtering = threading.Lock()
        self._masks: LRUCache[Filter, NDArray[np.bool_]] = LRUCache(_MASK_CACHE_SIZE)
        self._view = _View(
            count=0,
            codes=np.empty((0, code_length), dtype=np.float32),
            inverse_norms=np.empty((0, len(self._columns)), dtype=np.float32),
            keys=np.empty(0, dtype=np.int64),
            present=np.empty(0, dtype=bool),
        )

    def __len__(self) -> int:
        """Count the images, without the removed ones."""
        return len(self._places)

    def add(self, keys: Sequence[int], codes: Floats, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Add codes (m, code_length) of images; a key that is there already is unchanged."""
        with self._writing:
            new = [i for i, key in enumerate(keys) if key not in self._places]
            if not new:
                return
            view, start = self._view, self._view.count
            end = start + len(new)
            if end > len(view.keys):
                view = _grown(view, max(_FIRST_CAPACITY, 2 * end))
            unit = unit_prefix(np.asarray(codes)[new], view.codes.shape[1])
            view.codes[start:end] = unit
            for length, column in self._columns.items():
                view.inverse_norms[start:end, column] = _inverse_norms(unit[:, :length])
            view.keys[start:end] = [keys[i] for i in new]
            view.present[start:end] = True
            self._attributes.add([metadata[i] for i in new])
            self._places.update({int(keys[i]): row for row, i in enumerate(new, start)})
            # Readers see all of it or none.
            self._view = _View(end, view.codes, view.inverse_norms, view.keys, view.present)
            if end >= self._next_timed:
                self.search_ms = self._time_search(unit[0])
                self._next_timed = int(_TIMED_GROWTH * end)

    def remove(self, key: int) -> bool:
        """Remove an image from all later searches. Returns: whether it was there."""
        with self._writing:
            row = self._places.pop(key, None)
            if row is not None:
                self._view.present[row] = False
            return row is not None

    def code_of(self, key: int) -> NDArray[np.float32] | None:
        """Return the code of an image, (code_length,); None if it is not here."""
        row = self._places.get(key)
        return None if row is None else self._view.codes[row].copy()

    def search(
        self, query: NDArray[np.float32], *, length: int, k: int, filter: Filter | None = None
    ) -> list[tuple[int, float]]:
        """Return keys and cosines of the k nearest by the first `length` coordinates: best first, then by key.

        Args:
            query: one code, (code_length,).
            filter: which images may be returned; all if None.
        """
        view = self._view
        if view.count == 0:
            return []
        codes = view.codes[: view.count]
        column = self._columns.get(length)
        scores = codes[:, :length] @ unit_prefix(query[None], length)[0]
        scores *= _inverse_norms(codes[:, :length]) if column is None else view.inverse_norms[: view.count, column]
        is_selected = view.present[: view.count]
        if filter is not None:
            is_selected = is_selected & self._mask(filter, view.count)
        count = int(np.count_nonzero(is_selected))
        if count < view.count:
            scores[~is_selected] = -np.inf
        if count > k:  # all that score as high as the k-th: keys decide among equals
            rows = np.flatnonzero(scores >= np.partition(scores, view.count - k)[view.count - k])
        else:
            rows = np.flatnonzero(is_selected)
        best = rows[np.lexsort((view.keys[rows], -scores[rows]))][:k]
        return list(zip(view.keys[best].tolist(), scores[best].tolist(), strict=True))

    def _mask(self, filter: Filter, count: int) -> NDArray[np.bool_]:
        """Return whether each of the first `count` images satisfies the filter, (count,); kept for the next search."""
        with self._filtering:
            mask = self._masks.get(filter, np.empty(0, dtype=bool))
            if (start := len(mask)) < count:
                codes = self._view.codes[start:count]
                more = self._attributes.mask(filter, start, count, partial(coordinate_of, codes))
                mask = np.concatenate([mask, more])
                self._masks[filter] = mask
        return mask[:count]

    def _time_search(self, query: NDArray[np.float32]) -> float:
        """Return the milliseconds of a search by all coordinates: the shortest of a few."""
        times = []
        for _ in range(_TIMED_SEARCHES):
            begun = time.perf_counter()
            self.search(query, length=len(query), k=10)
            times.append(1000 * (time.perf_counter() - begun))
        return min(times)


def _inverse_norms(codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what makes cosines of inner products, (n,): 0 for a code that counts as zero."""
    norms = np.linalg.norm(codes, axis=1)
    return np.where(norms > _TINY, 1 / np.maximum(norms, _TINY), 0).astype(np.float32)


def _grown(view: _View, capacity: int) -> _View:
    def larger(array: NDArray[Any]) -> NDArray[Any]:
        grown = np.zeros((capacity, *array.shape[1:]), dtype=array.dtype)
        grown[: view.count] = array[: view.count]
        return grown

    return _View(view.count, larger(view.codes), larger(view.inverse_norms), larger(view.keys), larger(view.present))
