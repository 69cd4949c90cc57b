"""Filters: the mask over columns, and the test of one image, against each other and against plain Python."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from eigenlens.index.errors import FilterError
from eigenlens.index.filters.columns import Attributes, write_attributes
from eigenlens.index.filters.growing_columns import GrowingColumns
from eigenlens.index.filters.parse import matches, parse_filter
from tests.support.codes import repeatable
from tests.support.filters import FILTERS, METADATA


@repeatable
@given(metadata=METADATA, given_filter=FILTERS)
def test_columns_and_single_images_agree(metadata: list[dict[str, Any]], given_filter: dict[str, Any]) -> None:
    condition = parse_filter(given_filter)
    with tempfile.TemporaryDirectory() as folder:
        write_attributes(Path(folder), metadata)
        mask = Attributes(Path(folder), count=len(metadata)).mask(condition)
        assert mask.tolist() == [matches(condition, values) for values in metadata]
    growing, half = GrowingColumns(), len(metadata) // 2
    growing.add(metadata[:half])
    growing.add(metadata[half:])
    parts = [growing.mask(condition, start, stop) for start, stop in ((0, half), (half, len(metadata)))]
    assert np.concatenate(parts).tolist() == mask.tolist()


ROWS: list[dict[str, Any]] = [
    {"label": "boots", "price": 10},
    {"label": "sandals", "price": 10.5, "tags": ["red", "new"]},
    {"label": "boots", "price": "10", "sold": True},
    {"price": 99, "sold": 1},
    {},
]


@pytest.mark.parametrize(
    ("given_filter", "rows"),
    [
        ({"label": "boots"}, [0, 2]),
        ({"price": 10}, [0]),
        ({"price": "10"}, [2]),
        ({"sold": True}, [2]),
        ({"sold": 1}, [3]),
        ({"price": {"$gte": 10, "$lt": 50}}, [0, 1]),
        ({"price": {"$gt": 10}}, [1, 3]),
        ({"price": {"$lte": 10}}, [0]),
        ({"label": {"$gte": "c"}}, [1]),
        ({"label": {"$lt": "c"}}, [0, 2]),
        ({"label": {"$lte": "boots"}}, [0, 2]),
        ({"label": {"$gt": "boots"}}, [1]),
        ({"label": {"$in": ["boots", "none"]}, "price": 10}, [0]),
        ({"label": {"$nin": ["boots"]}}, [1, 3, 4]),
        ({"label": {"$ne": "boots"}}, [1, 3, 4]),
        ({"label": {"$exists": False}}, [3, 4]),
        ({"label": {"$in": []}}, []),
        ({"tags": "red"}, [1]),
        ({"$or": [{"tags": "new"}, {"price": 99}]}, [1, 3]),
        ({"$not": {"$or": [{"label": "boots"}, {"price": 99}]}}, [1, 4]),
        ({"$and": [{"label": "boots"}, {"sold": True}]}, [2]),
    ],
)
def test_a_filter_matches_what_it_says(tmp_path: Path, given_filter: dict[str, Any], rows: list[int]) -> None:
    condition = parse_filter(given_filter)
    assert [number for number, values in enumerate(ROWS) if matches(condition, values)] == rows
    write_attributes(tmp_path, ROWS)
    attributes = Attributes(tmp_path, count=len(ROWS))
    assert attributes.mask(condition).nonzero()[0].tolist() == rows
    assert attributes.fields["price"] == ["number", "text"]


@pytest.mark.parametrize(
    ("given_filter", "message"),
    [
        ({}, "a filter is an object"),
        ([], "a filter is an object"),
        ({"$nor": []}, "there is no .nor; available: .and, .or, .not"),
        ({"$and": {}}, ".and takes a list"),
        ({"$or": []}, ".or takes a list"),
        ({"label": {"$like": "b"}}, "label: there is no .like; available: .eq"),
        ({"label": None}, "label: give a value"),
        ({"label": {"$gte": True}}, "takes a number or text"),
        ({"label": {"$in": "boots"}}, "takes a list"),
        ({"label": {"$in": list(range(1001))}}, "at most 1000 values"),
        ({"label": {"$exists": 1}}, "true or false"),
        ({"label": float("nan")}, "a value is text, a number"),
        ({"label": 2**60}, "2..53"),
        ({"$or": [{"a": i} for i in range(101)]}, "100 clauses"),
        ({"$code": [0, 1]}, "ranges of coordinates"),
        ({"$code": {"0": {"$gte": 0}}}, "a coordinate is a number from 1"),
        ({"$code": {"x": {"$gte": 0}}}, "a coordinate is a number from 1"),
        ({"$code": {"0000000012": {"$gte": 0}}}, "a coordinate is a number from 1"),
        ({"$code": {"000000001" + "9" * 5000: {"$gte": 0}}}, "a coordinate is a number from 1"),
        ({"$code": {"1": {"$gt": 0}}}, "an object of .gte, .lte or both"),
        ({"$code": {"1": {"$gte": "a"}}}, "bounds of 1 are numbers"),
    ],
)
def test_a_filter_that_is_not_understood_is_refused(given_filter: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        parse_filter(given_filter)


def test_a_filter_that_is_nested_deeply_is_refused() -> None:
    nested: dict[str, Any] = {"a": 1}
    for _ in range(20):
        nested = {"$not": nested}
    with pytest.raises(FilterError, match="8 deep"):
        parse_filter(nested)


def test_columns_grow_beyond_what_they_first_hold() -> None:
    metadata = [{"number": number, "text": f"t{number}"} for number in range(1000)]
    columns = GrowingColumns()
    for values in metadata:
        columns.add([values])
    for form in ({"number": {"$lt": 300}}, {"text": {"$in": ["t5", "t999"]}}, {"text": {"$gte": "t99"}}):
        condition = parse_filter(form)
        assert columns.mask(condition, 0, 1000).tolist() == [matches(condition, values) for values in metadata]
