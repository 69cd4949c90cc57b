"""Filters as conditions on payloads. A value lies under a name of its field and kind, since 1 is neither true nor "1".

A comparison of a field that holds a list is about any of its elements, so the ends of a range are two conditions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eigenlens.index.errors import FilterError
from eigenlens.index.filters.columns import Attributes
from eigenlens.index.filters.parse import CodeRange, Compare, Every, Filter, Kind, Negation, Scalar, Some

Condition = dict[str, Any]
_NONE: Condition = {"has_id": []}
_RANGES = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
# Begins texts that no JSON can carry, written in hexadecimal digits, and those that begin like them.
_ESCAPE = "\x00"
# Name of the payload field that says of which drawn shares a row is; no column has such a name.
DRAWN = "drawn"


@dataclass(frozen=True)
class Payloads:
    """The payload fields of a generation, named by the number of the column that they are copies of.

    payloads = Payloads(attributes)
    condition = payloads.condition(parse_filter({"label": "boots"}))

    Attributes:
        attributes: the columns.
    """

    attributes: Attributes

    @property
    def fields(self) -> Mapping[str, Kind]:
        """Names of payload fields, and the kind of their values."""
        return {self._name(number, kind): kind for number, (_, kind) in enumerate(self.attributes.columns)}

    def rows(self, start: int, stop: int) -> list[dict[str, list[Scalar]]]:
        """Return the payloads of a range of rows."""
        payloads: list[dict[str, list[Scalar]]] = [{} for _ in range(start, stop)]
        for number, (field, kind) in enumerate(self.attributes.columns):
            name = self._name(number, kind)
            for row, value in self.attributes.values(field, kind, start, stop):
                payloads[row - start].setdefault(name, []).append(_stored(kind, value))
        return payloads

    def condition(self, filter: Filter) -> Condition | None:
        """Return the condition of a filter; None if all satisfy it.

        Codes are no payload: a range of them is left out, so that more satisfy the condition than the filter.

        Raises: FilterError, for a range of texts.
        """
        condition = self._translate(filter, wider=True)
        return None if condition is None else condition if "must" in condition else {"must": [condition]}

    def _translate(self, filter: Filter, *, wider: bool) -> Condition | None:
        """Return a condition; None for all. Ranges of codes make it wider than the filter, or narrower."""
        match filter:
            case Every(parts):
                conditions = [self._translate(part, wider=wider) for part in parts]
                must = [condition for condition in conditions if condition is not None]
                return {"must": must} if must else None
            case Some(parts):
                conditions = [self._translate(part, wider=wider) for part in parts]
                return None if None in conditions else {"should": conditions}
            case Negation(part):
                inner = self._translate(part, wider=not wider)
                return _NONE if inner is None else {"must_not": [inner]}
            case CodeRange():
                return None if wider else _NONE
            case Compare():
                return {"should": list(self._compare(filter)) or [_NONE]}

    def _compare(self, compare: Compare) -> Iterator[Condition]:
        """Yield conditions, of which one has to hold."""
        if compare.operator in _RANGES and compare.values[0][0] == "text":
            raise FilterError(
                f"{compare.field}: the backend qdrant has no order of texts, so no {compare.operator} of one; compare "
                "numbers, name the texts by $in, or build the gallery with the backend faiss or pgvector"
            )
        for number, (field, kind) in enumerate(self.attributes.columns):
            if field != compare.field:
                continue
            name = self._name(number, kind)
            values = [_stored(kind, value) for of_kind, value in compare.values if of_kind == kind]
            if compare.operator == "$exists":
                yield {"must_not": [{"is_empty": {"key": name}}]}
            elif compare.operator in _RANGES:
                yield from ({"key": name, "range": {_RANGES[compare.operator]: value}} for value in values)
            elif kind == "text" and values:
                yield {"key": name, "match": {"any": values}}
            elif kind == "number":  # an equality of real numbers
                yield from ({"key": name, "range": {"gte": value, "lte": value}} for value in values)
            else:
                yield from ({"key": name, "match": {"value": value}} for value in values)

    def _name(self, number: int, kind: str) -> str:
        return f"{kind[0]}{number}"


def has_code_range(filter: Filter) -> bool:
    """Return whether a filter has a range of codes."""
    match filter:
        case Every(parts) | Some(parts):
            return any(has_code_range(part) for part in parts)
        case Negation(part):
            return has_code_range(part)
        case CodeRange():
            return True
        case Compare():
            return False


def drawn_condition(share: float) -> Condition:
    """Return the condition that a point is one of a share of them, drawn at random."""
    return {"must": [{"key": DRAWN, "match": {"any": [drawn_value(share)]}}]}


def drawn_value(share: float) -> str:
    """Return the value that points of a drawn share have."""
    return f"{share:g}"


def ids_condition(keys: np.ndarray[Any, np.dtype[np.int64]]) -> Condition:
    """Return the condition that a point is one of these."""
    return {"must": [{"has_id": keys.tolist()}]}


def _stored(kind: str, value: Scalar) -> Scalar:
    """Return a value as payloads have it."""
    if kind == "number":
        return float(value)
    if kind == "boolean":
        return bool(value)
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _ESCAPE + text.encode("utf-8", "surrogatepass").hex()
    return _ESCAPE + text.encode().hex() if text.startswith(_ESCAPE) else text
