"""Codes of nodes as an encoder artifact: ONNX files from features to codes, and to what is smoothed over the edges."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.model.export.export import SPECTRUM_FILE
from eigenlens.model.export.onnx_file import require_agreement
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.fit import GraphCodes
from eigenlens.model.graphs.layers import Layer, apply_layers, onnx_model
from eigenlens.model.graphs.settings import GraphSettings
from eigenlens.model.graphs.sparse import SparseRows
from eigenlens.model.runtime.encoder import KIND, ONNX_FILE
from eigenlens.model.runtime.feature_encoder import INPUT, NETWORK_FILE, PROJECTION_FILE, FeatureEncoder
from eigenlens.model.spectrum.lengths import suggest_lengths
from eigenlens.model.spectrum.rayleigh_ritz import Spectrum

_CHECKED = 64


def publish_graph_encoder(codes: GraphCodes, out: Path, *, graph: Graph, settings: GraphSettings) -> artifact.Artifact:
    """Publish the encoder of a graph's nodes at `out`.

    Raises: ArtifactExistsError; EncoderError, if the written file does not agree with the fit.
    """
    properties = describe_encoder(
        graph,
        codes.spectrum,
        features=len(codes.projection),
        hops=settings.hops,
        diffusion_time=codes.diffusion_time,
    )
    properties["input"]["random_features"] = settings.seed if settings.structure_only else None
    properties["training"] = asdict(settings) | {"ridge": codes.ridge, "diffusion_time": codes.diffusion_time}

    first, last = Layer(codes.weight, codes.offset, unit=not settings.structure_only), None
    if codes.basis is not None:
        last = replace(first, unit=True)
        first = replace(first, weight=codes.basis.T, offset=np.zeros(codes.basis.shape[1]))
    layers = [first] if last is None else [first, last]

    def check(directory: Path) -> None:
        features, encoder = sample_features(graph, len(codes.projection)), FeatureEncoder(directory)
        expected = apply_layers(layers, features)
        require_agreement(expected, encoder.encode(features))
        require_agreement(expected, encoder.finish(encoder.project(features)))

    made_from = {"graph": graph.id}
    with artifact.publishing(out, kind=KIND, made_from=made_from, properties=properties, check=check) as directory:
        onnx.save(onnx_model(layers), directory / ONNX_FILE)
        if last is not None:
            onnx.save(onnx_model([first]), directory / PROJECTION_FILE)
            onnx.save(onnx_model([last]), directory / NETWORK_FILE)
        write_spectrum(directory, codes.spectrum, diffusion_time=codes.diffusion_time)
    return artifact.read(out, kind=KIND, verify=False)


def describe_encoder(
    graph: Graph, spectrum: Spectrum, *, features: int, hops: int, diffusion_time: float
) -> dict[str, Any]:
    """Return what the manifest of an encoder of nodes says, beside how it was fitted or trained."""
    eigenvalues = [round(float(x), 6) for x in spectrum.eigenvalues]
    return {
        "input": {"kind": INPUT, "features": features, "hops": hops},
        "code_length": len(eigenvalues),
        "diffusion_time": diffusion_time,
        "graph": graph.name,
        "nodes": graph.count,
        "edges": graph.edges,
        "eigenvalues": eigenvalues,
        "suggested_lengths": suggest_lengths(eigenvalues, diffusion_time=diffusion_time),
    }


def write_spectrum(directory: Path, spectrum: Spectrum, *, diffusion_time: float) -> None:
    """Write the eigenvalues with their intervals beside the encoder."""
    records = spectrum.to_records(len(spectrum.eigenvalues))
    report = {"diffusion_time": diffusion_time, "eigenvalues": records}
    (directory / SPECTRUM_FILE).write_text(json.dumps(report, indent=1))


def sample_features(graph: Graph, columns: int) -> NDArray[np.float32]:
    """Return features of the first nodes, as a client would send them; random ones, where the graph has none."""
    features = graph.features(0, min(_CHECKED, graph.count))
    if features is None or graph.feature_count != columns:
        return np.random.default_rng(0).standard_normal((_CHECKED, columns), dtype=np.float32)
    return features.to_dense() if isinstance(features, SparseRows) else np.array(features)
