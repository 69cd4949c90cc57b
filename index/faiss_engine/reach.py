"""How far a search has to reach: how many of the nearest rows it has to see to see k that it may return.

A filter that has nothing to do with the query leaves its share of any neighbourhood. One that is about the query leaves
all of it, or none. The lists of an index tell which: from the nearest on, each has so many rows, of which so many are
selected. That takes one multiplication of the query with the centroids, and no row is looked at.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.kinds import graph_of_lists
from eigenlens.index.filters.selection import Selection

# Of lists with a graph over them only so many are ordered; a search that has to reach further sees everything.
_MAX_ORDERED_LISTS = 512
# Standard deviations below the share of all rows at which a share of some is no accident.
_CLEARLY = 3.0


class ReachEstimator:
    """Estimates reach from the inverted lists of one prefix length. Several threads may ask at once."""

    def __init__(self, index: faiss.Index, length: int) -> None:
        """Take the lists of an IndexIVF over prefixes of `length`."""
        self._length, self._quantizer, self._count = length, index.quantizer, int(index.ntotal)
        self._ordered = int(index.nlist)
        if graph_of_lists(index) is not None:
            self._ordered = min(self._ordered, _MAX_ORDERED_LISTS)
        self._parameters = (
            None if graph_of_lists(index) is None else faiss.SearchParametersHNSW(efSearch=2 * self._ordered)
        )
        self._list_of_row = _lists_of_rows(index)
        self._sizes = np.bincount(self._list_of_row, minlength=int(index.nlist))
        self._selected: WeakKeyDictionary[Selection, NDArray[np.int64]] = WeakKeyDictionary()

    def estimate(self, queries: NDArray[np.float32], selection: Selection, *, k: int) -> NDArray[np.int64]:
        """Return for each query how many of the nearest rows hold k that are selected, (q,); all where fewer are.

        Args:
            queries: codes, (q, at least length).
        """
        counts = self._selected.get(selection)
        if counts is None:
            counts = np.bincount(self._list_of_row[selection.mask], minlength=len(self._sizes))
            self._selected[selection] = counts
        _, lists = self._quantizer.search(unit_prefix(queries, self._length), self._ordered, params=self._parameters)
        rows = self._sizes[lists].cumsum(axis=1)
        selected = counts[lists].cumsum(axis=1)
        selected_share = counts.sum() / max(1, self._sizes.sum())
        reaches = np.full(len(queries), self._count, dtype=np.int64)
        for query in np.flatnonzero(selected[:, -1] >= k):
            # In the list that holds the k-th, selected rows are taken to be spread evenly.
            last = int(np.searchsorted(selected[query], k))
            rows_before, selected_before = (rows[query, last - 1], selected[query, last - 1]) if last else (0, 0)
            share = (k - selected_before) / (selected[query, last] - selected_before)
            reaches[query] = max(k, np.ceil(rows_before + share * (rows[query, last] - rows_before)))
            # Where clearly fewer rows are selected than elsewhere, the filter is against the query: those of its lists
            # that are selected are the farther ones. All rows of these lists and of the next may be nearer.
            seen = int(rows[query, last])
            deviation = np.sqrt(selected_share * (1 - selected_share) / seen)
            if selected[query, last] / seen < selected_share - _CLEARLY * deviation:
                reaches[query] = rows[query, min(last + 1, self._ordered - 1)]
        return reaches


def _lists_of_rows(index: faiss.Index) -> NDArray[np.int32]:
    """Return the list of each row, (n,); one of them where it is in two."""
    lists = np.zeros(int(index.ntotal), dtype=np.int32)
    inverted = index.invlists
    for number in range(int(index.nlist)):
        size = int(inverted.list_size(number))
        if size:
            lists[faiss.rev_swig_ptr(inverted.get_ids(number), size)] = number
    return lists
