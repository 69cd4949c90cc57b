"""The GPU that FAISS searches on, and copies of indexes on it.

A FAISS that was built with cuVS uses it without any setting here.
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
        lock: held while a copy is made, searched or freed, since all copies share resources for one call at a time. It
            is reentrant, since Python may free a copy at any moment.
    """

    def __init__(self, copy: Callable[[faiss.Index], faiss.Index]) -> None:
        """Use `copy` to copy a FAISS index to the GPU; it raises a RuntimeError, as FAISS does, if that fails."""
        self._copy = copy
        self.lock = threading.RLock()

    def copy_of(self, index: faiss.Index, name: str) -> faiss.Index | None:
        """Return a copy of an index on the GPU; None, and a warning with its name, if the GPU lacks the memory."""
        try:
            with self.lock:
                return self._copy(index)
        except RuntimeError as error:
            log.warning("%s stays on the CPU: %s", name, error)
            return None


def open_gpu(device: Device) -> Gpu | None:
    """Return the GPU to search on; None for the CPU. Raises: NoGpuError, for "gpu" on a machine without one."""
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
    """Return the name of the device in a calibration."""
    return "cpu" if gpu is None else "gpu"


def flat_index(length: int, gpu: Gpu | None) -> faiss.Index:
    """Return an empty index by which k-means finds the nearest centroids (inner product), on the GPU if any."""
    index = faiss.IndexFlatIP(length)
    return (None if gpu is None else gpu.copy_of(index, "k-means")) or index


def _to_gpu(resources: faiss.GpuResourcesProvider, index: faiss.Index) -> faiss.Index:
    return faiss.index_cpu_to_gpu(resources, 0, index)
