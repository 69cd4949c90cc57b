"""Filters on metadata and codes: parsed and checked once, then applied to a generation's rows or to single images."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import FilterError

Scalar = str | float | int | bool
Kind = Literal["text", "number", "boolean"]
Operator = Literal["$in", "$gt", "$gte", "$lt", "$lte", "$exists"]

MAX_DEPTH = 8
MAX_CLAUSES = 100
MAX_VALUES = 1000
# Longer text and larger numbers can be stored as metadata, but filters ignore them.
MAX_TEXT_BYTES = 1024
LARGEST_NUMBER = 2**53
_COORDINATE = re.compile("[1-9][0-9]{0,4}")
_RANGES = ("$gt", "$gte", "$lt", "$lte")
_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_RANGES, "$exists")


@dataclass(frozen=True)
class Compare:
    """A comparison of one field with values. A field that holds a list matches if any of its elements does."""

    field: str
    operator: Operator
    values: tuple[tuple[Kind, Scalar], ...]  # with their kinds, since 1 == True in Python but not in a filter


@dataclass(frozen=True)
class CodeRange:
    """A range of one coordinate of unit codes; its ends belong to it.

    Attributes:
        coordinate: number of the coordinate, counted from 1.
        low, high: values of codes scaled to unit norm.
    """

    coordinate: int
    low: float
    high: float

    def mask(self, values: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which values of the coordinate are in the range, in the shape of `values`."""
        return np.asarray((values >= self.low) & (values <= self.high))


def require_coordinate(number: int, *, code_length: int) -> None:
    """Check that codes have a coordinate, counted from 1. Raises: FilterError."""
    if number > code_length:
        raise FilterError(f"$code: there is no coordinate {number}; codes have {code_length}")


@dataclass(frozen=True)
class Every:
    """A filter that matches if all of its parts match."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Some:
    """A filter that matches if at least one of its parts matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Negation:
    """A filter that matches if its part does not, so also for images without the field."""

    part: Filter


Filter = Compare | CodeRange | Every | Some | Negation


def parse_filter(form: Any) -> Filter:
    """Parse a filter from its JSON form.

        {"label": "boots"}                          equality
        {"price": {"$gte": 10, "$lt": 50}}          range of numbers, or of text by its order
        {"label": {"$in": ["boots", "sandals"]}}    also $nin, $ne, $exists
        {"$code": {"1": {"$gte": -0.2, "$lte": 0.1}}}   range of a coordinate of unit codes, counted from 1
        {"$and": [...]}, {"$or": [...]}, {"$not": {...}}

    All fields of an object have to match. Text, numbers and booleans never equal each other.

    Raises: FilterError, which names the place of the error and what is possible there.
    """
    return _Parser().parse(form, depth=1)


def matches(condition: Filter, metadata: Mapping[str, Any], code: NDArray[np.floating] | None = None) -> bool:
    """Return whether an image's metadata and its unit code, (code_length,), satisfy a filter.

    Raises: FilterError, if the code has not the coordinate of a range.
    """
    match condition:
        case Every(parts):
            return all(matches(part, metadata, code) for part in parts)
        case Some(parts):
            return any(matches(part, metadata, code) for part in parts)
        case Negation(part):
            return not matches(part, metadata, code)
        case CodeRange():
            require_coordinate(condition.coordinate, code_length=0 if code is None else len(code))
            assert code is not None
            return bool(condition.mask(code[condition.coordinate - 1]))
        case Compare(field, operator, values):
            scalars = scalars_of(metadata.get(field))
            if operator == "$exists":
                return bool(scalars)
            if operator == "$in":
                return any((kind_of(value), value) in values for value in scalars)
            kind, bound = values[0]
            return any(kind_of(value) == kind and within(value, operator, bound) for value in scalars)


def scalars_of(value: Any) -> list[Scalar]:
    """Return the values of a metadata field that filters compare: the value itself, or the elements of a list."""
    elements = value if isinstance(value, list) else [value]
    return [element for element in elements if _is_scalar(element) and _is_kept(element)]


def kind_of(value: Scalar) -> Kind:
    """Return the kind of a value; only values of the same kind can be compared."""
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _is_scalar(value: Any) -> TypeGuard[Scalar]:
    return isinstance(value, str | bool | int | float)


def _is_kept(value: Scalar) -> bool:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) <= MAX_TEXT_BYTES
    return isinstance(value, bool) or abs(value) <= LARGEST_NUMBER  # not so for NaN


def within(value: Any, operator: str, bound: Any) -> bool:
    """Return whether a value satisfies a range's comparison with a bound of the same kind."""
    if operator == "$gt":
        return bool(value > bound)
    if operator == "$gte":
        return bool(value >= bound)
    if operator == "$lt":
        return bool(value < bound)
    return bool(value <= bound)


class _Parser:
    def __init__(self) -> None:
        self._clauses = 0

    def parse(self, form: Any, *, depth: int) -> Filter:
        if not isinstance(form, Mapping) or not form:
            raise FilterError(f'a filter is an object such as {{"label": "boots"}}, not {_shown(form)}')
        if depth > MAX_DEPTH:
            raise FilterError(f"a filter may be nested {MAX_DEPTH} deep, not deeper")
        parts: list[Filter] = []
        for name, value in form.items():
            self._clauses += 1
            if self._clauses > MAX_CLAUSES:
                raise FilterError(f"a filter may have {MAX_CLAUSES} clauses, not more")
            if name in ("$and", "$or"):
                if not isinstance(value, list) or not value:
                    raise FilterError(f"{name} takes a list of filters, not {_shown(value)}")
                inner = tuple(self.parse(part, depth=depth + 1) for part in value)
                parts.append(Every(inner) if name == "$and" else Some(inner))
            elif name == "$not":
                parts.append(Negation(self.parse(value, depth=depth + 1)))
            elif name == "$code":
                parts.append(self._code(value))
            elif name.startswith("$"):
                raise FilterError(f"there is no {name}; available: $and, $or, $not, $code, or the name of a field")
            else:
                parts.append(self._field(name, value))
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _field(self, name: str, form: Any) -> Filter:
        if _is_scalar(form):
            return Compare(name, "$in", (_value(form, name),))
        if not isinstance(form, Mapping) or not form:
            raise FilterError(f"{name}: give a value or an object of {', '.join(_OPERATORS)}, not {_shown(form)}")
        parts = [self._comparison(name, operator, value) for operator, value in form.items()]
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _code(self, form: Any) -> Filter:
        if not isinstance(form, Mapping) or not form:
            raise FilterError(f'$code takes ranges of coordinates: {{"1": {{"$gte": -0.2}}}}, not {_shown(form)}')
        parts = []
        for name, bounds in form.items():
            self._clauses += 1
            if not isinstance(name, str) or not _COORDINATE.fullmatch(name):
                raise FilterError(f"$code: a coordinate is a number from 1, as text, not {_shown(name)}")
            if not isinstance(bounds, Mapping) or not bounds or not bounds.keys() <= {"$gte", "$lte"}:
                raise FilterError(f"$code: {name} takes an object of $gte, $lte or both, not {_shown(bounds)}")
            if not all(_is_number(bound) for bound in bounds.values()):
                raise FilterError(f"$code: the bounds of {name} are numbers, not {_shown(bounds)}")
            low, high = bounds.get("$gte", -math.inf), bounds.get("$lte", math.inf)
            parts.append(CodeRange(int(name), float(low), float(high)))
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _comparison(self, name: str, operator: str, value: Any) -> Filter:
        self._clauses += 1
        if operator in ("$in", "$nin"):
            if not isinstance(value, list) or len(value) > MAX_VALUES:
                raise FilterError(f"{name}: {operator} takes a list of at most {MAX_VALUES} values")
            compare = Compare(name, "$in", tuple(_value(element, name) for element in value))
            return compare if operator == "$in" else Negation(compare)
        if operator == "$exists":
            if not isinstance(value, bool):
                raise FilterError(f"{name}: $exists takes true or false, not {_shown(value)}")
            compare = Compare(name, "$exists", ())
            return compare if value else Negation(compare)
        if operator in ("$eq", "$ne"):
            compare = Compare(name, "$in", (_value(value, name),))
            return compare if operator == "$eq" else Negation(compare)
        if operator in _RANGES:
            bound = _value(value, name)
            if bound[0] == "boolean":
                raise FilterError(f"{name}: {operator} takes a number or text, not {_shown(value)}")
            return Compare(name, operator, (bound,))  # type: ignore[arg-type]  # one of _RANGES
        raise FilterError(f"{name}: there is no {operator}; available: {', '.join(_OPERATORS)}")


def _value(value: Any, name: str) -> tuple[Kind, Scalar]:
    if not _is_scalar(value) or (isinstance(value, float) and math.isnan(value)):
        raise FilterError(f"{name}: a value is text, a number, true or false, not {_shown(value)}")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST_NUMBER:
        raise FilterError(f"{name}: whole numbers may have a size of up to 2**53, not {_shown(value)}")
    return kind_of(value), value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
