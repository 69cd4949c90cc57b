"""Filters as masks: each comparison tells its rows, and the parts of a filter combine them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import FilterError
from eigenlens.index.filters.parse import CodeRange, Compare, Every, Filter, Negation, Some, require_coordinate

Mask = NDArray[np.bool_]
# The values (n,) of a coordinate, counted from 1, of the rows' unit codes.
Coordinate = Callable[[int], NDArray[np.floating]]


def no_codes(number: int) -> NDArray[np.floating]:
    """Refuse: there are no codes. Raises: FilterError."""
    raise FilterError(f"$code: coordinate {number} is asked for, and there are no codes here")


def coordinate_of(codes: NDArray[np.floating], number: int) -> NDArray[np.floating]:
    """Return one coordinate, counted from 1, of codes (n, code_length). Raises: FilterError, if it has fewer."""
    require_coordinate(number, code_length=codes.shape[1])
    return codes[:, number - 1]


def combine(condition: Filter, compare: Callable[[Compare], Mask], coordinate: Coordinate) -> Mask:
    """Return whether each row satisfies a filter, (n,).

    Args:
        compare: returns whether each row satisfies a comparison, (n,).
        coordinate: returns the values of one coordinate of the rows' unit codes, (n,).

    Raises: FilterError, where the codes have no such coordinate.
    """
    match condition:
        case Every(parts):
            return np.asarray(np.logical_and.reduce([combine(part, compare, coordinate) for part in parts]))
        case Some(parts):
            return np.asarray(np.logical_or.reduce([combine(part, compare, coordinate) for part in parts]))
        case Negation(part):
            return ~combine(part, compare, coordinate)
        case CodeRange():
            return condition.mask(coordinate(condition.coordinate))
        case Compare():
            return compare(condition)
