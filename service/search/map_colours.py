"""Colours of the map: the commonest values of a metadata field, and which of them each image has."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eigenlens.service.gallery.store.protocol import Store

# More colours than this cannot be told apart.
MAX_VALUES = 10
_KEPT_FIELDS = 4


@dataclass(frozen=True)
class Legend:
    """The commonest values of a field.

    Attributes:
        values: the values as text, the commonest first.
        counts: number of images that have each.
        entries: (n,), the place in `values` of each image's own value; -1 for any other value, or none.
    """

    values: tuple[str, ...]
    counts: tuple[int, ...]
    entries: NDArray[np.int8]


class Colours:
    """Legends of the fields that were asked for last. Several threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._legends: dict[str, tuple[NDArray[np.int64], Legend]] = {}

    def forget(self) -> None:
        """Forget all legends, since images came or went."""
        self._legends = {}

    def legend(self, store: Store, field: str, *, keys: NDArray[np.int64]) -> Legend:
        """Return the legend of a field over images, whose keys (n,) are in any order."""
        with self._lock:  # others that ask for it wait instead of reading the same
            known = self._legends.get(field)
            if known is not None and known[0] is keys:
                return known[1]
            legend = _read(store, field, keys)
            kept = list(self._legends.items())[1 - _KEPT_FIELDS :]
            self._legends = dict([*kept, (field, (keys, legend))])
            return legend


def _read(store: Store, field: str, keys: NDArray[np.int64]) -> Legend:
    known, values = store.values_of(field)
    texts, codes, counts = np.unique(np.array(values, dtype=object), return_inverse=True, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:MAX_VALUES]
    entry_of = np.full(len(texts), -1, dtype=np.int8)
    entry_of[common] = np.arange(len(common), dtype=np.int8)
    entries = np.full(len(keys), -1, dtype=np.int8)
    if len(known):
        rows = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        entries = np.where(known[rows] == keys, entry_of[codes][rows], -1).astype(np.int8)
    return Legend(tuple(texts[common].tolist()), tuple(counts[common].tolist()), entries)
