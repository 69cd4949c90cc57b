"""`eigenlens bench nodes`: fit each method to labelled graphs, measure it by length, print a line for each."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.nodes import probe
from eigenlens.benchmarks.nodes.differing import with_differing_neighbours
from eigenlens.benchmarks.nodes.methods import LENGTH, METHODS, Codes, trained
from eigenlens.benchmarks.nodes.network_peers import NETWORKS, epochs_of
from eigenlens.benchmarks.nodes.new_nodes import new_node_accuracy
from eigenlens.model.commands.fit_graph import open_graph
from eigenlens.model.errors import ConfigError
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.node_features import UnitFeatures
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.graphs.sparse import SparseRows

LENGTHS = (4, 8, 16, 32, 64, 128)
PROBED = (4, 8, 32, 128)
_RANDOM_LENGTH = 8
_VOTED = (8, 32)
_CORRECTED = (8, 128)
_NEW_LENGTH = 32
# How often new nodes are drawn: a tenth of a small graph is a few hundred, by which accuracy varies by points.
_FEW_NODES, _DRAWS_OF_FEW, _DRAWS_OF_MANY = 5000, 40, 5
_SGC_HOPS = 2
_TRAINED, _TRAINED_SEEDS = "trained", (0, 1, 2)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("graphs", metavar="SOURCE", nargs="+", help="graphs with features and labels")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where graphs are imported and kept")
    parser.add_argument(
        "--methods", metavar="NAME,...", help=f"of {', '.join(ALL)} (default: all but {', '.join(NETWORKS)})"
    )
    parser.add_argument(
        "--differing", action="store_true", help="replace the edges by as many between nodes of different labels"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="add the records to FILE; what is there is skipped"
    )


def run(args: argparse.Namespace) -> None:
    """Measure all methods on all graphs. Raises: EigenlensError."""
    methods = args.methods.split(",") if args.methods else [name for name in ALL if name not in NETWORKS]
    if unknown := set(methods) - set(ALL):
        raise ConfigError(f"there is no method {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        for source in args.graphs:
            graph = open_graph(source, work)
            if graph.labels is None or graph.feature_count == 0:
                raise ConfigError(f"{source} has no labels or no features; this benchmark needs both")
            if (labelled := int((graph.labels >= 0).sum())) < probe.MIN_LABELLED:
                raise ConfigError(f"{source} has {labelled} labelled nodes; ten splits need {probe.MIN_LABELLED}")
            if args.differing:
                graph = with_differing_neighbours(graph, Path(folder) / f"differing-{graph.id}")
            known = {(r["data"], r["method"]) for r in read_records(args.results)} if args.results else set()
            for method in methods:
                if (graph.name, method) in known:
                    print(f"{graph.name}: {method} is in {args.results} already", file=sys.stderr)
                    continue
                began = time.process_time()
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    values = ALL[method](graph, Path(scratch))
                values.append((None, "CPU", time.process_time() - began, "s"))
                _print(graph.name, method, values)
                if args.results:
                    append_records(args.results, [_record(graph, method, *value) for value in values])


Value = tuple[int | None, str, float, str]
"""Length, metric, value and unit."""


def _measure_codes(method: str, graph: Graph, work: Path) -> list[Value]:
    """Fit codes and measure them at each length."""
    began = time.process_time()
    codes = METHODS[method](graph, work)
    values: list[Value] = [(None, "fit CPU", time.process_time() - began, "s"), *_by_length(codes, graph)]
    if method in ("smooth", "smooth-unit", "features-only"):
        values += _further(codes, graph)
    return values


def _measure_seeds(method: str, graph: Graph, work: Path) -> list[Value]:
    """Train codes with several seeds; return the mean of each value, and the least of each probe."""
    runs: list[list[Value]] = []
    for seed in _TRAINED_SEEDS:
        began = time.process_time()
        codes = trained(graph, work, seed=seed) if method == _TRAINED else NETWORKS[method](graph, seed)
        runs.append([(None, "fit CPU", time.process_time() - began, "s"), *_by_length(codes, graph)])
    values: list[Value] = []
    for of_seeds in zip(*runs, strict=True):
        length, metric, _, unit = of_seeds[0]
        numbers = [value for _, _, value, _ in of_seeds]
        values.append((length, metric, float(np.mean(numbers)), unit))
        if metric == "probe":
            values.append((length, "probe, worst seed", min(numbers), unit))
    return values


def _by_length(codes: Codes, graph: Graph) -> list[Value]:
    labels = graph.labels
    assert labels is not None
    values: list[Value] = [
        (length, "P@10", probe.precision_at_10(codes, labels, length=length), "") for length in LENGTHS
    ]
    values += [
        (length, "probe", float(np.mean(probe.probe_accuracy(codes[:, :length], labels))), "") for length in PROBED
    ]
    return values


def _further(codes: Codes, graph: Graph) -> list[Value]:
    """Measure what is asked of Eigenlens' own codes alone."""
    labels, smoother = graph.labels, Smoother(graph)
    assert labels is not None
    drawn = [
        codes[:, np.random.default_rng(seed).permutation(codes.shape[1])[:_RANDOM_LENGTH]] for seed in probe.SEEDS[:3]
    ]
    at_random = [np.mean(probe.probe_accuracy(some, labels, seeds=probe.SEEDS[:3])) for some in drawn]
    values: list[Value] = [(_RANDOM_LENGTH, "probe of coordinates at random", float(np.mean(at_random)), "")]
    values += [
        (length, "kNN", float(np.mean(probe.vote_accuracy(codes, labels, length=length))), "") for length in _VOTED
    ]
    for length in _CORRECTED:
        smoothed = probe.correct_and_smooth(codes[:, :length], smoother, labels)
        values.append((length, "Correct & Smooth", float(np.mean(smoothed)), ""))
    return values


def _measure_new(preset: str, graph: Graph, work: Path) -> list[Value]:
    """Return the means over draws of new nodes, and by how much they are below seen ones, with its standard error."""
    draws = _DRAWS_OF_FEW if graph.count < _FEW_NODES else _DRAWS_OF_MANY
    seeds = range(probe.SEEDS[0], probe.SEEDS[0] + draws)
    accuracies = [new_node_accuracy(graph, preset, work, seed=seed, length=_NEW_LENGTH) for seed in seeds]
    values: list[Value] = [(None, "draws", draws, "")]
    values += [(_NEW_LENGTH, name, float(np.mean([a[name] for a in accuracies])), "") for name in accuracies[0]]
    for name in list(accuracies[0])[1:]:
        below = [a["seen"] - a[name] for a in accuracies]
        values.append((_NEW_LENGTH, f"{name}, below seen", float(np.mean(below)), ""))
        error = float(np.std(below, ddof=1)) / math.sqrt(draws)
        values.append((_NEW_LENGTH, f"{name}, below seen, standard error", error, ""))
    return values


def _measure_sgc(graph: Graph, work: Path) -> list[Value]:
    """Measure the probe of all smoothed features. Source: Wu et al., Simplifying graph convolutional networks, 2019."""
    assert graph.labels is not None
    rows = UnitFeatures(graph).rows(0, graph.count)
    dense = rows.to_dense() if isinstance(rows, SparseRows) else np.array(rows, dtype=np.float32)
    smoothed = Smoother(graph).smooth(dense, _SGC_HOPS)
    accuracy = probe.probe_accuracy(smoothed, graph.labels, seeds=probe.SEEDS[:3])
    return [(graph.feature_count, "probe", float(np.mean(accuracy)), "")]


def _measure_propagation(graph: Graph, work: Path) -> list[Value]:
    assert graph.labels is not None
    return [(None, "probe", float(np.mean(probe.label_propagation(Smoother(graph), graph.labels))), "")]


ALL: dict[str, Any] = {
    **{name: (lambda graph, work, name=name: _measure_codes(name, graph, work)) for name in METHODS},
    **{name: (lambda graph, work, name=name: _measure_seeds(name, graph, work)) for name in (_TRAINED, *NETWORKS)},
    "sgc": _measure_sgc,
    "label-propagation": _measure_propagation,
    "new-smooth": lambda graph, work: _measure_new("smooth", graph, work),
    "new-smooth-unit": lambda graph, work: _measure_new("smooth-unit", graph, work),
    "new-features-only": lambda graph, work: _measure_new("features-only", graph, work),
}


def _record(graph: Graph, method: str, length: int | None, metric: str, value: float, unit: str) -> dict[str, Any]:
    params = {"nodes": graph.count, "edges": graph.edges, "dimensions": LENGTH}
    if (epochs := epochs_of(method, graph)) is not None:
        params["epochs"] = epochs
    subject = Subject(bench="nodes", data=graph.name, method=method, length=length, params=params)
    return make_record(subject, metric, round(value, 5), unit)


def _print(name: str, method: str, values: list[Value]) -> None:
    shown = [f"{metric}{'' if length is None else f' {length}'}: {value:.3f}" for length, metric, value, _ in values]
    print(f"{name:<18}{method:<20}" + "  ".join(shown), flush=True)
