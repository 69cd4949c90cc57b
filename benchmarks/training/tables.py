"""A table of a training step's time, from the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eigenlens.benchmarks.common.tables import Record

_STEPS = {
    "bare": "the network alone, forward and backward",
    "eigenlens": "**Eigenlens**: views, network, Barlow Twins loss, optimiser",
    "lightly-barlow-twins": "lightly's transform and loss, same network and optimiser",
}


def steps_table(records: Sequence[Record]) -> str:
    """Draw a Markdown table of a training step's time, the newest of each method; empty where there is none."""
    newest: dict[str, dict[str, Any]] = {}
    for record in records:
        newest.setdefault(record["method"], {})[record["metric"]] = record["value"]
    lines = ["| step | time | relative to the bare network |", "|---|---|---|"]
    for name, title in _STEPS.items():
        if name in newest:
            lines.append(f"| {title} | {newest[name]['step_ms']:.0f} ms | {newest[name]['of bare']:.2f} |")
    return "\n".join(lines) if newest else ""
