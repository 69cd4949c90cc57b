"""Huge pages: lists are moved into them where the system has them, and nothing else changes."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import faiss
import numpy as np
import pytest

from eigenlens.index.faiss_engine.huge_pages import use_huge_pages

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def filled() -> tuple[faiss.IndexIVFPQFastScan, np.ndarray]:
    vectors = np.random.default_rng(0).standard_normal((200_000, 32)).astype(np.float32)
    index = faiss.index_factory(32, "IVF256,PQ32x4fsr", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:10_000])
    index.add(vectors)
    return index, vectors[:20]


def test_lists_are_moved_and_give_the_same() -> None:
    index, queries = filled()
    index.nprobe = 20
    before = index.search(queries, 10)
    moved = use_huge_pages(faiss.downcast_InvertedLists(index.invlists))
    after = index.search(queries, 10)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    version = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    if not HUGE.exists() or version < (6, 1):
        pytest.skip("this system has no huge pages to move into")
    assert moved >= 2 << 20


def test_lists_without_codes_have_nothing_to_move() -> None:
    assert use_huge_pages(faiss.ArrayInvertedLists(4, 16)) == 0
