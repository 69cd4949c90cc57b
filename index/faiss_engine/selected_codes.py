"""Exact search of the few rows that a filter leaves: their codes are copied together, and a scan of them is quick."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import faiss
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes, half_index
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.filters.selection import Selection
from eigenlens.index.threads import all_cores, use_all_threads

# Memory for copies of the selections that were searched last.
_CACHE_BYTES = 64 << 20
# Inner products with codes whose norm is 1 only up to rounding: a few more results, then the cosines decide.
_SPARE = 4


class SelectedCodes:
    """Scores all rows of small selections. Several threads may search at once."""

    def __init__(self, codes: Codes) -> None:
        """Search selections of these codes."""
        self._codes = codes
        self._lock = threading.Lock()
        self._copies: LRUCache[tuple[Selection, int], _Copy] = LRUCache(_CACHE_BYTES, getsizeof=_bytes_of)

    def search(
        self, queries: NDArray[np.float32], selection: Selection, *, length: int, k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return cosines and rows of the k nearest by the first `length` coordinates, each (q, min(k, rows)).

        Args:
            queries: codes, (q, code_length).
        """
        copy = self._copy_of(selection, length)
        limit = min(k + _SPARE, selection.count)
        with all_cores(use_all_threads(queries)):
            scores, places = copy.index.search(unit_prefix(queries, length), limit)
        rows = selection.rows[places]
        if copy.normalised:
            return scores[:, :k], rows[:, :k]
        scores /= self._codes.norms[rows]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _copy_of(self, selection: Selection, length: int) -> _Copy:
        key = selection, length
        with self._lock:
            copy = self._copies.get(key)
        if copy is None:
            copy = self._make_copy(selection, length)
            with self._lock:
                if _bytes_of(copy) <= _CACHE_BYTES:
                    self._copies[key] = copy
        return copy

    def _make_copy(self, selection: Selection, length: int) -> _Copy:
        codes = self._codes.take(selection.rows)
        if length == self._codes.code_length and not selection.mask[self._codes.unnormalised_rows].any():
            return _Copy(half_index(codes), codes, normalised=False)
        prefixes = unit_prefix(codes, length)
        index = faiss.IndexFlatIP(length)
        index.add(prefixes)
        return _Copy(index, prefixes[:0], normalised=True)


@dataclass(frozen=True)
class _Copy:
    """Codes of a selection as an index; `held` is what it reads. Scores of normalised ones are cosines."""

    index: faiss.Index
    held: NDArray[np.floating]
    normalised: bool


def _bytes_of(copy: _Copy) -> int:
    return int(copy.index.ntotal) * int(copy.index.code_size)
