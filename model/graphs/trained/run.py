"""What a run on a graph is trained on: the inputs of its nodes and pairs of them."""

from __future__ import annotations

import torch

from eigenlens.model.backbones.mlp import INPUT_LENGTH
from eigenlens.model.errors import TrainingError
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.fit import leading_directions
from eigenlens.model.graphs.node_features import UnitFeatures
from eigenlens.model.graphs.settings import GraphSettings
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.graphs.trained.inputs import NodeInputs
from eigenlens.model.graphs.trained.pairs import NodePairs
from eigenlens.model.training.distributed import rank
from eigenlens.model.training.run import Run


def node_inputs(run: Run, graph: Graph) -> NodeInputs:
    """Return the inputs of a graph's nodes in the basis of the run, which is found the first time.

    Raises: ConfigError, if the graph has no features, or all nodes the same ones; TrainingError, if it has others than
        the run was started with.
    """
    features, smoother, hops = UnitFeatures(graph), Smoother(graph), run.config.nodes.hops
    settings = GraphSettings(hops=hops, basis_length=INPUT_LENGTH, seed=run.config.seed)
    basis = run.keep_basis(lambda: leading_directions(features, smoother, settings))
    if len(basis) != features.columns:
        raise TrainingError(f"{graph.name} has {features.columns} features, and the run at {run.path} has {len(basis)}")
    run.cache.mkdir(exist_ok=True)
    path = run.cache / f"inputs-{rank()}.f32"  # each process its own
    return NodeInputs(features, smoother, basis, hops=hops, length=INPUT_LENGTH, path=path)


def node_pairs(run: Run, graph: Graph, *, device: torch.device) -> NodePairs:
    """Return the positive pairs of a graph's nodes, as the run draws them. Raises: as `node_inputs`."""
    return NodePairs(graph, node_inputs(run, graph), run.config.nodes, device=device)
