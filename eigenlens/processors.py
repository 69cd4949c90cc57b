"""How many processors this process may use: by its affinity, and by the quota of its container."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path


def processors() -> int:
    """Return the number of processors that this process may use: by its affinity and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(mount: Path, membership: Path) -> float | None:
    """Return the processors that the control groups of this process grant (cgroup v2); None without a limit."""
    try:
        line = next(line for line in membership.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    group = mount / line.removeprefix("0::").strip("/")
    quotas = []
    for directory in (group, *group.parents):
        if not directory.is_relative_to(mount):
            break
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is "max"
            quota, period = (directory / "cpu.max").read_text().split()
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)
