"""What every part of the GPU check shares: the device, the sizes, where files go, and what its records say."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from eigenlens.benchmarks.common.records import Subject, make_record

_PACKAGES = ("torch", "triton", "onnxruntime", "numpy", "faiss-gpu", "faiss-cpu")


class NoGpuHereError(Exception):
    """A part needs a GPU, or something else that is not here; the message says what."""


@dataclass(frozen=True)
class Context:
    """What a part is given.

    Attributes:
        device: that torch computes on.
        small: sizes for a CPU: the part runs as it would on a GPU, and its figures say nothing.
        work: a folder for what the part makes.
    """

    device: torch.device
    small: bool
    work: Path

    def size(self, full: int, small: int) -> int:
        """Return one of two sizes."""
        return small if self.small else full

    def record(
        self, part: str, metric: str, value: float, unit: str = "", *, data: str = "synthetic", **params: Any
    ) -> dict[str, Any]:
        """Return a record of the bench `gpu`, which says on what it was measured."""
        subject = Subject(bench="gpu", data=data, method=part, params=params | {"on": describe_device(self.device)})
        return make_record(subject, metric, value, unit)


def require_faiss_gpu() -> None:
    """Check that FAISS sees a GPU. Raises: NoGpuHereError."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        raise NoGpuHereError("this FAISS is built for CPUs")
    if faiss.get_num_gpus() == 0:
        raise NoGpuHereError("FAISS sees no GPU")


@cache
def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the device's name and driver, and the versions of what computes on it."""
    described: dict[str, Any] = {"device": device.type}
    for package in _PACKAGES:
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            described[package] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return described


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return "unknown"
    return done.stdout.split("\n")[0].strip() or "unknown"
