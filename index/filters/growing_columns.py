"""Metadata of images that arrive one after the other, as columns in memory, which filters turn into masks."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.filters.masks import Coordinate, Mask, combine, no_codes
from eigenlens.index.filters.parse import Compare, Filter, Kind, Operator, Scalar, kind_of, scalars_of, within

_FIRST_CAPACITY = 256


class GrowingColumns:
    """Columns of all fields, which a filter is applied to as `matches` is to each image. Several threads may use it.

    columns = GrowingColumns()
    columns.add([{"label": "boots"}, {"price": 10}])
    columns.mask(parse_filter({"label": "boots"}), 0, 2)  # [True, False]
    """

    def __init__(self) -> None:
        self._columns: dict[tuple[str, Kind], _Column] = {}
        self._count = 0
        self._lock = threading.Lock()

    def add(self, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Add the metadata of the next images."""
        with self._lock:
            for row, values in enumerate(metadata, self._count):
                for field, value in values.items():
                    for scalar in scalars_of(value):
                        key = field, kind_of(scalar)
                        column = self._columns.get(key)
                        if column is None:
                            column = self._columns[key] = _Column()
                        column.add(row, scalar)
            self._count += len(metadata)

    def mask(self, condition: Filter, start: int, stop: int, coordinate: Coordinate = no_codes) -> Mask:
        """Return whether each image from start to stop satisfies the filter, (stop - start,).

        Args:
            coordinate: tells values of those images' unit codes.
        """
        with self._lock:
            return combine(condition, lambda compare: self._mask(compare, start, stop), coordinate)

    def _mask(self, condition: Compare, start: int, stop: int) -> Mask:
        mask = np.zeros(stop - start, dtype=bool)
        for (name, kind), column in self._columns.items():
            bounds = [value for of_kind, value in condition.values if of_kind == kind]
            if name == condition.field and (bounds or condition.operator == "$exists"):
                mask[column.select(condition.operator, bounds, start, stop) - start] = True
        return mask


class _Column:
    """The values of one field and kind: rows, ascending, and a code of each value."""

    def __init__(self) -> None:
        self._count = 0
        self._rows = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self._codes = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self._code_of: dict[Scalar, int] = {}  # of each different value

    def add(self, row: int, value: Scalar) -> None:
        if self._count == len(self._rows):
            self._rows, self._codes = np.resize(self._rows, 2 * self._count), np.resize(self._codes, 2 * self._count)
        self._rows[self._count] = row
        self._codes[self._count] = self._code_of.setdefault(value, len(self._code_of))
        self._count += 1

    def select(self, operator: Operator, bounds: Sequence[Scalar], start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows from start to stop with a value that satisfies the comparison."""
        first, last = np.searchsorted(self._rows[: self._count], (start, stop))
        rows, codes = self._rows[first:last], self._codes[first:last]
        if operator == "$exists":
            return rows
        if operator == "$in":
            wanted = [self._code_of[bound] for bound in bounds if bound in self._code_of]
            return np.asarray(rows[codes == wanted[0]] if len(wanted) == 1 else rows[np.isin(codes, wanted)])
        # Each different value is compared once.
        fits = np.fromiter((within(value, operator, bounds[0]) for value in self._code_of), bool, len(self._code_of))
        return np.asarray(rows[fits[codes]])
