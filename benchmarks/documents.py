"""`eigenlens bench tables`: tables of the documentation, drawn from the records, so that no figure is typed by hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eigenlens.artifact import write_atomic
from eigenlens.benchmarks.common.records import RESULTS, read_records
from eigenlens.benchmarks.duplicates.tables import planted_table
from eigenlens.benchmarks.encoder.tables import kinds_table, novelty_table
from eigenlens.benchmarks.gpu.tables import gpu_search_table, gpu_steps_table
from eigenlens.benchmarks.heads.evaluate import OWN
from eigenlens.benchmarks.heads.tables import HEADS as HEAD_TITLES
from eigenlens.benchmarks.heads.tables import (
    OF_CROPS,
    OF_VIEWS,
    OWN_HEADS,
    frozen_table,
    gain_table,
    head_table,
    own_gain_table,
)
from eigenlens.benchmarks.nodes import tables as nodes
from eigenlens.benchmarks.nodes.plot import plot_nodes
from eigenlens.benchmarks.quality.plot import plot_quality
from eigenlens.benchmarks.quality.tables import COMPARED, method_table, quality_table, structure_table
from eigenlens.benchmarks.runtime.tables import runtime_table
from eigenlens.benchmarks.search.plot import plot_search
from eigenlens.benchmarks.search.tables import (
    SEARCHED,
    backends_table,
    batch_table,
    codes_table,
    growth_table,
    search_table,
)
from eigenlens.benchmarks.service.tables import (
    closed_table,
    gallery_bytes_table,
    gallery_scale_table,
    light_table,
    open_table,
)
from eigenlens.benchmarks.training.tables import steps_table

ROOT = Path(__file__).resolve().parent.parent  # the checkout, not the link to it in eigenlens/
FASHION = RESULTS / "fashion.jsonl"
QUALITY = RESULTS / "quality.jsonl"
NOVELTY = RESULTS / "novelty.jsonl"
KINDS = RESULTS / "kinds.jsonl"
DUPLICATES = RESULTS / "duplicates.jsonl"
HEADS = RESULTS / "heads.jsonl"
FROZEN = RESULTS / "frozen.jsonl"
NODES = RESULTS / "nodes.jsonl"
SEARCH = RESULTS / "search.jsonl"
BACKENDS = RESULTS / "backends.jsonl"
GALLERY_SCALE = RESULTS / "gallery-scale.jsonl"
SERVICE = RESULTS / "service.jsonl"
RUNTIME = RESULTS / "runtime.jsonl"
STEPS = RESULTS / "steps.jsonl"
GPU = RESULTS / "gpu.jsonl"

# Kinds of codes that searches are measured over.
VIEWS = "cifar10-views"
KINDS_OF_CODES = {
    VIEWS: "CIFAR-10, diffusion time 6",
    "cifar10-views-t1": "CIFAR-10, diffusion time 1",
    "photograph-views": "photographs, a head on a frozen backbone",
}


@dataclass(frozen=True)
class Table:
    """One drawn table: the document, the name that marks its place there, and what draws it."""

    document: Path
    name: str
    draw: Callable[[], str]

    def render(self, text: str) -> str:
        """The document's text with this table drawn anew."""
        begin, end = f"<!-- {self.name}:begin -->\n", f"<!-- {self.name}:end -->\n"
        head, marker, rest = text.partition(begin)
        assert marker, f"{self.document} has no place for the table '{self.name}'"
        _, _, tail = rest.partition(end)
        return f"{head}{begin}{self.draw()}\n{end}{tail}"


def _heads(data: str) -> Callable[[], str]:
    return lambda: head_table(read_records(HEADS), data=data, names=HEAD_TITLES)


def _gain_of_crops(data: str) -> Callable[[], str]:
    return lambda: gain_table(read_records(HEADS), names={OF_CROPS: HEAD_TITLES[OF_CROPS]}, data=data, rival=OF_VIEWS)


def _methods(data: str) -> Callable[[], str]:
    return lambda: method_table(read_records(QUALITY), data=data, names=COMPARED)


def _structure(data: str) -> Callable[[], str]:
    return lambda: structure_table(read_records(QUALITY), data=data, names=COMPARED)


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
    Table(ROOT / "docs/guide/quality.md", "cifar10-long", _methods("cifar10-long")),
    Table(ROOT / "docs/guide/quality.md", "tiny-imagenet-120-long", _methods("tiny-imagenet-120-long")),
    Table(ROOT / "docs/guide/quality.md", "structure", _structure("cifar10")),
    Table(ROOT / "docs/guide/quality.md", "novelty", lambda: novelty_table(read_records(NOVELTY))),
    Table(ROOT / "docs/guide/quality.md", "kinds", lambda: kinds_table(read_records(KINDS))),
    Table(ROOT / "docs/guide/quality.md", "duplicates", lambda: planted_table(read_records(DUPLICATES))),
    Table(ROOT / "docs/guide/quality.md", "clothing", _heads("clothing")),
    Table(ROOT / "docs/guide/quality.md", "holidays", _heads("holidays-half")),
    Table(ROOT / "docs/guide/quality.md", "planted", _heads("clothing-hard-views")),
    Table(ROOT / "docs/guide/quality.md", "gains", lambda: gain_table(read_records(HEADS), names=HEAD_TITLES)),
    Table(
        ROOT / "docs/guide/quality.md",
        "pooled",
        lambda: gain_table(read_records(HEADS), names=HEAD_TITLES, data="pooled"),
    ),
    Table(ROOT / "docs/guide/quality.md", "crops-holidays", _gain_of_crops("holidays-half")),
    Table(ROOT / "docs/guide/quality.md", "crops-pooled", _gain_of_crops("pooled")),
    Table(
        ROOT / "docs/guide/quality.md",
        "own",
        lambda: head_table(read_records(HEADS), data=OWN, names=OWN_HEADS),
    ),
    Table(ROOT / "docs/guide/quality.md", "own-gains", lambda: own_gain_table(read_records(HEADS), data=OWN)),
    Table(ROOT / "docs/guide/quality.md", "frozen", lambda: frozen_table(read_records(FROZEN))),
    Table(ROOT / "docs/guide/graphs.md", "probe", lambda: nodes.length_table(read_records(NODES), metric="probe")),
    Table(ROOT / "docs/guide/graphs.md", "retrieval", lambda: nodes.length_table(read_records(NODES), metric="P@10")),
    Table(ROOT / "docs/guide/graphs.md", "methods", lambda: nodes.method_table(read_records(NODES))),
    Table(ROOT / "docs/guide/graphs.md", "further", lambda: nodes.further_table(read_records(NODES))),
    Table(ROOT / "docs/guide/graphs.md", "new", lambda: nodes.new_table(read_records(NODES))),
    Table(ROOT / "docs/guide/graphs.md", "scale", lambda: nodes.scale_table(read_records(NODES))),
    Table(ROOT / "README.md", "search", lambda: search_table(read_records(SEARCH), data=VIEWS, count=1_000_000)),
    Table(
        ROOT / "docs/guide/speed.md",
        "codes",
        lambda: codes_table(read_records(SEARCH), names=KINDS_OF_CODES, count=1_000_000),
    ),
    Table(
        ROOT / "docs/guide/speed.md",
        "batches",
        lambda: batch_table(read_records(SEARCH), data=VIEWS, count=1_000_000),
    ),
    Table(ROOT / "docs/guide/nodes.md", "backends", lambda: backends_table(read_records(BACKENDS))),
    Table(ROOT / "docs/guide/outgrowing.md", "scale", lambda: gallery_scale_table(read_records(GALLERY_SCALE))),
    Table(ROOT / "docs/guide/outgrowing.md", "scale-bytes", lambda: gallery_bytes_table(read_records(GALLERY_SCALE))),
    Table(ROOT / "docs/guide/speed.md", "growth", lambda: growth_table(read_records(SEARCH), data=VIEWS)),
    Table(ROOT / "docs/guide/speed.md", "closed", lambda: closed_table(read_records(SERVICE))),
    Table(ROOT / "docs/guide/speed.md", "light", lambda: light_table(read_records(SERVICE))),
    Table(ROOT / "docs/guide/speed.md", "runtime", lambda: runtime_table(read_records(RUNTIME))),
    Table(ROOT / "docs/guide/speed.md", "steps", lambda: steps_table(read_records(STEPS))),
    Table(ROOT / "docs/guide/operations.md", "gpu-search", lambda: gpu_search_table(read_records(GPU))),
    Table(ROOT / "docs/guide/training.md", "gpu-steps", lambda: gpu_steps_table(read_records(GPU))),
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


PLOTS: tuple[Callable[[], None], ...] = (
    lambda: plot_quality(read_records(QUALITY), metric="mAP@1000", path=ROOT / "docs/quality.png"),
    lambda: plot_nodes(read_records(NODES), path=ROOT / "docs/nodes.png"),
    lambda: plot_search(
        read_records(SEARCH), data=VIEWS, count=1_000_000, names=SEARCHED, path=ROOT / "docs/search.png"
    ),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments: the command draws everything."""


def run(_: argparse.Namespace) -> None:
    """Draw all tables and pictures of the documentation anew."""
    for plot in PLOTS:
        plot()
    for table in TABLES:
        write_atomic(table.document, table.render(table.document.read_text()).encode())
