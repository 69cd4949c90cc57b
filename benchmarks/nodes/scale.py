"""`eigenlens bench graph-scale`: make a graph of the size of ogbn-products, and measure its import and its fit."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.model.errors import ConfigError
from eigenlens.model.graphs.fit import fit_graph
from eigenlens.model.graphs.settings import PRESETS
from eigenlens.model.graphs.sources.open import open_graph_source
from eigenlens.model.graphs.two_passes import import_graph

Result = TypeVar("Result")
_CLASSES = 47
_SAME_CLASS = 0.8
_SKEW = 1.6
_CHUNK = 1 << 20
_SAMPLE_EVERY_S = 0.02


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--nodes", type=positive, default=2_400_000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--edges", type=positive, default=60_000_000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--features", type=positive, default=100, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--rounds", type=positive, default=1, help="measure so often; the ratio is of the shortest (default: 1)"
    )
    parser.add_argument("--double", action="store_true", help="measure a graph of twice the edges too, and the ratio")
    parser.add_argument("--source", metavar="SOURCE", help="measure this graph instead of a made one")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where to make it, 5 GB (default: a temporary folder)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Measure import and fit; with `--double`, of twice the edges too. Raises: EigenlensError."""
    if args.double and args.source:
        raise ConfigError("--double is of made graphs: leave --source out")
    if args.double:
        _warm_up()
    sizes = (args.edges, 2 * args.edges) if args.double else (args.edges,)
    # All sizes in every round, so that a disturbance meets each of them; what disturbs only adds time.
    rounds = [[_measure(args, edges) for edges in sizes] for _ in range(args.rounds)]
    cpu_s = np.min(rounds, axis=0)
    if args.double:
        params = {"nodes": args.nodes, "edges": args.edges, "features": args.features}
        subject = Subject(bench="graph-scale", data="made", method="import and fit", params=params)
        ratio = float(cpu_s[1] / cpu_s[0])
        print(f"twice the edges: {ratio:.2f} times the CPU s", flush=True)
        if args.results:
            append_records(args.results, [make_record(subject, "CPU of twice the edges", round(ratio, 3), "ratio")])


def _warm_up() -> None:
    """Import and fit a tiny graph: what is loaded once counts in neither of two measurements."""
    with tempfile.TemporaryDirectory() as folder:
        make_graph(Path(folder) / "made", nodes=_CLASSES, edges=_CLASSES, features=2)
        graph = import_graph(open_graph_source(str(Path(folder) / "made")), Path(folder) / "graph")
        fit_graph(graph, PRESETS["smooth"])


def _measure(args: argparse.Namespace, edges: int) -> float:
    """Measure import and fit of a graph with so many edges; return the CPU seconds of both."""
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        if args.source is None:
            make_graph(work / "made", nodes=args.nodes, edges=edges, features=args.features)
        source = open_graph_source(args.source or str(work / "made"))
        graph, *of_import = _measured(lambda: import_graph(source, work / "graph"))
        _, *of_fit = _measured(lambda: fit_graph(graph, PRESETS["smooth"], work=work))
    params = {"nodes": graph.count, "edges": graph.edges, "features": graph.feature_count}
    data = graph.name if args.source else "made"
    records = []
    for stage, (cpu_s, own_bytes) in (("import", of_import), ("fit", of_fit)):
        subject = Subject(bench="graph-scale", data=data, method=stage, params=params)
        records.append(make_record(subject, "CPU", round(cpu_s, 1), "s"))
        records.append(make_record(subject, "own memory", round(own_bytes / 1e9, 3), "GB"))
        print(f"{stage}: {cpu_s:.0f} CPU s, {own_bytes / 1e9:.2f} GB of own memory", flush=True)
    if args.results:
        append_records(args.results, records)
    return of_import[0] + of_fit[0]


def make_graph(path: Path, *, nodes: int, edges: int, features: int) -> None:
    """Write a graph with classes and skewed degrees as a folder of arrays, chunk by chunk."""
    rng = np.random.default_rng(0)
    path.mkdir(parents=True)
    labels = rng.integers(0, _CLASSES, nodes)
    of_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[of_class], np.arange(_CLASSES + 1))
    ends = np.lib.format.open_memmap(path / "edges.npy", "w+", np.int32, (edges, 2))
    for start in range(0, edges, _CHUNK):
        count = min(_CHUNK, edges - start)
        a = (nodes * rng.random(count) ** _SKEW).astype(np.int64)
        first, size = starts[labels[a]], np.diff(starts)[labels[a]]
        b = of_class[first + (rng.random(count) ** _SKEW * size).astype(np.int64)]
        elsewhere = (nodes * rng.random(count)).astype(np.int64)
        ends[start : start + count] = np.stack([a, np.where(rng.random(count) < _SAME_CLASS, b, elsewhere)], axis=1)
    centres = 0.3 * rng.standard_normal((_CLASSES, features), dtype=np.float32)
    values = np.lib.format.open_memmap(path / "nodes.npy", "w+", np.float32, (nodes, features))
    for start in range(0, nodes, _CHUNK):
        part = labels[start : start + _CHUNK]
        values[start : start + _CHUNK] = centres[part] + rng.standard_normal((len(part), features), dtype=np.float32)
    np.save(path / "labels.npy", labels)


def _measured(work: Callable[[], Result]) -> tuple[Result, float, float]:
    """Run something; return its result, its CPU seconds, and the most bytes of the process that no file backs."""
    most, done = [_own_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_EVERY_S):
            most.append(max(most.pop(), _own_bytes()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.process_time()
    try:
        result = work()
    finally:
        cpu_s = time.process_time() - began
        done.set()
        watcher.join()
    return result, cpu_s, most[0]


def _own_bytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
