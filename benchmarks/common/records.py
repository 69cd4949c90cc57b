"""Benchmark records: one JSON object a line, with all that is needed to obtain the value again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eigenlens.artifact import command_line

RESULTS = Path(__file__).parents[1] / "results"


def make_record(
    *,
    bench: str,
    data: str,
    method: str,
    length: int | None,
    metric: str,
    value: float,
    unit: str = "",
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A record in the project's one format; commit, machine, command and date are filled in."""
    return {
        "bench": bench,
        "data": data,
        "method": method,
        "length": length,
        "metric": metric,
        "value": value,
        "unit": unit,
        "seed": seed,
        "params": dict(params or {}),
        "command": command_line(),
        "commit": _commit(),
        "machine": _machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def append_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add records to a results file, flushed to disk, so that an interrupted benchmark keeps what it measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as f:
        f.writelines(json.dumps(record) + "\n" for record in records)
        f.flush()
        os.fsync(f.fileno())


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole records of a results file; a line cut short by an interruption is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _commit() -> str:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores, {model}, {memory:.0f} GiB"
