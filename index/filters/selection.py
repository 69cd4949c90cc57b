"""Selections: the rows that a search may return, because they were not removed and satisfy its filter."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.filters.parse import Filter


class Selection:
    """A set of rows, in the forms that engines and exact search use.

    selection = Selection(present & attributes.mask(filter))
    scores, rows = index.run(queries, plan=plan, k=10, selection=selection)

    Attributes:
        mask: whether each row is selected, (n,) booleans.
        bits: the same, eight rows a byte, least significant bit first.
        count: number of selected rows.
        left_out: number of the other rows.
        share: share of all rows that are selected, 0 to 1.
        filter: that all of the rows satisfy, for engines that compare values themselves; None if it is not known.
        is_all_of_filter: whether they are all rows that satisfy it: none of these was removed.
    """

    def __init__(
        self, mask: NDArray[np.bool_], *, filter: Filter | None = None, is_all_of_filter: bool = False
    ) -> None:
        """Select rows by a mask, (n,); later changes of `mask` have no effect."""
        self.filter, self.is_all_of_filter = filter, is_all_of_filter
        self.mask = mask.copy()
        self.bits = np.packbits(mask, bitorder="little")
        self.count = int(np.count_nonzero(mask))
        self.left_out = len(mask) - self.count
        self.share = self.count / max(1, len(mask))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The selected rows, ascending."""
        return np.flatnonzero(self.mask)
