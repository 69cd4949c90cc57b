"""A GPU that FAISS sees, and how an index gets there.

FAISS takes cuVS by itself where it was built with it, so nothing is said of that here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Literal

import faiss

from eigenlens.index.errors import NoGpuError

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "gpu"]


class Gpu:
    """The first GPU.

    Attributes:
        lock: to hold while a copy is made, searched or freed: all share resources that serve one call at a time. The
            same thread may take it again, since Python may free a copy at any moment.
    """

    def __init__(self, copy: Callable[[faiss.Index], faiss.Index]) -> None:
        """`copy` copies a FAISS index to the GPU and raises a RuntimeError, as FAISS does, where that fails."""
        self._copy = copy
        self.lock = threading.RLock()

    def copy_of(self, index: faiss.Index, name: str) -> faiss.Index | None:
        """The index on the GPU; None, and a line in the log that has its name, if there is no room for it."""
        try:
            with self.lock:
                return self._copy(index)
        except RuntimeError as error:
            log.warning("%s stays on the CPU: %s", name, error)
            return None


def open_gpu(device: Device) -> Gpu | None:
    """The GPU to use; None for the CPU, with "auto" also where there is no GPU. Raises: NoGpuError, for "gpu" there."""
    if device == "cpu":
        return None
    if faiss.get_num_gpus() > 0:
        return Gpu(partial(_to_gpu, faiss.StandardGpuResources()))
    if device == "gpu":
        able = hasattr(faiss, "StandardGpuResources")
        raise NoGpuError(
            "search_device is gpu, but FAISS "
            + ("sees none: look whether nvidia-smi does, here" if able else "is built for CPUs: install its GPU build")
            + "; auto and cpu search on the CPU"
        )
    return None


def device_name(gpu: Gpu | None) -> str:
    """How a calibration notes where it was measured."""
    return "cpu" if gpu is None else "gpu"


def flat_index(length: int, gpu: Gpu | None) -> faiss.Index:
    """An empty index that k-means finds the nearest centroids with, by inner product; on the GPU where there is one."""
    index = faiss.IndexFlatIP(length)
    return (None if gpu is None else gpu.copy_of(index, "k-means")) or index


def _to_gpu(resources: faiss.GpuResourcesProvider, index: faiss.Index) -> faiss.Index:
    return faiss.index_cpu_to_gpu(resources, 0, index)
