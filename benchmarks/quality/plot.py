"""Pictures of the documentation, drawn from the records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from eigenlens.benchmarks.common.tables import Record
from eigenlens.benchmarks.quality.tables import newest_values

# Method, name in the legend, line style and marker: told apart without colour.
_LINES = (
    ("eigenlens", "Eigenlens", "-", "o"),
    ("eigenlens-features", "Eigenlens, of the features", "--", "o"),
    ("neural-eigenmap", "Neural Eigenmap", "-", "s"),
    ("neural-eigenmap+rr", "Neural Eigenmap + Rayleigh–Ritz", "--", "s"),
    ("scl", "SCL", "-", "^"),
    ("scl+pca", "SCL + PCA", "--", "^"),
    ("simclr", "SimCLR", "-", "v"),
    ("simclr+pca", "SimCLR + PCA", "--", "v"),
    ("barlow-twins", "Barlow Twins", "-", "D"),
    ("barlow-twins+pca", "Barlow Twins + PCA", "--", "D"),
    ("vicreg", "VICReg", "-", "x"),
    ("vicreg+pca", "VICReg + PCA", "--", "x"),
)


def plot_quality(records: Sequence[Record], *, metric: str, path: Path) -> None:
    """Plot quality by length of all methods, a panel a data set, the mean over seeds; no file without records."""
    from matplotlib.figure import Figure

    data = sorted({r["data"] for r in records if r["metric"] == metric and r["params"]["queries_from"] == "test"})
    if not data:
        return
    columns = min(len(data), 2)
    rows = math.ceil(len(data) / columns)
    figure = Figure(figsize=(5.5 * columns, 5.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, name in zip(panels, data, strict=False):
        by_method = newest_values(records, data=name, metric=metric)
        for method, label, line, marker in _LINES:
            values = by_method.get(method, {})
            lengths = sorted(values)
            means = [fmean(values[length]) for length in lengths]
            width = 2.6 if method == "eigenlens" else 1.2
            panel.plot(lengths, means, line, marker=marker, markersize=5, linewidth=width, label=label)
        panel.set_xscale("log", base=2)
        panel.set_xticks([4, 8, 16, 32, 64, 128, 256], labels=["4", "8", "16", "32", "64", "128", "256"])
        panel.set(title=name, xlabel="code length (coordinates)", ylabel=metric)
        panel.grid(alpha=0.3)
    panels[len(data) - 1].legend(fontsize=8)
    for panel in panels[len(data) :]:
        panel.remove()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
