"""Recall against latency as a picture, drawn from the records."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LEAST_RECALL, _LEAST_MISS = 0.8, 2e-4
_MARKERS = "osv^DxP*<>hpXd"
_COLOURS = [f"C{number}" for number in range(10)]


def plot_search(
    records: Sequence[Mapping[str, Any]], *, data: str, count: int, names: Mapping[str, str], path: Path
) -> None:
    """Plot latency by recall@10 of all methods over `count` codes, one query at a time; no file without records."""
    from matplotlib.figure import Figure

    points: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        params = record["params"]
        measured = record["metric"] == "latency_ms" and record["data"] == data and params["n"] == count
        if measured and not params.get("exact") and params["recall_seen"] >= _LEAST_RECALL:
            points.setdefault(record["method"], []).append((params["recall_seen"], record["value"]))
    if not points:
        return
    figure = Figure(figsize=(8, 6), layout="constrained")
    panel = figure.subplots()
    styles = zip(itertools.cycle(_MARKERS), itertools.cycle(_COLOURS), strict=False)
    for (method, name), (marker, colour) in zip(names.items(), styles, strict=False):
        front = quickest(points.get(method, []))
        if front:
            misses, times = [max(1 - recall, _LEAST_MISS) for recall, _ in front], [ms for _, ms in front]
            line = "--" if method.endswith("+prefix") else "-"
            width = 2.6 if method.startswith("eigenlens") else 1.2
            panel.plot(
                misses,
                times,
                line,
                marker=marker,
                color=colour,
                markersize=5,
                linewidth=width,
                label=name.replace("**", ""),
            )
    panel.set(xscale="log", yscale="log", xlabel="recall@10", ylabel="ms a search, one thread, median")
    panel.set_xticks([0.2, 0.1, 0.05, 0.01, 0.001], labels=["0.8", "0.9", "0.95", "0.99", "0.999"])
    panel.minorticks_off()
    panel.invert_xaxis()
    panel.set_title(f"{count:,} codes of 256 coordinates")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def quickest(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (recall, milliseconds) that no other reaches in less time, by recall."""
    front: list[tuple[float, float]] = []
    for recall, milliseconds in sorted(points, key=lambda point: (-point[0], point[1])):
        if not front or milliseconds < front[-1][1]:
            front.append((recall, milliseconds))
    return front[::-1]
