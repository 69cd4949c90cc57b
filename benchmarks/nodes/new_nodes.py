"""Nodes that are new: a tenth is left out of the fit, and encoded afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.nodes.methods import codes_by
from eigenlens.benchmarks.nodes.probe import Labels, Split, probe
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.fit import features_of, fit_graph
from eigenlens.model.graphs.node_features import project
from eigenlens.model.graphs.settings import PRESETS
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.graphs.sources.source import FeatureChunk, GraphSource, chunks_of_edges
from eigenlens.model.graphs.two_passes import import_graph
from eigenlens.model.runtime.node_states import NodeState, smooth_new_node

_SHARE = 0.1
_TRAIN = 1 / 9


def new_node_accuracy(graph: Graph, preset: str, work: Path, *, seed: int, length: int) -> dict[str, float]:
    """Return the accuracy of a probe of `length` coordinates on nodes that were seen, and on new ones.

    The probe is fitted to a tenth of all nodes, among those that the fit sees.

    Returns: "seen"; "new with edges", encoded with the whole graph as a build does; "new, one at a time", each from its
        edges to seen nodes and what a service keeps of these; and "new without edges".
    """
    assert graph.labels is not None
    settings, order = PRESETS[preset], np.random.default_rng(seed).permutation(graph.count)
    new = np.sort(order[: int(_SHARE * graph.count)])
    seen = np.setdiff1d(np.arange(graph.count), new)
    part = _without(graph, seen, work / f"seen-{seed}")
    codes = fit_graph(part, settings, work=work)
    seen_codes = codes_by(codes, part, settings)
    projected = project(features_of(graph, settings), codes.projection.astype(np.float32))
    smoother = Smoother(part)
    levels = [smoother.smooth(projected[seen], level) for level in range(settings.hops)]
    place = np.full(graph.count, -1)
    place[seen] = np.arange(len(seen))
    one_at_a_time = []
    for node in new:
        rows = place[graph.neighbours(int(node))]
        states = [_state(levels, part, row) for row in rows[rows >= 0]]
        one_at_a_time.append(codes.finish(smooth_new_node(projected[node], states, hops=settings.hops)[0][None])[0])
    built = codes_by(codes, graph, settings)[new]
    ways = {"new with edges": built, "new, one at a time": np.array(one_at_a_time)}
    ways["new without edges"] = codes.finish(projected[new])
    stacked = np.concatenate([seen_codes, *ways.values()])[:, :length].astype(np.float32)
    labels = np.concatenate([graph.labels[seen], *[graph.labels[new]] * len(ways)])
    right = _right(stacked, labels, len(seen), seed)
    parts = np.split(right[-len(ways) * len(new) :], len(ways))
    seen_right = right[: -len(ways) * len(new)]
    return {"seen": float(seen_right.mean())} | {
        name: float(part.mean()) for name, part in zip(ways, parts, strict=True)
    }


def _right(codes: NDArray[np.float32], labels: Labels, seen: int, seed: int) -> NDArray[np.bool_]:
    """Return whether the probe names each node rightly; of the seen nodes, of those alone that it does not know."""
    order = np.random.default_rng(seed).permutation(seen)
    tenth = int(_TRAIN * seen)
    split = Split(order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :])
    right = probe(codes, labels, split).argmax(1) == labels
    return np.concatenate([right[split.test], right[seen:]])


def _state(levels: list[NDArray[np.floating]], graph: Graph, row: int) -> NodeState:
    kept = np.array([level[row] for level in levels], dtype=np.float32)
    return NodeState(int(graph.degrees[row]), kept)


def _without(graph: Graph, seen: Labels, path: Path) -> Graph:
    """Import the part of a graph that has these nodes alone."""
    place = np.full(graph.count, -1)
    place[seen] = np.arange(len(seen))
    rows = np.repeat(np.arange(graph.count), graph.degrees)
    ends = place[np.stack([rows, graph.indices], axis=1)]
    ends = ends[(ends >= 0).all(axis=1) & (rows < graph.indices)]

    def features() -> Iterator[FeatureChunk]:
        for row in seen.tolist():
            chunk = graph.features(row, row + 1)
            assert chunk is not None
            yield chunk

    return import_graph(
        GraphSource(
            name=f"{graph.name}, seen",
            count=len(seen),
            edges=partial(chunks_of_edges, ends),
            features=features,
            feature_count=graph.feature_count,
        ),
        path,
    )
