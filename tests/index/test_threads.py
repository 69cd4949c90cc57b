"""How many threads FAISS takes: all cores for large calls, no more than OMP_NUM_THREADS, and one otherwise."""

from __future__ import annotations

import os

import faiss
import pytest

from eigenlens.index.threads import all_cores


@pytest.mark.parametrize(
    ("limit", "threads"), [(None, 4), ("", 4), ("1", 1), ("3", 3), ("2,1", 2), ("8", 4), ("0", 4), ("many", 4)]
)
def test_a_large_call_takes_all_cores_or_as_many_threads_as_openmp_is_allowed(
    monkeypatch: pytest.MonkeyPatch, limit: str | None, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if limit is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
    with all_cores():
        assert faiss.omp_get_max_threads() == threads
    assert faiss.omp_get_max_threads() == 1
    with all_cores(False):
        assert faiss.omp_get_max_threads() == 1
