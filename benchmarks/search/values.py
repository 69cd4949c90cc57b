"""What is measured of a method: times, recall and memory, as values for the records."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eigenlens.benchmarks.search.interleaved import Search, Trial, time_each
from eigenlens.benchmarks.search.setup import Ids, Setup, Vectors
from eigenlens.index.metrics import recall_at_k

Values = list[dict[str, Any]]
TARGETS = (0.9, 0.95, 0.99, 0.999)
EXACT_QUERIES = 100
SLOWEST_MS = 25.0  # a curve ends there


def exact_trial(setup: Setup, search: Search, **params: Any) -> Trial:
    """Return a search of everything: it takes its time, so few queries and one pass are enough."""
    return Trial("exact", lambda: search, setup.queries[:EXACT_QUERIES], passes=1, params={"exact": True} | params)


def time_twice(search: Search, queries: Vectors) -> tuple[list[float], list[Ids]]:
    """Return milliseconds and results of every query; a first pass over them all is not timed."""
    time_each(search, queries)
    return time_each(search, queries)


def recall_of(ids: Sequence[Ids], exact: Ids) -> float:
    """Return the mean recall@10 of queries' results, against the exact ones of at least as many queries."""
    return float(recall_at_k(np.asarray(ids), exact[: len(ids)]).mean())


def latency(times: Sequence[float], recall: float, *, target: float | None = None, **params: Any) -> dict[str, Any]:
    """Return the value "latency_ms" of searches of one thread: the median of these milliseconds."""
    p50, p95, p99 = (round(float(np.percentile(times, q)), 4) for q in (50, 95, 99))
    goal = {} if target is None else {"recall": target}
    return value_of(
        "latency_ms", p50, "ms", threads=1, **goal, recall_seen=round(recall, 4), p95=p95, p99=p99, **params
    )


def value_of(metric: str, value: float, unit: str, **params: Any) -> dict[str, Any]:
    """Return one value as a record has it."""
    return {"metric": metric, "value": round(float(value), 4), "unit": unit, "params": params}


def anonymous_bytes() -> int:
    """Return the memory of this process that no file backs, in bytes."""
    return _status("RssAnon")


def peak_resident_bytes() -> int:
    """Return the most memory that this process held, mapped files included, in bytes."""
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def print_values(method: str, values: Sequence[Mapping[str, Any]]) -> None:
    """Print a method's values but those of its curve."""
    for value in values:
        params = value["params"]
        if params.get("curve"):
            continue
        target = "exact" if params.get("exact") else f"recall {params['recall']}" if "recall" in params else ""
        seen = f"recall seen {params['recall_seen']:.4f}" if "recall_seen" in params else ""
        print(f"{method:<20}{value['metric']:<14}{target:<14}{value['value']:>16,.4f} {value['unit']:<4}{seen}")
    sys.stdout.flush()
