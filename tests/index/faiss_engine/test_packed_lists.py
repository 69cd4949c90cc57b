"""Lists are moved into one piece of memory, in huge pages where the system has them, and nothing else changes."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.faiss_engine.packed_lists import pack_lists

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lists are moved on Linux only")


def filled(count: int = 200_000, lists: int = 256) -> tuple[faiss.IndexIVFPQFastScan, NDArray[np.float32]]:
    vectors = np.random.default_rng(0).standard_normal((count, 32)).astype(np.float32)
    index = faiss.index_factory(32, f"IVF{lists},PQ32x4fsr", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    index.train(np.concatenate([vectors, vectors])[:10_000])
    index.add(vectors)
    return index, vectors[:20]


@pytest.mark.parametrize("implementation", [0, 11])
def test_lists_are_moved_and_give_the_same(implementation: int) -> None:
    index, queries = filled()
    index.nprobe, index.implem = 20, implementation
    before = index.search(queries, 10)
    moved = pack_lists(index)
    after = index.search(queries, 10)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    version = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    if not HUGE.exists() or version < (6, 1):
        pytest.skip("this system has no huge pages to move into")
    assert moved >= 2 << 20


def test_empty_lists_and_an_empty_index_stay_what_they_are() -> None:
    index, queries = filled(80, lists=128)
    assert any(index.invlists.list_size(number) == 0 for number in range(128))
    index.nprobe = 128
    before = index.search(queries, 5)
    pack_lists(index)
    np.testing.assert_array_equal(before[1], index.search(queries, 5)[1])
    index = faiss.index_factory(32, "IVF4,PQ32x4fsr", faiss.METRIC_INNER_PRODUCT)
    assert pack_lists(index) == 0


def test_nothing_is_added_to_lists_that_were_moved() -> None:
    index, queries = filled(1000, lists=4)
    pack_lists(index)
    with pytest.raises(RuntimeError):
        index.add(queries)
    lists = faiss.downcast_InvertedLists(index.invlists)
    assert lists.prefetch_nthread == 0, "else each search starts threads that read ahead"
    assert index.search(queries, 1)[1].ravel().tolist() == list(range(20))


MEMORY = """
import sys
from pathlib import Path
from eigenlens.index.faiss_engine.kinds import require_kind
def anonymous():
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("RssAnon")).split()[1])
path, small, kind = Path(sys.argv[1]), Path(sys.argv[2]), require_kind("ivf-pq")
kind.read(small)  # what a first index needs stays
before, took = anonymous(), []
for _ in range(3):
    index = kind.read(path)
    took.append(anonymous() - before)
    del index
print(max(took), anonymous() - before)
"""


def test_an_index_takes_the_memory_of_its_file_and_gives_it_back(tmp_path: Path) -> None:
    """FAISS's own lists of these codes take up to twice as much in huge pages."""
    index, _ = filled(300_000, lists=512)
    path, small = tmp_path / "index.faiss", tmp_path / "small.faiss"
    faiss.write_index(index, str(path))
    faiss.write_index(filled(1000, lists=4)[0], str(small))
    assert require_kind("ivf-pq").read(path).ntotal == 300_000
    ran = subprocess.run([sys.executable, "-c", MEMORY, path, small], capture_output=True, text=True, check=True)
    taken, left = map(int, ran.stdout.split())
    size, page = path.stat().st_size, 2 << 20
    assert 0.9 * size < taken < 1.05 * size + page
    assert left < page
