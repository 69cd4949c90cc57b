"""A run on a graph as an encoder artifact: features projected, smoothed over the edges, then a network's layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.model.backbones.mlp import Mlp
from eigenlens.model.export.coder import code_network, estimate_spectrum, set_codes
from eigenlens.model.export.onnx_file import require_agreement
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.layers import Layer, apply_layers, layers_of, onnx_model
from eigenlens.model.graphs.publish import describe_encoder, sample_features, write_spectrum
from eigenlens.model.graphs.trained.inputs import NodeInputs
from eigenlens.model.graphs.trained.pairs import NodePairs
from eigenlens.model.graphs.trained.run import node_inputs
from eigenlens.model.network import CodeNetwork
from eigenlens.model.runtime.encoder import KIND, ONNX_FILE
from eigenlens.model.runtime.feature_encoder import NETWORK_FILE, PROJECTION_FILE, FeatureEncoder
from eigenlens.model.spectrum.rayleigh_ritz import Spectrum
from eigenlens.model.training.run import Run

_ROWS = 1 << 13


@dataclass(frozen=True)
class TrainedCodes:
    """The codes of a run on a graph: the layers of S^hops X basis.

    Attributes:
        basis: (p, columns).
        layers: from the columns to codes.
        spectrum: eigenvalues and their intervals.
    """

    basis: NDArray[np.float32]
    layers: tuple[Layer, ...]
    inputs: NodeInputs
    spectrum: Spectrum

    def of_all_nodes(self) -> NDArray[np.float32]:
        """Return the codes of the graph's nodes, (count, code_length)."""
        values = self.inputs.values
        blocks = [apply_layers(self.layers, values[start : start + _ROWS]) for start in range(0, len(values), _ROWS)]
        return np.concatenate(blocks).astype(np.float32)


def trained_codes(run: Run, graph: Graph, *, device: torch.device, diffusion_time: float | None = None) -> TrainedCodes:
    """Order the functions of a finished run by Rayleigh-Ritz over pairs with noise, as it was trained on.

    Args:
        diffusion_time: t, where it is not to be the configuration's.

    Raises: TrainingError, if the run is not finished or the graph is another; ConfigError.
    """
    config = run.config
    network = code_network(run.load_network()[1], config).to(device).eval()
    inputs = node_inputs(run, graph)
    spectrum = estimate_spectrum(network, NodePairs(graph, inputs, config.nodes, device=device), config)
    time = config.spectrum.diffusion_time if diffusion_time is None else diffusion_time
    set_codes(network, spectrum, diffusion_time=time)
    layers = tuple(_layers(network, inputs))
    return TrainedCodes(run.basis(), layers, inputs, spectrum.first(network.code.out_features))


def publish_trained_encoder(
    run: Run, graph: Graph, out: Path, *, device: torch.device, diffusion_time: float | None = None
) -> artifact.Artifact:
    """Publish the encoder of a finished run on a graph at `out`.

    Raises: ArtifactExistsError; EncoderError, if the written files do not agree with torch; as `trained_codes`.
    """
    time = run.config.spectrum.diffusion_time if diffusion_time is None else diffusion_time
    codes = trained_codes(run, graph, device=device, diffusion_time=time)
    hops, features = run.config.nodes.hops, len(codes.basis)
    properties = describe_encoder(graph, codes.spectrum, features=features, hops=hops, diffusion_time=time)
    settled = run.config.model_copy(update={"spectrum": run.config.closed_form})
    properties |= {"backbone": run.config.backbone, "training": settled.model_dump(mode="json")}
    projection = Layer(codes.basis.T.astype(np.float64), np.zeros(codes.basis.shape[1]), unit=True)

    def check(directory: Path) -> None:
        encoder, values = FeatureEncoder(directory), codes.inputs.values[:64]
        require_agreement(apply_layers(codes.layers, values), encoder.finish(values))
        drawn = sample_features(graph, features)
        alone = apply_layers([projection, *codes.layers], drawn)
        require_agreement(alone, encoder.encode(drawn))
        require_agreement(alone, encoder.finish(encoder.project(drawn)))

    made_from = {"run": artifact.read(run.path, kind="run", verify=False).id, "graph": graph.id}
    with artifact.publishing(out, kind=KIND, made_from=made_from, properties=properties, check=check) as directory:
        onnx.save(onnx_model([projection, *codes.layers]), directory / ONNX_FILE)
        onnx.save(onnx_model([projection]), directory / PROJECTION_FILE)
        onnx.save(onnx_model(codes.layers), directory / NETWORK_FILE)
        write_spectrum(directory, codes.spectrum, diffusion_time=time)
    return artifact.read(out, kind=KIND, verify=False)


def _layers(network: CodeNetwork, inputs: NodeInputs) -> list[Layer]:
    """Return the network's layers, the first of which takes what inputs are before they are centred and scaled."""
    assert isinstance(network.backbone, Mlp)
    first, *others = layers_of([*network.backbone.layers, *network.projector, network.code])
    weight = first.weight[:, : inputs.columns] / inputs.scale
    return [replace(first, weight=weight, offset=first.offset - weight @ inputs.mean), *others]
