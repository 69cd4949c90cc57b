"""Benchmark records: one JSON object a line, with all that is needed to obtain the value again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from eigenlens.artifact import command_line

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Subject:
    """What values are measured of.

        subject = Subject(bench="search", data="cifar10-views", method="flat", params={"n": 1_000_000})
        append_records(path, [make_record(subject, "latency_ms", 54.2, "ms")])

    Attributes:
        data: name of the images or codes.
        method: one row of a comparison.
        length: prefix length; None where there is none.
        params: what else the values depend on.
    """

    bench: str
    data: str
    method: str
    length: int | None = None
    seed: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)


def make_record(subject: Subject, metric: str, value: float, unit: str = "") -> dict[str, Any]:
    """Return a record in the project's one format; commit, machine, command and date are filled in."""
    return {
        "bench": subject.bench,
        "data": subject.data,
        "method": subject.method,
        "length": subject.length,
        "metric": metric,
        "value": value,
        "unit": unit,
        "seed": subject.seed,
        "params": dict(subject.params),
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
    """Read all whole records of a results file; a line cut short by an interruption is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


@cache
def _commit() -> str:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


@cache
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
