"""Figures of a gallery and of what serves it."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from eigenlens.service.api.admin import StatsAnswer
from eigenlens.service.http.state import State


def stats_of(state: State) -> StatsAnswer:
    """What there is now."""
    gallery, snapshot = state.gallery, state.snapshots.current
    started = datetime.fromisoformat(state.started)
    return StatsAnswer(
        images=gallery.store.count(),
        searchable=len(snapshot.engine),
        pending=snapshot.engine.added,
        removed=snapshot.engine.removed,
        generation=snapshot.number,
        generations=gallery.numbers(),
        encoder=snapshot.encoder.id,
        encoders=sorted(path.name for path in gallery.encoders.iterdir() if not path.name.startswith(".")),
        bytes={
            "database": sum(path.stat().st_size for path in gallery.root.glob("gallery.sqlite*")),
            "codes": _size(gallery.codes),
            "generations": _size(gallery.generations),
            "encoders": _size(gallery.encoders),
            "backups": _size(gallery.root / "backups"),
        },
        free_bytes=shutil.disk_usage(gallery.root).free,
        resident_bytes=_resident(),
        uptime_s=round((datetime.now(UTC) - started).total_seconds(), 3),
        jobs=[job.id for job in state.jobs.list() if job.finished is None],
    )


def _size(folder: Path) -> int:
    """Bytes below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _resident() -> int | None:
    """Bytes of this process in memory, where the system tells."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
