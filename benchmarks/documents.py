"""Tables of the documentation, drawn from the records, so that no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eigenlens.artifact import write_atomic
from eigenlens.benchmarks.common.records import RESULTS, read_records
from eigenlens.benchmarks.quality.plot import plot_quality, plot_search
from eigenlens.benchmarks.search.tables import SEARCHED, growth_table, search_table
from eigenlens.benchmarks.service.tables import closed_table, open_table, runtime_table

ROOT = Path(__file__).resolve().parent.parent  # the checkout, not the link to it in eigenlens/
FASHION = RESULTS / "fashion.jsonl"
QUALITY = RESULTS / "quality.jsonl"
HEADS = RESULTS / "heads.jsonl"
SEARCH = RESULTS / "search.jsonl"
SERVICE = RESULTS / "service.jsonl"
RUNTIME = RESULTS / "runtime.jsonl"
STEPS = RESULTS / "steps.jsonl"


@dataclass(frozen=True)
class Table:
    """One drawn table: the document, the name that marks its place there, and what draws it."""

    document: Path
    name: str
    draw: Callable[[], str]

    def render(self, text: str) -> str:
        """The document's text with this table drawn anew."""
        begin, end = f"<!-- {self.name}:begin -->\n", f"<!-- {self.name}:end -->\n"
        head, found, rest = text.partition(begin)
        assert found, f"{self.document} has no place for the table '{self.name}'"
        _, _, tail = rest.partition(end)
        return f"{head}{begin}{self.draw()}\n{end}{tail}"


def quality_table(
    records: Sequence[Mapping[str, Any]],
    *,
    queries_from: str,
    names: Mapping[str, str],
    metric: str = "precision@100",
) -> str:
    """A Markdown table, methods by length, from the newest record of each; empty where there is none."""
    newest: dict[str, dict[int, float]] = {}
    for record in records:
        if record["metric"] == metric and record["params"]["queries_from"] == queries_from:
            newest.setdefault(record["method"], {})[record["length"]] = record["value"]
    shown = {method: newest[method] for method in names if method in newest}
    if not shown:
        return ""
    shared = sorted(set.intersection(*(set(values) for values in shown.values())))
    short = [length for length in shared if length < min(max(values) for values in shown.values())]
    lines = ["| length | " + " | ".join([*map(str, short), "full"]) + " |", "|---" * (len(short) + 2) + "|"]
    for method, values in shown.items():
        full = max(values)
        cells = [*(f"{values[length]:.3f}" for length in short), f"{values[full]:.3f} ({full})"]
        lines.append(f"| {names[method]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def method_table(
    records: Sequence[Mapping[str, Any]], *, data: str, names: Mapping[str, str], metric: str = "mAP@1000"
) -> str:
    """A Markdown table, methods by length: the mean over seeds, with the range where there are several."""
    found: dict[str, dict[int, dict[int, float]]] = {}
    for record in records:
        if record["data"] == data and record["metric"] == metric and record["params"]["queries_from"] == "test":
            found.setdefault(record["method"], {}).setdefault(record["length"], {})[record["seed"]] = record["value"]
    shown = [name for name in names if name in found]
    if not shown:
        return ""
    lengths = sorted(set.union(*(set(found[name]) for name in shown)))
    lines = ["| method | " + " | ".join(map(str, lengths)) + " |", "|---" * (len(lengths) + 1) + "|"]
    for name in shown:
        cells = [_spread(list(found[name].get(length, {}).values())) for length in lengths]
        lines.append(f"| {names[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    mean = sum(values) / len(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ±{(max(values) - min(values)) / 2:.3f}"


def head_table(records: Sequence[Mapping[str, Any]], *, data: str, names: Mapping[str, str]) -> str:
    """A Markdown table of heads on a frozen backbone, by length; empty where there is none."""
    found: dict[str, dict[int, float]] = {}
    for record in records:
        if record["data"] == data:
            found.setdefault(record["method"], {})[record["length"]] = record["value"]
    shown = [name for name in names if name in found]
    if not shown:
        return ""
    lengths = sorted(found[shown[0]])
    lines = ["| codes | " + " | ".join(map(str, lengths)) + " |", "|---" * (len(lengths) + 1) + "|"]
    for name in shown:
        cells = [_spread([found[name][length]] if length in found[name] else []) for length in lengths]
        lines.append(f"| {names[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def structure_table(records: Sequence[Mapping[str, Any]], *, data: str, names: Mapping[str, str]) -> str:
    """A Markdown table of the first 16 coordinates beside 16 random ones, and of the effective rank, with seed 0."""
    wanted = {"mAP@1000": "first", "mAP@1000 of random coordinates": "random", "effective rank": "rank"}
    found: dict[str, dict[str, float]] = {}
    for record in records:
        column = wanted.get(record["metric"])
        if record["data"] != data or record["seed"] != 0 or record["params"]["queries_from"] != "test":
            continue
        if column == "rank" or (column and record["length"] == 16):
            found.setdefault(record["method"], {})[column] = record["value"]
    lines = ["| method | first 16 | 16 random | gain | effective rank |", "|---" * 5 + "|"]
    for name, title in names.items():
        if name in found:
            values = found[name]
            gain = values["first"] / values["random"] - 1
            cells = [f"{values['first']:.3f}", f"{values['random']:.3f}", f"{gain:+.0%}", f"{values['rank']:.0f}"]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if found else ""


def steps_table(records: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of a training step's time, the newest of each method; empty where there is none."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        found.setdefault(record["method"], {})[record["metric"]] = record["value"]
    lines = ["| step | time | of the bare network's |", "|---|---|---|"]
    for name, title in _STEPS.items():
        if name in found:
            lines.append(f"| {title} | {found[name]['step_ms']:.0f} ms | {found[name]['of bare']:.2f} |")
    return "\n".join(lines) if found else ""


_STEPS = {
    "bare": "the network alone, forward and backward",
    "eigenlens": "**Eigenlens**: views, network, Barlow Twins loss, optimiser",
    "lightly-barlow-twins": "lightly's transform and loss, same network and optimiser",
}


_COMPARED = {
    "eigenlens": "**Eigenlens**",
    "neural-eigenmap": "Neural Eigenmap, as trained",
    "neural-eigenmap+pca": "Neural Eigenmap + PCA",
    "neural-eigenmap+rr": "Neural Eigenmap + Rayleigh–Ritz",
    "scl": "SCL, as trained",
    "scl+pca": "SCL + PCA",
    "scl-features+pca": "SCL, features + PCA",
    "simclr": "SimCLR, as trained",
    "simclr+pca": "SimCLR + PCA",
    "simclr-features+pca": "SimCLR, features + PCA",
    "barlow-twins": "Barlow Twins, as trained",
    "barlow-twins+pca": "Barlow Twins + PCA",
    "barlow-twins-features+pca": "Barlow Twins, features + PCA",
    "vicreg": "VICReg, as trained",
    "vicreg+pca": "VICReg + PCA",
    "vicreg-features+pca": "VICReg, features + PCA",
}


_HEADS = {
    "raw": "features, the first so many",
    "pca": "PCA of the features",
    "pca-of-roots": "PCA of their square roots",
    "views": "**Eigenlens**, positives are views",
    "neighbours": "**Eigenlens**, positives are neighbours",
    "both": "**Eigenlens**, both",
    "photos": "**Eigenlens**, views, fitted to more photographs",
}


def _heads(data: str) -> Callable[[], str]:
    return lambda: head_table(read_records(HEADS), data=data, names=_HEADS)


def _methods(data: str) -> Callable[[], str]:
    return lambda: method_table(read_records(QUALITY), data=data, names=_COMPARED)


def _structure(data: str) -> Callable[[], str]:
    return lambda: structure_table(read_records(QUALITY), data=data, names=_COMPARED)


def _quality(queries_from: str, names: Mapping[str, str]) -> Callable[[], str]:
    return lambda: quality_table(read_records(FASHION), queries_from=queries_from, names=names)


TABLES = (
    Table(
        ROOT / "README.md",
        "table",
        _quality(
            "test",
            {
                "eigenlens-fashion-demo": "the demo's encoder",
                "eigenlens-fashion-long": "trained longer",
                "pca-of-pixels": "PCA of the pixels",
            },
        ),
    ),
    Table(ROOT / "docs/guide/quality.md", "cifar10", _methods("cifar10")),
    Table(ROOT / "docs/guide/quality.md", "tiny-imagenet-120", _methods("tiny-imagenet-120")),
    Table(ROOT / "docs/guide/quality.md", "structure", _structure("cifar10")),
    Table(ROOT / "docs/guide/quality.md", "clothing", _heads("clothing")),
    Table(ROOT / "docs/guide/quality.md", "holidays", _heads("holidays-half")),
    Table(ROOT / "README.md", "search", lambda: search_table(read_records(SEARCH), count=1_000_000)),
    Table(ROOT / "docs/guide/speed.md", "growth", lambda: growth_table(read_records(SEARCH))),
    Table(ROOT / "docs/guide/speed.md", "closed", lambda: closed_table(read_records(SERVICE))),
    Table(ROOT / "docs/guide/speed.md", "runtime", lambda: runtime_table(read_records(RUNTIME))),
    Table(ROOT / "docs/guide/speed.md", "steps", lambda: steps_table(read_records(STEPS))),
    Table(ROOT / "docs/guide/speed.md", "open", lambda: open_table(read_records(SERVICE))),
    Table(
        ROOT / "docs/decisions/0004-positives-for-the-sample.md",
        "table",
        _quality(
            "validation",
            {
                "demo": "10 neighbours, crops from 0.9, noise 0.15 (the preset)",
                "demo-views": "two views of one image",
                "demo-crops": "10 neighbours, crops from 0.5",
                "pca-of-pixels": "PCA of the pixels",
            },
        ),
    ),
)


def update_documents() -> None:
    """Draw all tables and pictures of the documentation anew."""
    plot_quality(read_records(QUALITY), metric="mAP@1000", path=ROOT / "docs/quality.png")
    plot_search(read_records(SEARCH), count=1_000_000, names=SEARCHED, path=ROOT / "docs/search.png")
    for table in TABLES:
        write_atomic(table.document, table.render(table.document.read_text()).encode())
