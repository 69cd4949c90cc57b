"""Whether a generation fits: what it will take is told, and a build for which there is no room is refused at once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from eigenlens.index.building.sizes import building_bytes, codes_bytes, index_bytes
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.service.errors import NoRoomError

_MEGA = 1_000_000
# Beside an index, a build holds a sample of the codes, a run of them and what calibration compares.
_BESIDE_BYTES = 600 * _MEGA
_OF_MEMORY = Path("/proc/meminfo")


def require_room(root: Path, specs: Sequence[IndexSpec], *, count: int, code_length: int) -> str:
    """Tell what a generation of so many images takes, about. Raises: NoRoomError, if there is less."""
    sizes = index_bytes(specs, count)
    disk = codes_bytes(count, code_length) + sum(sizes.values())
    building = building_bytes(specs, count)
    largest = max(specs, key=lambda spec: building[spec])
    memory = building[largest]
    told = ", ".join(f"length {spec.length} ({spec.kind}) {size / _MEGA:,.1f} MB" for spec, size in sizes.items())
    told = (
        f"{disk / _MEGA:,.1f} MB on disk for {count} images, at most {memory / _MEGA:,.1f} MB at once in memory: {told}"
    )
    free = shutil.disk_usage(root).free
    if disk > free:
        raise NoRoomError(
            f"{root} has {free / _MEGA:,.1f} MB free, and the build takes {told}; free some, or build fewer lengths"
        )
    available = _available_memory()
    if available is not None and memory + min(memory, _BESIDE_BYTES) > available:
        raise NoRoomError(
            f"{available / _MEGA:,.1f} MB of memory are available, and the build takes {told}; "
            f"give length {largest.length} a smaller kind: {'half' if largest.length == code_length else 'ivf-sq8'}"
        )
    return told


def _available_memory() -> int | None:
    """Bytes that a process may take without others being swapped out; None where the system does not tell."""
    try:
        lines = _OF_MEMORY.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else 1024 * int(found)
