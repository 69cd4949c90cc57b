"""Whether a generation fits: its size on disk and in memory is estimated, and a build that does not fit is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from eigenlens.index.building.sizes import building_bytes, codes_bytes, index_bytes
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.service.errors import InsufficientSpaceError

_MEGABYTE = 1_000_000
# Beside an index, a build holds a sample of the codes, a run of them and what calibration compares.
_WORKING_BYTES = 600 * _MEGABYTE


def require_space(root: Path, specs: Sequence[IndexSpec], *, count: int, code_length: int) -> str:
    """Estimate what a generation of `count` images takes on disk and in memory, and check that there is as much.

    Returns: the estimate in words, index by index.

    Raises: InsufficientSpaceError, if there is less.
    """
    sizes = index_bytes(specs, count)
    disk = codes_bytes(count, code_length) + sum(sizes.values())
    peak_bytes = building_bytes(specs, count)
    largest = max(specs, key=lambda spec: peak_bytes[spec])
    memory = peak_bytes[largest]
    by_index = ", ".join(f"length {spec.length} ({spec.kind}) {_megabytes(size)}" for spec, size in sizes.items())
    estimate = (
        f"{_megabytes(disk)} on disk for {count} images, at most {_megabytes(memory)} at once in memory: {by_index}"
    )
    free = shutil.disk_usage(root).free
    if disk > free:
        raise InsufficientSpaceError(
            f"{root} has {_megabytes(free)} free, and the build takes {estimate}; free some, or build fewer lengths"
        )
    available = psutil.virtual_memory().available
    if memory + min(memory, _WORKING_BYTES) > available:
        raise InsufficientSpaceError(
            f"{_megabytes(available)} of memory are available, and the build takes {estimate}; "
            f"give length {largest.length} a smaller kind: {'half' if largest.length == code_length else 'ivf-sq8'}"
        )
    return estimate


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:,.1f} MB"
