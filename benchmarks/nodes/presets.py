"""`eigenlens bench node-presets`: the settings that validation nodes choose over several graphs, test nodes unseen."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.retrieval import nearest
from eigenlens.benchmarks.nodes import probe
from eigenlens.model.commands.fit_graph import open_graph
from eigenlens.model.errors import ConfigError
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.fit import basis_and_moments, features_of, solve
from eigenlens.model.graphs.node_features import project
from eigenlens.model.graphs.settings import PRESETS, GraphSettings
from eigenlens.model.graphs.smoothing import Smoother

_LENGTHS = (4, 8, 16, 32)
_SEEDS = probe.SEEDS[:3]
_K = 10
_RIDGES = (0.3, 1.0, 3.0, 10.0)
_TIMES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
# Preset: the pairs of hops and pair_hops that are tried for it.
_TRIED = {"smooth": ((1, 2), (2, 2), (3, 2)), "features-only": ((0, 2), (0, 4), (0, 6))}
_SHOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("graphs", metavar="SOURCE", nargs="+", help="graphs with features and labels")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where graphs are imported and kept")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Score all settings on all graphs, and print the best of each preset. Raises: EigenlensError."""
    scores: dict[str, dict[GraphSettings, list[float]]] = {preset: {} for preset in _TRIED}
    names = []
    with tempfile.TemporaryDirectory() as folder:
        for source in args.graphs:
            graph = open_graph(source, args.work or Path(folder))
            if graph.labels is None or graph.feature_count == 0:
                raise ConfigError(f"{source} has no labels or no features; this benchmark needs both")
            names.append(graph.name)
            for preset in _TRIED:
                for settings, score in _score_all(graph, preset, Path(folder)):
                    scores[preset].setdefault(settings, []).append(score)
    records = []
    for preset, of_preset in scores.items():
        means = {settings: float(np.mean(of_graphs)) for settings, of_graphs in of_preset.items()}
        ranked = sorted(means, key=lambda settings: -means[settings])
        for place, settings in enumerate(ranked, start=1):
            if place <= _SHOWN or _params(settings) == _params(PRESETS[preset]):
                print(f"{preset}, place {place} of {len(ranked)}: {_params(settings)} {means[settings]:.4f}")
        for settings, mean in means.items():
            subject = Subject(bench="node-presets", data=", ".join(names), method=preset, params=_params(settings))
            records.append(make_record(subject, "validation P@10", round(mean, 5)))
    if args.results:
        append_records(args.results, records)


def _score_all(graph: Graph, preset: str, work: Path) -> Iterator[tuple[GraphSettings, float]]:
    """Yield each setting with its score on a graph. Ridge and diffusion time need no second pass over the edges."""
    for hops, pair_hops in _TRIED[preset]:
        settings = replace(PRESETS[preset], hops=hops, pair_hops=pair_hops, code_length=_LENGTHS[-1])
        basis, moments = basis_and_moments(graph, settings, work=work)
        functions = Smoother(graph).smooth(project(features_of(graph, settings), basis), hops)
        for ridge in _RIDGES:
            spectrum = solve(moments, replace(settings, ridge=ridge))
            for time in _TIMES:
                weight, offset = spectrum.code_weights(time)
                codes = functions @ weight.numpy().T.astype(np.float32) + offset.numpy().astype(np.float32)
                yield replace(settings, ridge=ridge, diffusion_time=time), _score(codes, graph)


def _score(codes: probe.Floats, graph: Graph) -> float:
    """Return the share of the ten nearest training nodes of a validation node that are of its class.

    The mean over lengths and splits; test nodes are neither searched for nor found.
    """
    labels = graph.labels
    assert labels is not None
    shares = []
    for split, length in product(probe.splits(labels, _SEEDS), _LENGTHS):
        _, rows = nearest(codes[split.train], codes[split.validation], length=length, k=_K)
        shares.append((labels[split.train][rows] == labels[split.validation][:, None]).mean())
    return float(np.mean(shares))


def _params(settings: GraphSettings) -> dict[str, float]:
    return {
        "hops": settings.hops,
        "pair_hops": settings.pair_hops,
        "ridge": settings.ridge,
        "diffusion_time": settings.diffusion_time,
    }
