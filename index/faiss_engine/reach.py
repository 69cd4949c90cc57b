"""How far a search has to reach: how many of the nearest rows it has to see to see k that it may return.

A filter that has nothing to do with the query leaves its share of any neighbourhood. One that is about the query leaves
all of it, or none. The lists of an index tell which: from the nearest on, each has so many rows, of which so many are
selected. That takes one multiplication of the query with the centroids, and no row is looked at.

Where clearly fewer rows are selected than elsewhere, the filter is against the query. The selected rows of near lists
are then those that are farther by the whole code than their list is by its prefix, so rows are looked at: the k-th best
score of some selected ones bounds how near the last result is, and a sample of all rows tells how many are nearer.
"""

from __future__ import annotations

from functools import cached_property
from weakref import WeakKeyDictionary

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.kinds import graph_of_lists
from eigenlens.index.filters.selection import Selection
from eigenlens.index.plans.calibration import COUNTS
from eigenlens.index.plans.reach import Reach, is_against

# Of lists with a graph over them only so many are ordered; a search that has to reach further sees everything.
_MAX_ORDERED_LISTS = 512
# Of so many times k selected rows in the nearest lists, the k best are nearly those of all.
_SCORED = 4
# Rows of a sample that tells how many are nearer than a score.
_SAMPLE = 1024


class ReachEstimator:
    """Estimates reach from the inverted lists of one prefix length. Several threads may ask at once."""

    def __init__(self, index: faiss.Index, length: int, codes: Codes) -> None:
        """Take the lists of an IndexIVF over prefixes of `length`, and the codes of its rows."""
        self._length, self._index, self._quantizer, self._codes = length, index, index.quantizer, codes
        self._count, self._ordered = int(index.ntotal), int(index.nlist)
        if graph_of_lists(index) is not None:
            self._ordered = min(self._ordered, _MAX_ORDERED_LISTS)
        self._parameters = (
            None if graph_of_lists(index) is None else faiss.SearchParametersHNSW(efSearch=2 * self._ordered)
        )
        self._list_of_row = _lists_of_rows(index)
        self._sizes = np.bincount(self._list_of_row, minlength=int(index.nlist))
        self._selected: WeakKeyDictionary[Selection, NDArray[np.int64]] = WeakKeyDictionary()

    def estimate(self, queries: NDArray[np.float32], selection: Selection, *, k: int) -> list[Reach]:
        """Return for each query how many of the nearest rows hold k that are selected; all where fewer are.

        Args:
            queries: codes, (q, code_length).
        """
        counts = self._selected.get(selection)
        if counts is None:
            counts = np.bincount(self._list_of_row[selection.mask], minlength=len(self._sizes))
            self._selected[selection] = counts
        _, lists = self._quantizer.search(unit_prefix(queries, self._length), self._ordered, params=self._parameters)
        rows = self._sizes[lists].cumsum(axis=1)
        selected = counts[lists].cumsum(axis=1)
        selected_share = float(counts.sum() / max(1, self._sizes.sum()))
        reaches = [Reach(self._count, is_against=True)] * len(queries)
        for query in np.flatnonzero(selected[:, -1] >= k):
            # In the list that holds the k-th, selected rows are taken to be spread evenly.
            last = int(np.searchsorted(selected[query], k))
            rows_before, selected_before = (rows[query, last - 1], selected[query, last - 1]) if last else (0, 0)
            share = (k - selected_before) / (selected[query, last] - selected_before)
            reach = max(k, int(np.ceil(rows_before + share * (rows[query, last] - rows_before))))
            against = is_against(int(selected[query, last]), int(rows[query, last]), share=selected_share)
            if against:
                # All rows of these lists and of the next may be nearer.
                reach = int(rows[query, min(last + 1, self._ordered - 1)])
                if reach <= COUNTS[-1]:  # beyond, no plan is measured for as many
                    enough = int(np.searchsorted(selected[query], _SCORED * k)) + 1
                    of_lists = lists[query, :enough][counts[lists[query, :enough]] > 0]
                    reach = max(reach, self._nearer(queries[query], selection, of_lists, k=k))
            reaches[query] = Reach(reach, is_against=against)
        return reaches

    def _nearer(self, query: NDArray[np.float32], selection: Selection, lists: NDArray[np.int64], *, k: int) -> int:
        """Return how many rows are at least as near, by the whole code, as the k best selected ones of some lists."""
        ids = np.unique(np.concatenate([_rows_of(self._index, int(number)) for number in lists]))
        ids = ids[selection.mask[ids]]
        unit = unit_prefix(query[None], self._codes.code_length)[0]
        codes = self._codes.codes[ids].astype(np.float32)
        kth = np.partition(codes @ unit / self._codes.norms[ids], len(ids) - k)[len(ids) - k]
        return int(np.count_nonzero(self._sample @ unit >= kth) * (self._count / len(self._sample)))

    @cached_property
    def _sample(self) -> NDArray[np.float32]:
        """Unit codes of some rows, (m, code_length): a random sample, since rows near each other are alike."""
        rows = np.sort(np.random.default_rng(0).choice(self._count, min(_SAMPLE, self._count), replace=False))
        return np.asarray(self._codes.codes[rows].astype(np.float32) / self._codes.norms[rows, None])


def _rows_of(index: faiss.Index, number: int) -> NDArray[np.int64]:
    """Return the rows of a list, which may not outlive the index."""
    size = int(index.invlists.list_size(number))
    return np.asarray(faiss.rev_swig_ptr(index.invlists.get_ids(number), size), dtype=np.int64)


def _lists_of_rows(index: faiss.Index) -> NDArray[np.int32]:
    """Return the list of each row, (n,); one of them where it is in two."""
    lists = np.zeros(int(index.ntotal), dtype=np.int32)
    for number in range(int(index.nlist)):
        if index.invlists.list_size(number):
            lists[_rows_of(index, number)] = number
    return lists
