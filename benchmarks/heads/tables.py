"""A table of heads on a frozen backbone, from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eigenlens.benchmarks.common.tables import Record, spread

HEADS = {
    "raw": "features, leading coordinates",
    "pca": "PCA of the features",
    "pca-of-roots": "PCA of their square roots",
    "views": "**Eigenlens**, positives are views",
    "neighbours": "**Eigenlens**, positives are neighbours",
    "both": "**Eigenlens**, both",
    "photos": "**Eigenlens**, views, fitted to more photographs",
}


def head_table(records: Sequence[Record], *, data: str, names: Mapping[str, str]) -> str:
    """Draw a Markdown table of heads on a frozen backbone, by length; empty where there is none."""
    newest: dict[str, dict[int, float]] = {}
    for record in records:
        if record["data"] == data:
            newest.setdefault(record["method"], {})[record["length"]] = record["value"]
    shown = [name for name in names if name in newest]
    if not shown:
        return ""
    lengths = sorted(newest[shown[0]])
    lines = ["| codes | " + " | ".join(map(str, lengths)) + " |", "|---" * (len(lengths) + 1) + "|"]
    for name in shown:
        cells = [spread([newest[name][length]] if length in newest[name] else []) for length in lengths]
        lines.append(f"| {names[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
