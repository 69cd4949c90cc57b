"""Pictures of the documentation, drawn from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def plot_quality(records: Sequence[Mapping[str, Any]], *, metric: str, path: Path) -> None:
    """Plot quality by length of all methods, a panel a data set, the mean over seeds; no file without records."""
    from matplotlib.figure import Figure

    chosen = [r for r in records if r["metric"] == metric and r["params"]["queries_from"] == "test"]
    data = sorted({r["data"] for r in chosen})
    if not data:
        return
    figure = Figure(figsize=(5.5 * len(data), 5.2), layout="constrained")
    panels = figure.subplots(1, len(data), squeeze=False)[0]
    for panel, name in zip(panels, data, strict=True):
        for method, label, line, marker in _LINES:
            values: dict[int, list[float]] = {}
            for record in chosen:
                if record["data"] == name and record["method"] == method:
                    values.setdefault(record["length"], []).append(record["value"])
            lengths = sorted(values)
            means = [sum(values[length]) / len(values[length]) for length in lengths]
            width = 2.6 if method.startswith("eigenlens") else 1.2
            panel.plot(lengths, means, line, marker=marker, markersize=5, linewidth=width, label=label)
        panel.set_xscale("log", base=2)
        panel.set_xticks([4, 8, 16, 32, 64, 128, 256], labels=["4", "8", "16", "32", "64", "128", "256"])
        panel.set(title=name, xlabel="code length (coordinates)", ylabel=metric)
        panel.grid(alpha=0.3)
    panels[-1].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
