"""Index kinds: which suits a number of codes, and what it makes of that number."""

from __future__ import annotations

import re

import faiss
import numpy as np
import pytest

from eigenlens.index.errors import IndexKindError
from eigenlens.index.faiss_engine.kinds import graph_of_lists, list_count, require_kind
from eigenlens.index.faiss_engine.suitable_kinds import choose_indexes
from tests.support.codes import random_codes


@pytest.mark.parametrize("count", [1, 1024, 40_000, 65_536, 1_000_000, 3_000_000])
def test_batches_of_panorama_grow_with_the_codes_and_waste_little(count: int) -> None:
    kind = require_kind("panorama")
    found = re.search(r"_(\d+)$", kind.factory(count, 256))
    assert found is not None
    batch = int(found.group(1))
    assert kind.max_results is not None
    assert kind.max_results <= batch
    assert batch == 1024 or 32 * batch <= count < 64 * batch or batch == 65_536


@pytest.mark.parametrize("count", [5000, 70_000])
def test_panorama_finds_the_nearest_with_a_bound_and_without(count: int) -> None:
    vectors = random_codes(0, count, 32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kind = require_kind("panorama")
    index = faiss.index_factory(32, kind.factory(count, 32), faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    queries = vectors[:20] + np.float32(0.1) * random_codes(1, 20, 32)
    exact = np.sort(queries @ vectors.T, axis=1)[:, ::-1][:, :10]
    np.testing.assert_allclose(index.search(queries, 10)[0], exact, atol=1e-5)
    for number, query in enumerate(queries):
        _, found, _ = index.range_search(query[None], float(exact[number, -1]) - 1e-5)
        np.testing.assert_allclose(np.sort(found)[::-1][:10], exact[number], atol=1e-5)


def test_so_many_lists_are_found_by_a_graph_over_centroids_in_half_precision() -> None:
    for name in ("ivf", "ivf-sq8", "ivf-pq", "ivf-rabitq"):
        factory = require_kind(name).factory
        few = faiss.index_factory(32, factory(50_000, 32), faiss.METRIC_INNER_PRODUCT)
        assert graph_of_lists(few) is None
        many = faiss.index_factory(32, factory(1_000_000, 32), faiss.METRIC_INNER_PRODUCT)
        graph = graph_of_lists(many)
        storage = faiss.downcast_index(graph.storage)
        assert storage.sq.qtype == faiss.ScalarQuantizer.QT_fp16


def test_kinds_suit_the_number_of_codes() -> None:
    def kinds(count: int) -> list[str]:
        return [spec.kind for spec in choose_indexes(count, lengths=(8, 64, 256))]

    assert kinds(1000) == ["flat", "flat", "va-file"]
    assert kinds(1_000_000) == ["ivf-sq8", "ivf-pq", "va-file"]
    assert kinds(10_000_000) == ["ivf-sq8", "ivf-pq", "va-file"]


def test_lists_hold_enough_vectors_to_train() -> None:
    for count in (1, 38, 100, 5000, 10**6, 10**8):
        lists = list_count(count)
        assert lists == 1 or count / lists >= 39
        assert lists & (lists - 1) == 0
    assert list_count(10**6) == 4096


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({8: "annoy"}, "no index kind 'annoy'; available: flat, va-file, panorama"),
        ({9: "flat"}, "length 9, which is not built"),
        ({8: "half"}, "for length 16 only"),
        ({8: "va-file"}, "for length 16 only"),
    ],
)
def test_kinds_that_cannot_be_built_are_refused(kinds: dict[int, str], message: str) -> None:
    with pytest.raises(IndexKindError, match=message):
        choose_indexes(100, lengths=(8, 16), kinds=kinds)
