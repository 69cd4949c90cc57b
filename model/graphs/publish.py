"""Codes of nodes as an encoder artifact: one ONNX file from features to the code of a node without edges."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from eigenlens import artifact
from eigenlens.model.export.export import SPECTRUM_FILE
from eigenlens.model.export.onnx_file import require_agreement
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.fit import GraphCodes
from eigenlens.model.graphs.node_features import unit_rows
from eigenlens.model.graphs.settings import GraphSettings
from eigenlens.model.graphs.sparse import SparseRows
from eigenlens.model.runtime.encoder import KIND, ONNX_FILE
from eigenlens.model.runtime.feature_encoder import INPUT, FeatureEncoder
from eigenlens.model.spectrum.lengths import suggest_lengths

_OPSET = 17
_CHECKED = 64


def publish_graph_encoder(codes: GraphCodes, out: Path, *, graph: Graph, settings: GraphSettings) -> artifact.Artifact:
    """Publish the encoder of a graph's nodes at `out`.

    Raises: ArtifactExistsError; EncoderError, if the written file does not agree with the fit.
    """
    eigenvalues = [round(float(x), 6) for x in codes.eigenvalues]
    time = settings.diffusion_time
    properties: dict[str, object] = {
        "input": {
            "kind": INPUT,
            "features": codes.weight.shape[1],
            "hops": settings.hops,
            "random_features": settings.seed if settings.structure_only else None,
        },
        "code_length": len(eigenvalues),
        "diffusion_time": time,
        "graph": graph.name,
        "nodes": graph.count,
        "edges": graph.edges,
        "training": asdict(settings),
        "eigenvalues": eigenvalues,
        "suggested_lengths": suggest_lengths(eigenvalues, diffusion_time=time),
    }

    def check(directory: Path) -> None:
        features = _sample(graph, codes.weight.shape[1])
        unit = features if settings.structure_only else unit_rows(features.astype(np.float64))
        require_agreement(unit @ codes.weight.T + codes.offset, FeatureEncoder(directory).encode(features))

    made_from = {"graph": graph.id}
    with artifact.publishing(out, kind=KIND, made_from=made_from, properties=properties, check=check) as directory:
        onnx.save(_model(codes, unit=not settings.structure_only), directory / ONNX_FILE)
        report = {"diffusion_time": time, "eigenvalues": codes.spectrum.to_records(len(eigenvalues))}
        (directory / SPECTRUM_FILE).write_text(json.dumps(report, indent=1))
    return artifact.read(out, kind=KIND, verify=False)


def _model(codes: GraphCodes, *, unit: bool) -> onnx.ModelProto:
    """Build `features` (n, p) to `codes` (n, code_length): divide by the length, multiply, add the offset."""
    constants = {"weight": codes.weight, "offset": codes.offset}
    nodes, last = [], "features"
    if unit:
        constants["tiny"] = np.array(1e-30)
        nodes = [
            helper.make_node("ReduceL2", ["features"], ["length"], axes=[1], keepdims=1),
            helper.make_node("Max", ["length", "tiny"], ["positive"]),
            helper.make_node("Div", ["features", "positive"], ["unit"]),
        ]
        last = "unit"
    nodes.append(helper.make_node("Gemm", [last, "weight", "offset"], ["codes"], transB=1))
    code_length, columns = codes.weight.shape
    graph = helper.make_graph(
        nodes,
        "codes of nodes",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", columns])],
        [helper.make_tensor_value_info("codes", TensorProto.FLOAT, ["n", code_length])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _sample(graph: Graph, columns: int) -> NDArray[np.float32]:
    """Return features of the first nodes, as a client would send them; random ones, where the graph has none."""
    features = graph.features(0, min(_CHECKED, graph.count))
    if features is None or graph.feature_count != columns:
        return np.random.default_rng(0).standard_normal((_CHECKED, columns), dtype=np.float32)
    return features.to_dense() if isinstance(features, SparseRows) else np.array(features)
