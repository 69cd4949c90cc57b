"""A picture of codes of nodes by length, drawn from the records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eigenlens.benchmarks.common.tables import Record
from eigenlens.benchmarks.nodes.tables import GRAPHS

# Method, name in the legend, line style and marker: told apart without colour.
_LINES = (
    ("smooth", "Eigenlens, smooth", "-", "o"),
    ("features-only", "Eigenlens, features-only", "--", "o"),
    ("pca-smoothed", "PCA of S²X", "-", "s"),
    ("pca", "PCA of X", "--", "s"),
    ("laplacian-eigenmaps", "Laplacian Eigenmaps", "-", "^"),
    ("netmf", "NetMF", "-", "x"),
)
_COLUMNS = 3
_METRIC = "P@10"


def plot_nodes(records: Sequence[Record], *, path: Path) -> None:
    """Plot P@10 by length of all methods, a panel a graph; no file without records."""
    from matplotlib.figure import Figure

    values: dict[tuple[str, str], dict[int, float]] = {}
    for record in records:
        if record["metric"] == _METRIC:
            values.setdefault((record["data"], record["method"]), {})[record["length"]] = record["value"]
    graphs = [graph for graph in GRAPHS if (graph, "smooth") in values]
    if not graphs:
        return
    rows = -(-len(graphs) // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for panel, graph in zip(panels, graphs, strict=False):
        for number, (method, label, line, marker) in enumerate(_LINES):
            points = sorted(values.get((graph, method), {}).items())
            if not points:
                continue
            width = 2.4 if method == "smooth" else 1.2
            lengths, shares = zip(*points, strict=True)
            style = {"marker": marker, "markersize": 4, "linewidth": width, "color": f"C{number}"}
            panel.plot(lengths, shares, line, label=label, **style)
        panel.set_xscale("log", base=2)
        panel.set_xticks([4, 8, 16, 32, 64, 128], labels=["4", "8", "16", "32", "64", "128"])
        panel.set(title=GRAPHS[graph], xlabel="code length (coordinates)", ylabel=_METRIC)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
