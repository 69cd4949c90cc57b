"""How many threads a call of FAISS takes."""

from __future__ import annotations

import os

import faiss
import numpy as np
from numpy.typing import NDArray

_QUERIES_WORTH_A_TEAM = 64  # a batch of searches has fewer, and other threads have batches of their own


class all_cores:  # noqa: N801 - reads as a statement: with all_cores()
    """OpenMP with a team of all cores within the block, one thread otherwise.

    For few queries a team costs more than it saves, and callers run in parallel. OpenMP keeps the number for the
    calling thread, so this changes nothing for others.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)) if self._wanted else 1)

    def __exit__(self, *_: object) -> None:
        if self._wanted:
            faiss.omp_set_num_threads(1)


def worth_a_team(queries: NDArray[np.floating]) -> bool:
    """Whether there are so many queries that a team of threads answers them sooner."""
    return len(queries) >= _QUERIES_WORTH_A_TEAM
