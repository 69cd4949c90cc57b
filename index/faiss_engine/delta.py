"""The delta: codes that were added since the generation was built, searched exactly, from the next search on."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import Floats, unit_prefix
from eigenlens.index.filters.parse import Filter, matches

_FIRST_CAPACITY = 1024
_MASK_CACHE_SIZE = 16
# A prefix of a smaller norm than this counts as zero: its cosine with any other is 0.
_TINY = 1e-20


@dataclass(frozen=True)
class _View:
    """What a reader sees: the first `count` rows of arrays that only ever grow."""

    count: int
    codes: NDArray[np.float32]
    norms: NDArray[np.float32]
    keys: NDArray[np.int64]
    present: NDArray[np.bool_]


class Delta:
    """Codes in memory, in the order of their arrival. One writer at a time; readers never wait.

    Memory: a little more than 4 bytes a coordinate.
    """

    def __init__(self, code_length: int, lengths: Sequence[int]) -> None:
        """Start empty, for codes of `code_length`; `add` computes the norms of their prefixes of `lengths`."""
        self._columns = {length: column for column, length in enumerate(lengths)}
        self._metadata: list[Mapping[str, Any]] = []
        self._places: dict[int, int] = {}
        self._writing = threading.Lock()
        self._filtering = threading.Lock()
        self._masks: LRUCache[Filter, NDArray[np.bool_]] = LRUCache(_MASK_CACHE_SIZE)
        self._view = _View(
            count=0,
            codes=np.empty((0, code_length), dtype=np.float32),
            norms=np.empty((0, len(self._columns)), dtype=np.float32),
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
                view.norms[start:end, column] = np.linalg.norm(unit[:, :length], axis=1)
            view.keys[start:end] = [keys[i] for i in new]
            view.present[start:end] = True
            self._metadata.extend(metadata[i] for i in new)
            self._places.update({int(keys[i]): row for row, i in enumerate(new, start)})
            self._view = _View(end, view.codes, view.norms, view.keys, view.present)  # readers see all of it or none

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
        norms = np.linalg.norm(codes[:, :length], axis=1) if column is None else view.norms[: view.count, column]
        scores = codes[:, :length] @ unit_prefix(query[None], length)[0]
        scores = np.where(norms > _TINY, scores / np.maximum(norms, _TINY), 0)
        rows = np.flatnonzero(view.present[: view.count] & self._mask(filter, view.count))
        if len(rows) > k:  # all that score as high as the k-th: keys decide among equals
            kth = np.partition(scores[rows], len(rows) - k)[len(rows) - k]
            rows = rows[scores[rows] >= kth]
        best = rows[np.lexsort((view.keys[rows], -scores[rows]))][:k]
        return list(zip(view.keys[best].tolist(), scores[best].tolist(), strict=True))

    def _mask(self, filter: Filter | None, count: int) -> NDArray[np.bool_]:
        """Return whether each of the first `count` images satisfies the filter, (count,); kept for the next search."""
        if filter is None:
            return np.ones(count, dtype=bool)
        with self._filtering:
            mask = self._masks.get(filter, np.empty(0, dtype=bool))
            if len(mask) < count:
                more = [matches(filter, metadata) for metadata in self._metadata[len(mask) : count]]
                mask = np.concatenate([mask, np.array(more, dtype=bool)])
                self._masks[filter] = mask
        return mask[:count]


def _grown(view: _View, capacity: int) -> _View:
    def larger(array: NDArray[Any]) -> NDArray[Any]:
        grown = np.zeros((capacity, *array.shape[1:]), dtype=array.dtype)
        grown[: view.count] = array[: view.count]
        return grown

    return _View(view.count, larger(view.codes), larger(view.norms), larger(view.keys), larger(view.present))
