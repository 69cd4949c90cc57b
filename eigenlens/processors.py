"""How many processors this process may use: by its affinity, and by the quota of its container."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def processors() -> int:
    """Return the number of processors that this process may use: by its affinity and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(mount: Path, membership: Path) -> float | None:
    """Return the processors that the control groups of this process grant (cgroup v1 or v2); None without a limit."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return None
    quotas: list[float] = []
    for number, controllers, group in lines:
        if number == "0" and not controllers:
            quotas += _quotas(mount, group, _quota_of_version_2)
        elif "cpu" in controllers.split(","):
            quotas += _quotas(mount / "cpu", group, _quota_of_version_1)
    return min(quotas, default=None)


def _quotas(root: Path, group: str, read: Callable[[Path], float]) -> Iterator[float]:
    """Read the limits of a control group and of those around it; in a container, only its own may be visible."""
    for directory in (root / group.strip("/"), *(root / group.strip("/")).parents):
        if not directory.is_relative_to(root):
            break
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is "max"
            if (quota := read(directory)) > 0:
                yield quota


def _quota_of_version_2(directory: Path) -> float:
    quota, period = (directory / "cpu.max").read_text().split()
    return int(quota) / int(period)


def _quota_of_version_1(directory: Path) -> float:
    quota, period = (int((directory / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return quota / period  # below 0 without a limit
