"""`eigenlens bench node-presets`: the settings that validation nodes choose over several graphs, test nodes unseen."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np

from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.common.retrieval import nearest
from eigenlens.benchmarks.nodes import probe
from eigenlens.model.commands.fit_graph import open_graph
from eigenlens.model.errors import ConfigError
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.fit import basis_and_moments, diffusion_time_of, features_of, solve
from eigenlens.model.graphs.node_features import project, unit_rows
from eigenlens.model.graphs.settings import PRESETS, GraphSettings
from eigenlens.model.graphs.smoothing import Smoother

_LENGTHS = (4, 8, 16, 32)
_PROBED = (4, 8, 32, 128)
_SEEDS = probe.SEEDS[:3]
_K = 10
_RIDGES = (1.0, 3.0, 10.0)
_TIMES = (0.5, 1.0, 1.5, 2.0, 3.0)
# Shares of the ridge and effective dimensions; one that is longer than a code leaves times as they are.
_ADAPTED = (
    *((None, dimension) for dimension in (8.0, 12.0, 16.0, 24.0, 32.0, 512.0)),
    *product((0.0625, 0.125, 0.1875, 0.25), (24.0, 32.0)),
)
# Preset: the pairs of hops and pair_hops that are tried for it.
_TRIED = {
    "smooth": ((1, 2), (2, 2), (3, 2)),
    "smooth-unit": ((2, 2),),
    "features-only": ((0, 2), (0, 4), (0, 6)),
}
_SHOWN = 5
_SCORE, _PROBE = "validation P@10", "validation probe"


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
            known = [(record["method"], record["params"]) for record in records if record["data"] == graph.name]
            for preset in _TRIED:
                left = [tried for tried in _settings(preset) if (preset, _params(tried)) not in known]
                if not left:
                    print(f"{graph.name}, {preset}: all settings are in {args.results} already", file=sys.stderr)
                scored = [_record(graph, preset, *value) for value in _score_all(graph, left, Path(folder))]
                records += scored
                if args.results:
                    append_records(args.results, scored)
    for preset in _TRIED:
        _print(preset, rank(records, preset))


def rank(records: Sequence[Mapping[str, Any]], preset: str) -> list[tuple[dict[str, float], float]]:
    """Return the settings tried for a preset with their mean scores over graphs, the best first."""
    scores: dict[tuple[tuple[str, float], ...], list[float]] = {}
    for record in records:
        if record["method"] == preset and record["metric"] == _SCORE:
            scores.setdefault(tuple(record["params"].items()), []).append(record["value"])
    means = [(dict(params), float(np.mean(of_graphs))) for params, of_graphs in scores.items()]
    return sorted(means, key=lambda pair: -pair[1])


def _print(preset: str, ranked: list[tuple[dict[str, float], float]]) -> None:
    for place, (params, mean) in enumerate(ranked, start=1):
        if place <= _SHOWN or params == _params(PRESETS[preset]):
            print(f"{preset}, place {place} of {len(ranked)}: {params} {mean:.4f}")


Value = tuple[GraphSettings, str, int | None, float]
"""Settings, metric, length and value."""


def _record(
    graph: Graph, preset: str, settings: GraphSettings, metric: str, length: int | None, value: float
) -> dict[str, Any]:
    subject = Subject(bench="node-presets", data=graph.name, method=preset, length=length, params=_params(settings))
    return make_record(subject, metric, round(value, 5))


def _settings(preset: str) -> Iterator[GraphSettings]:
    """Yield what is tried: a grid with fixed times and, at the preset's own hops, what adapts to the graph."""
    own = PRESETS[preset]
    for (hops, pair_hops), ridge, time in product(_TRIED[preset], _RIDGES, _TIMES):
        tried = replace(own, hops=hops, pair_hops=pair_hops, ridge=ridge, diffusion_time=time)
        yield replace(tried, ridge_share=None, effective_dimension=None)
    for share, dimension in _ADAPTED:
        yield replace(own, ridge_share=share, effective_dimension=dimension)


def _score_all(graph: Graph, settings: Sequence[GraphSettings], work: Path) -> Iterator[Value]:
    """Yield the scores of each setting on a graph. Ridge and diffusion time need no second pass over the edges."""
    for (hops, _), group in groupby(settings, key=lambda tried: (tried.hops, tried.pair_hops)):
        first, *others = group
        basis, moments = basis_and_moments(graph, first, work=work)
        functions = Smoother(graph).smooth(project(features_of(graph, first), basis), hops)
        if first.unit_functions:
            functions = unit_rows(functions)
        for tried in (first, *others):
            spectrum = solve(moments, tried)
            weight, offset = spectrum.code_weights(diffusion_time_of(spectrum, tried), code_length=_PROBED[-1])
            codes = functions @ weight.numpy().T.astype(np.float32) + offset.numpy().astype(np.float32)
            yield tried, _SCORE, None, _score(codes, graph)
            if tried.effective_dimension is not None:
                yield from ((tried, _PROBE, length, _probe(codes[:, :length], graph)) for length in _PROBED)


def _probe(codes: probe.Floats, graph: Graph) -> float:
    """Return the share of validation nodes that the probe names rightly."""
    labels = graph.labels
    assert labels is not None
    right = [
        probe.probe(codes, labels, split)[split.validation].argmax(1) == labels[split.validation]
        for split in probe.splits(labels, _SEEDS)
    ]
    return float(np.mean(right))


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
    params: dict[str, float] = {
        "hops": settings.hops,
        "pair_hops": settings.pair_hops,
        "ridge": settings.ridge,
        "diffusion_time": settings.diffusion_time,
    }
    adapted = {"ridge_share": settings.ridge_share, "effective_dimension": settings.effective_dimension}
    return params | {name: value for name, value in adapted.items() if value is not None}
