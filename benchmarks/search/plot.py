"""Recall against latency as a picture, drawn from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LEAST_RECALL, _LEAST_MISS = 0.8, 2e-4


def plot_search(records: Sequence[Mapping[str, Any]], *, count: int, names: Mapping[str, str], path: Path) -> None:
    """Plot latency by recall@10 of all methods over `count` codes, one query at a time; no file without records."""
    from matplotlib.figure import Figure

    curves: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        params = record["params"]
        if record["metric"] == "latency_ms" and params["n"] == count and not params.get("exact"):
            curves.setdefault(record["method"], []).append((params["recall_seen"], record["value"]))
    if not curves:
        return
    figure = Figure(figsize=(7, 5), layout="constrained")
    panel = figure.subplots()
    for (method, name), marker in zip(names.items(), "osv^DxP", strict=True):
        points = sorted(point for point in curves.get(method, []) if point[0] >= _LEAST_RECALL)
        if points:
            misses, times = [max(1 - recall, _LEAST_MISS) for recall, _ in points], [ms for _, ms in points]
            width = 2.6 if method == "eigenlens" else 1.2
            panel.plot(misses, times, marker=marker, markersize=5, linewidth=width, label=name.strip("*"))
    panel.set(xscale="log", yscale="log", xlabel="recall@10", ylabel="ms a search, one thread, median")
    panel.set_xticks([0.2, 0.1, 0.05, 0.01, 0.001], labels=["0.8", "0.9", "0.95", "0.99", "0.999"])
    panel.minorticks_off()
    panel.invert_xaxis()
    panel.set_title(f"{count:,} codes of 256 coordinates")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
