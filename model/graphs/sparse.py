"""Rows of a sparse matrix and their products with dense ones; the only module that imports scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_ROWS_PER_BLOCK = 1 << 16


@dataclass(frozen=True)
class SparseRows:
    """Rows in CSR form.

        rows = SparseRows(np.array([0, 2]), np.array([1, 4]), np.array([0.5, 2.0], np.float32), columns=6)

    Attributes:
        indptr: (n + 1,), where each row begins and ends in the two others; it begins with 0.
        indices, values: columns and values of the entries, (entries,) each.
        columns: how many columns there are.
    """

    indptr: NDArray[np.integer[Any]]
    indices: NDArray[np.integer[Any]]
    values: Floats
    columns: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def part(self, start: int, stop: int) -> SparseRows:
        """Return the rows from `start` to `stop`."""
        begin, end = int(self.indptr[start]), int(self.indptr[stop])
        indptr = np.asarray(self.indptr[start : stop + 1]) - begin
        return SparseRows(indptr, self.indices[begin:end], self.values[begin:end], self.columns)

    def with_unit_rows(self) -> SparseRows:
        """Return the rows divided by their length; rows of zeros stay."""
        squares = np.add.reduceat(np.append(np.square(self.values, dtype=np.float64), 0.0), self.indptr[:-1])
        squares[np.diff(self.indptr) == 0] = 0.0  # for an empty row, reduceat gives the next row's first entry
        inverse = 1 / np.sqrt(np.where(squares > 0, squares, 1.0))
        values = (self.values * np.repeat(inverse, np.diff(self.indptr))).astype(self.values.dtype)
        return SparseRows(self.indptr, self.indices, values, self.columns)

    def to_dense(self) -> NDArray[np.float32]:
        """Return the rows as an array, (n, columns)."""
        dense = np.zeros((len(self), self.columns), dtype=np.float32)
        np.add.at(dense, (np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices), self.values)
        return dense

    def multiply(self, dense: Floats) -> Floats:
        """Return the product with a dense matrix (columns, m): (n, m)."""
        product: Floats = self._matrix() @ dense
        return product

    def multiply_transposed(self, dense: Floats) -> Floats:
        """Return the product of the transposed rows with a dense matrix (n, m): (columns, m)."""
        product: Floats = self._matrix().T @ dense
        return product

    def _matrix(self) -> Any:
        import scipy.sparse

        # Indices of 32 bits where they fit: the product then copies none.
        small = len(self.values) < 2**31 and self.columns < 2**31
        indptr = self.indptr.astype(np.int32 if small else np.int64, copy=False)
        indices = self.indices.astype(indptr.dtype, copy=False)
        return scipy.sparse.csr_matrix((self.values, indices, indptr), shape=(len(self), self.columns))
