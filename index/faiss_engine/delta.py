"""What no generation holds yet: codes added since, searched exactly and visible to the very next search."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import Floats, unit_prefix
from eigenlens.index.filters.parse import Filter, matches

_FIRST_CAPACITY = 1024
# A query's prefix and a stored one of less than this norm count as zeros: their cosine is 0.
_TINY = 1e-20


@dataclass(frozen=True)
class _View:
    """What a reader sees: the first `count` places of arrays that only ever grow."""

    count: int
    codes: NDArray[np.float32]
    norms: NDArray[np.float32]
    keys: NDArray[np.int64]
    present: NDArray[np.bool_]


class Delta:
    """Codes in memory, in the order in which they came. One writer at a time; readers never wait.

    Memory: 4 bytes a coordinate and some.
    """

    def __init__(self, code_length: int, lengths: Sequence[int]) -> None:
        """For codes of `code_length`; searches at `lengths` find their norms computed."""
        self._columns = {length: column for column, length in enumerate(lengths)}
        self._metadata: list[Mapping[str, Any]] = []
        self._places: dict[int, int] = {}
        self._writing = threading.Lock()
        self._view = _View(
            count=0,
            codes=np.empty((0, code_length), dtype=np.float32),
            norms=np.empty((0, len(self._columns)), dtype=np.float32),
            keys=np.empty(0, dtype=np.int64),
            present=np.empty(0, dtype=bool),
        )

    def __len__(self) -> int:
        """Images in it, without those that were removed."""
        return len(self._places)

    def add(self, keys: Sequence[int], codes: Floats, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Add codes (m, code_length) of images; keys that are there already are left as they are."""
        with self._writing:
            fresh = [place for place, key in enumerate(keys) if key not in self._places]
            if not fresh:
                return
            view, start = self._view, self._view.count
            end = start + len(fresh)
            if end > len(view.keys):
                view = _grown(view, max(_FIRST_CAPACITY, 2 * end))
            unit = unit_prefix(np.asarray(codes)[fresh], view.codes.shape[1])
            view.codes[start:end] = unit
            for length, column in self._columns.items():
                view.norms[start:end, column] = np.linalg.norm(unit[:, :length], axis=1)
            view.keys[start:end] = [keys[place] for place in fresh]
            view.present[start:end] = True
            self._metadata.extend(metadata[place] for place in fresh)
            self._places.update({int(keys[place]): start + number for number, place in enumerate(fresh)})
            self._view = _View(end, view.codes, view.norms, view.keys, view.present)  # seen whole or not at all

    def remove(self, key: int) -> bool:
        """Never return the image again. Returns: whether it was there."""
        with self._writing:
            place = self._places.pop(key, None)
            if place is not None:
                self._view.present[place] = False
            return place is not None

    def code_of(self, key: int) -> NDArray[np.float32] | None:
        """The code of an image, (code_length,); None if it is not here."""
        place = self._places.get(key)
        return None if place is None else self._view.codes[place].copy()

    def search(
        self, query: NDArray[np.float32], *, length: int, k: int, filter: Filter | None = None
    ) -> list[tuple[int, float]]:
        """Keys and cosines of the k best by the first `length` coordinates, best first.

        Args:
            query: one code, (code_length,).
            filter: which images may be returned; all when None.
        """
        view = self._view
        if view.count == 0:
            return []
        codes = view.codes[: view.count]
        column = self._columns.get(length)
        norms = np.linalg.norm(codes[:, :length], axis=1) if column is None else view.norms[: view.count, column]
        scores = codes[:, :length] @ unit_prefix(query[None], length)[0]
        scores = np.where(norms > _TINY, scores / np.maximum(norms, _TINY), 0)
        places = np.flatnonzero(view.present[: view.count])
        found: list[tuple[int, float]] = []
        # The best few first: sorting everything, or filtering everything, is seldom needed.
        wanted = 4 * k
        while True:
            best = places
            if wanted < len(places):
                best = places[np.argpartition(-scores[places], wanted)[:wanted]]
            best = best[np.argsort(-scores[best], kind="stable")]
            found = [
                (int(view.keys[place]), float(scores[place]))
                for place in best
                if filter is None or matches(filter, self._metadata[place])
            ]
            if len(found) >= k or wanted >= len(places):
                return found[:k]
            wanted *= 8


def _grown(view: _View, capacity: int) -> _View:
    def larger(array: NDArray[Any]) -> NDArray[Any]:
        grown = np.zeros((capacity, *array.shape[1:]), dtype=array.dtype)
        grown[: view.count] = array[: view.count]
        return grown

    return _View(view.count, larger(view.codes), larger(view.norms), larger(view.keys), larger(view.present))
