"""`eigenlens bench node-presets`: the settings that validation nodes choose over several graphs, test nodes unseen."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
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
_RIDGES = (1.0, 3.0, 10.0)
_TIMES = (0.5, 1.0, 1.5, 2.0, 3.0)
# Preset: the pairs of hops and pair_hops that are tried for it.
_TRIED = {"smooth": ((1, 2), (2, 2), (3, 2)), "features-only": ((0, 2), (0, 4), (0, 6))}
_SHOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("graphs", metavar="SOURCE", nargs="+", help="graphs with features and labels")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where graphs are imported and kept")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="add the records to FILE; what is there is skipped"
    )


def run(args: argparse.Namespace) -> None:
    """Score all settings on all graphs, and print the best of each preset. Raises: EigenlensError."""
    records = read_records(args.results) if args.results else []
    with tempfile.TemporaryDirectory() as folder:
        for source in args.graphs:
            graph = open_graph(source, args.work or Path(folder))
            if graph.labels is None or graph.feature_count == 0:
                raise ConfigError(f"{source} has no labels or no features; this benchmark needs both")
            if any(record["data"] == graph.name for record in records):
                print(f"{graph.name} is in {args.results} already", file=sys.stderr)
                continue
            scored = [
                _record(graph, preset, settings, score)
                for preset in _TRIED
                for settings, score in _score_all(graph, preset, Path(folder))
            ]
            records += scored
            if args.results:
                append_records(args.results, scored)
    for preset in _TRIED:
        _print(preset, rank(records, preset))


def rank(records: Sequence[Mapping[str, Any]], preset: str) -> list[tuple[dict[str, float], float]]:
    """Return the settings tried for a preset with their mean scores over graphs, the best first."""
    scores: dict[tuple[tuple[str, float], ...], list[float]] = {}
    for record in records:
        if record["method"] == preset:
            scores.setdefault(tuple(record["params"].items()), []).append(record["value"])
    means = [(dict(params), float(np.mean(of_graphs))) for params, of_graphs in scores.items()]
    return sorted(means, key=lambda pair: -pair[1])


def _print(preset: str, ranked: list[tuple[dict[str, float], float]]) -> None:
    for place, (params, mean) in enumerate(ranked, start=1):
        if place <= _SHOWN or params == _params(PRESETS[preset]):
            print(f"{preset}, place {place} of {len(ranked)}: {params} {mean:.4f}")


def _record(graph: Graph, preset: str, settings: GraphSettings, score: float) -> dict[str, Any]:
    subject = Subject(bench="node-presets", data=graph.name, method=preset, params=_params(settings))
    return make_record(subject, "validation P@10", round(score, 5))


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
