"""Tables of codes of nodes, from the records."""

from __future__ import annotations

from collections.abc import Sequence

from eigenlens.benchmarks.common.tables import NO_RECORD, Record

GRAPHS = {
    "cora": "Cora",
    "citeseer": "CiteSeer",
    "amazon_photo": "Amazon Photo",
    "amazon_computers": "Amazon Computers",
    "coauthor_cs": "Coauthor CS",
    "facebook_pages": "Facebook pages",
}
METHODS = {
    "smooth": "**Eigenlens**, `smooth`",
    "smooth-unit": "**Eigenlens**, `smooth-unit`",
    "features-only": "**Eigenlens**, `features-only`",
    "structure-only": "**Eigenlens**, `structure-only`",
    "trained": "**Eigenlens**, trained",
    "pca-smoothed": "PCA of S²X",
    "pca": "PCA of X",
    "laplacian-eigenmaps": "Laplacian Eigenmaps",
    "netmf": "NetMF (DeepWalk)",
    "dgi": "DGI",
    "grace": "GRACE",
    "cca-ssg": "CCA-SSG",
    "bgrl": "BGRL",
}
_COMPARED = ("smooth", "smooth-unit", "trained", "pca-smoothed", "grace", "cca-ssg", "bgrl")
_NEW = ("seen", "new with edges", "new, one at a time", "new without edges")
_BELOW = "new with edges, below seen"
_AT, _NEW_AT = 8, 32


def length_table(records: Sequence[Record], *, metric: str) -> str:
    """Draw a metric by length, of `smooth`, of trained codes and of the closest peers, in per cent."""
    values = _newest(records)
    shown = [key for key in values if key[1] in _COMPARED and key[3] == metric]
    lengths = sorted({length for _, _, length, _ in shown if length is not None})
    lines = []
    for graph, title in GRAPHS.items():
        for method in _COMPARED:
            if any((graph, method, length, metric) in values for length in lengths):
                cells = [_percent(values.get((graph, method, length, metric))) for length in lengths]
                lines.append(f"| {title} | {METHODS[method]} | " + " | ".join(cells) + " |")
    return _table(["graph", "codes", *map(str, lengths)], lines)


def method_table(records: Sequence[Record]) -> str:
    """Draw all methods at 8 coordinates: probe and P@10, in per cent."""
    values = _newest(records)
    graphs = [graph for graph in GRAPHS if any(key[0] == graph for key in values)]
    lines = []
    for method, title in METHODS.items():
        if any((graph, method, _AT, "probe") in values for graph in graphs):
            cells = [
                " / ".join(_percent(values.get((graph, method, _AT, metric))) for metric in ("probe", "P@10"))
                for graph in graphs
            ]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    for method, title in (("sgc", "SGC, all features"), ("label-propagation", "label propagation, no codes")):
        scores = {
            graph: value for (graph, name, _, metric), value in values.items() if (name, metric) == (method, "probe")
        }
        if scores:
            lines.append(f"| {title} | " + " | ".join(_percent(scores.get(graph)) for graph in graphs) + " |")
    return _table(["codes", *(GRAPHS[graph] for graph in graphs)], lines)


def further_table(records: Sequence[Record]) -> str:
    """Draw what else is measured of `smooth` at 8 coordinates, in per cent, and the time of its fit."""
    values = _newest(records)
    lines = []
    for graph, title in GRAPHS.items():
        if (graph, "smooth", _AT, "probe") in values:
            metrics = ("probe", "probe of coordinates at random", "kNN", "Correct & Smooth")
            cells = [_percent(values.get((graph, "smooth", _AT, metric))) for metric in metrics]
            seconds = values.get((graph, "smooth", None, "fit CPU"))
            cells.append("–" if seconds is None else f"{seconds:.1f}")
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return _table(["graph", "first 8", "8 at random", "kNN", "Correct & Smooth", "fit, CPU s"], lines)


def new_table(records: Sequence[Record]) -> str:
    """Draw the accuracy on seen and on new nodes at 32 coordinates, in per cent, and how far new ones are below."""
    values = _newest(records)
    lines = []
    for graph, title in GRAPHS.items():
        for preset in ("smooth", "smooth-unit", "features-only"):
            method = f"new-{preset}"
            if (draws := values.get((graph, method, None, "draws"))) is not None:
                cells = [f"{draws:.0f}", *(_percent(values[graph, method, _NEW_AT, name]) for name in _NEW)]
                mean, error = (values[graph, method, _NEW_AT, name] for name in (_BELOW, f"{_BELOW}, standard error"))
                cells.append(f"{100 * mean:.1f} ± {100 * error:.1f}")
                lines.append(f"| {title} | `{preset}` | " + " | ".join(cells) + " |")
    head = ["draws", "seen", "with edges", "one at a time", "without edges", "with edges, below seen"]
    return _table(["graph", "preset", *head], lines)


def scale_table(records: Sequence[Record]) -> str:
    """Draw what importing a made graph takes and fitting to it, by its edges: CPU seconds and own memory."""
    values = {
        (r["params"]["edges"], r["method"], r["metric"]): r["value"] for r in records if r["bench"] == "graph-scale"
    }
    lines = []
    for edges in sorted({edges for edges, method, _ in values if method == "fit"}):
        cells = [f"{values[edges, stage, 'CPU']:.0f}" for stage in ("import", "fit")]
        memory = max(values[edges, stage, "own memory"] for stage in ("import", "fit"))
        lines.append(f"| {edges:,} | {' | '.join(cells)} | {memory:.2f} |")
    return _table(["edges", "import, CPU s", "fit, CPU s", "own memory, GB"], lines)


def _newest(records: Sequence[Record]) -> dict[tuple[str, str, int | None, str], float]:
    return {(r["data"], r["method"], r["length"], r["metric"]): r["value"] for r in records if r["bench"] == "nodes"}


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _table(head: list[str], lines: list[str]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]) if lines else NO_RECORD
