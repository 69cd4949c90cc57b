"""Codes of nodes by each method: Eigenlens' presets, and peers that need no training either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eigenlens.model.config import load_config
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.codes import codes_of_nodes
from eigenlens.model.graphs.fit import GraphCodes, features_of, fit_graph
from eigenlens.model.graphs.node_features import NodeFeatures, UnitFeatures, project
from eigenlens.model.graphs.settings import PRESETS, GraphSettings
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.graphs.trained.publish import trained_codes
from eigenlens.model.graphs.trained.run import node_pairs
from eigenlens.model.training.loop import train
from eigenlens.model.training.run import Run

Codes = NDArray[np.float32]
LENGTH = 128
_WINDOW, _NEGATIVE = 10, 1.0
_RANK = 256


def preset_codes(name: str, graph: Graph, work: Path) -> Codes:
    """Return the codes of a preset."""
    settings = PRESETS[name]
    return codes_by(fit_graph(graph, settings, work=work), graph, settings)


def codes_by(codes: GraphCodes, graph: Graph, settings: GraphSettings) -> Codes:
    """Return codes of a graph's nodes by a fit to it or to another graph."""
    features = features_of(graph, settings)
    return codes_of_nodes(features, Smoother(graph), codes, hops=settings.hops)


def pca(graph: Graph, *, hops: int) -> Codes:
    """Return principal components of features smoothed over so many hops, the largest first."""
    features, smoother = UnitFeatures(graph), Smoother(graph)
    basis = _leading(features, smoother, hops)
    smoothed = smoother.smooth(project(features, basis), hops)
    centred = smoothed - smoothed.mean(0)
    axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1][:, ::-1]
    return np.ascontiguousarray((centred @ axes[:, :LENGTH]).astype(np.float32))


def laplacian_eigenmaps(graph: Graph) -> Codes:
    """Return the leading eigenvectors of S by the square roots of degrees, without the constant one."""
    import scipy.sparse.linalg

    smoother = Smoother(graph)
    operator = scipy.sparse.linalg.LinearOperator(
        (graph.count, graph.count),
        matvec=lambda x: smoother.smooth(x.reshape(-1, 1).astype(np.float32), 1).ravel(),
        matmat=lambda x: smoother.smooth(x.astype(np.float32), 1),
        dtype=np.float32,
    )
    start = np.random.default_rng(0).standard_normal(graph.count).astype(np.float32)
    count = min(LENGTH + 1, graph.count - 1)
    values, vectors = scipy.sparse.linalg.eigsh(operator, k=count, which="LA", v0=start, tol=1e-3)
    order = np.argsort(-values)[1:]
    return np.asarray(vectors[:, order] * smoother.scale[:, None], dtype=np.float32)


def netmf(graph: Graph) -> Codes:
    """Return DeepWalk as a factorised matrix, window 10, from the leading eigenpairs of the adjacency.

    Source: Qiu et al., Network embedding as matrix factorization, WSDM 2018, algorithm 4.
    """
    import scipy.sparse
    import scipy.sparse.linalg

    ones = np.ones(len(graph.indices), dtype=np.float32)
    adjacency = scipy.sparse.csr_matrix((ones, graph.indices, graph.indptr), shape=(graph.count, graph.count))
    degrees = np.maximum(graph.degrees, 1).astype(np.float32)
    root = scipy.sparse.diags(1 / np.sqrt(degrees))
    start = np.random.default_rng(0).standard_normal(graph.count).astype(np.float32)
    values, vectors = scipy.sparse.linalg.eigsh(
        root @ adjacency @ root, k=min(_RANK, graph.count - 2), which="LA", v0=start, tol=1e-3
    )
    powers = np.mean([np.clip(values, 0, 1) ** power for power in range(1, _WINDOW + 1)], axis=0)
    half = (vectors / np.sqrt(degrees)[:, None] * np.sqrt(powers)).astype(np.float32)
    scale = np.float32(degrees.sum() / _NEGATIVE)
    matrix = half @ half.T
    matrix *= scale
    np.maximum(matrix, 1, out=matrix)
    np.log(matrix, out=matrix)
    # The leading singular vectors of the symmetric matrix, by subspace iteration.
    directions = np.random.default_rng(0).standard_normal((graph.count, LENGTH + 16)).astype(np.float32)
    for _ in range(4):
        directions = np.linalg.qr(matrix @ directions)[0]
    left, singular, _ = np.linalg.svd(matrix @ directions, full_matrices=False)
    return np.ascontiguousarray(left[:, :LENGTH] * np.sqrt(singular[:LENGTH]))


def _leading(features: NodeFeatures, smoother: Smoother, hops: int) -> Codes:
    from eigenlens.model.graphs.fit import leading_directions

    settings = replace(PRESETS["smooth"], hops=hops, basis_length=min(256, features.columns))
    return leading_directions(features, smoother, settings).astype(np.float32)


def trained(graph: Graph, work: Path, *, seed: int = 0) -> Codes:
    """Return the codes of a run with the training preset `nodes`, ordered by Rayleigh-Ritz."""
    device = torch.device("cpu")
    config = load_config("nodes", [f"seed={seed}"])
    run = Run.start(work / f"run-{seed}", graph=str(graph.artifact.path), config=config)
    train(run, node_pairs(run, graph, device=device), device=device)
    return trained_codes(run, graph, device=device).of_all_nodes()


METHODS: dict[str, Callable[[Graph, Path], Codes]] = {
    "smooth": lambda graph, work: preset_codes("smooth", graph, work),
    "smooth-unit": lambda graph, work: preset_codes("smooth-unit", graph, work),
    "features-only": lambda graph, work: preset_codes("features-only", graph, work),
    "structure-only": lambda graph, work: preset_codes("structure-only", graph, work),
    "pca": lambda graph, work: pca(graph, hops=0),
    "pca-smoothed": lambda graph, work: pca(graph, hops=2),
    "laplacian-eigenmaps": lambda graph, work: laplacian_eigenmaps(graph),
    "netmf": lambda graph, work: netmf(graph),
}
