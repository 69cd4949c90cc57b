"""Random filters and odd metadata, in which any of them finds something."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

SCALARS = st.one_of(
    st.sampled_from(["", "a", "b", "ab", "ä", "boots", "1", "true"]),
    st.integers(-3, 3),
    st.sampled_from([0.5, -1.5, 1e300, 2.0**53]),
    st.booleans(),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.none(), st.just({"nested": 1}), st.just("x" * 2000))
METADATA = st.lists(st.dictionaries(st.sampled_from(["p", "q", "r"]), VALUES, max_size=3), max_size=12)
FIELDS = st.sampled_from(["p", "q", "absent"])
BOUNDS = st.one_of(st.sampled_from(["", "a", "b"]), st.integers(-2, 2), st.just(0.5))
COMPARISONS = st.one_of(
    SCALARS.filter(lambda value: value != 1e300),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), BOUNDS, min_size=1, max_size=2),
    st.fixed_dictionaries({"$in": st.lists(SCALARS.filter(lambda v: v != 1e300), max_size=3)}),
    st.fixed_dictionaries({"$nin": st.lists(st.sampled_from(["a", 1, True]), max_size=3)}),
    st.fixed_dictionaries({"$ne": st.sampled_from(["a", 1, True])}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)
FILTERS = st.recursive(
    st.dictionaries(FIELDS, COMPARISONS, min_size=1, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=5,
)


def odd_metadata(count: int) -> list[dict[str, Any]]:
    """Metadata of images whose fields hold values of every kind, lists of them, and what filters ignore."""
    values: list[Any] = ["", "a", "b", "ab", "\u00e4", "1", "true", "\x00", "\ud800", "x" * 2000, None, {"nested": 1}]
    values += [-2, 0, 1, 2, 0.5, -1.5, 1e300, 2.0**53, True, False, []]
    rng = np.random.default_rng(0)

    def value() -> Any:
        chosen = [values[number] for number in rng.integers(0, len(values), 3)]
        return chosen if rng.random() < 0.3 else chosen[0]

    return [{field: value() for field in "pq" if rng.random() < 0.8} for _ in range(count)]
