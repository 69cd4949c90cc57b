"""Rows that a search may return: those that were not removed and that satisfy a filter."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray


class Selection:
    """A set of rows, as engines and as exact search want it.

    Attributes:
        mask: (n,) booleans.
        bits: the same, eight rows a byte, least significant bit first.
        count: rows in it.
        left_out: rows that are not.
        share: of all rows, 0 to 1.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        """Take (n,) booleans; later changes of `mask` are not seen."""
        self.mask = mask.copy()
        self.bits = np.packbits(mask, bitorder="little")
        self.count = int(np.count_nonzero(mask))
        self.left_out = len(mask) - self.count
        self.share = self.count / max(1, len(mask))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows, ascending."""
        return np.flatnonzero(self.mask)
