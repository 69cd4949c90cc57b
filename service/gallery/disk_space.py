"""Space check: estimates the disk and the memory that a generation needs, and refuses a build that does not fit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from eigenlens.index.building.sizes import building_bytes, codes_bytes, compact_codes_bytes, index_bytes
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.service.errors import InsufficientSpaceError

_MEGABYTE = 1_000_000
# Memory of a build besides an index: a sample of the codes, a run of codes, and the arrays of the calibration.
_WORKING_BYTES = 600 * _MEGABYTE


def require_space(
    root: Path, specs: Sequence[IndexSpec], *, count: int, code_length: int, has_compact_codes: bool = False
) -> str:
    """Estimate the disk and the memory that a generation of `count` images needs, and check that both are free.

    Args:
        specs: indexes that are files; those in a database are its own business.
        has_compact_codes: whether the generation is to have these too.

    Returns: the estimate as text, index by index.

    Raises: InsufficientSpaceError, if there is too little of either.
    """
    sizes = index_bytes(specs, count)
    disk = codes_bytes(count, code_length) + sum(sizes.values())
    if has_compact_codes:
        disk += compact_codes_bytes(count, code_length)
    peak_bytes = building_bytes(specs, count)
    largest = max(specs, key=lambda spec: peak_bytes[spec], default=None)
    memory = 0 if largest is None else peak_bytes[largest]
    by_index = ", ".join(f"length {spec.length} ({spec.kind}) {_megabytes(size)}" for spec, size in sizes.items())
    estimate = (
        f"{_megabytes(disk)} on disk for {count} images, at most {_megabytes(memory)} at once in memory: {by_index}"
        if specs
        else f"{_megabytes(disk)} on disk for {count} images"
    )
    free = shutil.disk_usage(root).free
    if disk > free:
        raise InsufficientSpaceError(
            f"{root} has {_megabytes(free)} free, and the build takes {estimate}; free some, or build fewer lengths"
        )
    available = psutil.virtual_memory().available
    if largest is not None and memory + min(memory, _WORKING_BYTES) > available:
        raise InsufficientSpaceError(
            f"{_megabytes(available)} of memory are available, and the build takes {estimate}; "
            f"give length {largest.length} a smaller kind: {'half' if largest.length == code_length else 'ivf-sq8'}"
        )
    return estimate


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:,.1f} MB"
