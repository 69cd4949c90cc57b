"""How many threads a call of FAISS takes."""

from __future__ import annotations

import os

import faiss
import numpy as np
from numpy.typing import NDArray

_MIN_QUERIES_FOR_ALL_THREADS = 64  # a batch of searches has fewer, and other threads have batches of their own


class all_cores:  # noqa: N801 - reads as a statement: with all_cores()
    """OpenMP with a thread for each core within the block, or as many as OMP_NUM_THREADS allows; one thread otherwise.

    Threads for few queries cost more than they save, and callers run in parallel. OpenMP keeps the number for the
    calling thread, so this changes nothing for others.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled

    def __enter__(self) -> None:
        faiss.omp_set_num_threads(allowed_threads() if self._enabled else 1)

    def __exit__(self, *_: object) -> None:
        if self._enabled:
            faiss.omp_set_num_threads(1)


def allowed_threads() -> int:
    """Return the number of cores that this process may use, or OMP_NUM_THREADS (a list by level) where it is less."""
    cores = len(os.sched_getaffinity(0))
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores, int(limit)) if limit.isdecimal() and int(limit) > 0 else cores


def use_all_threads(queries: NDArray[np.floating]) -> bool:
    """Whether there are so many queries (q, d) that all threads together answer them sooner."""
    return len(queries) >= _MIN_QUERIES_FOR_ALL_THREADS
