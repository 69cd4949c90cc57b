"""A backbone with a head as an encoder artifact: one ONNX file, served without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from eigenlens import artifact
from eigenlens.model.export.export import SPECTRUM_FILE
from eigenlens.model.export.feature_extractor import OUTPUT
from eigenlens.model.export.onnx_file import require_agreement
from eigenlens.model.heads.features import power_normalise
from eigenlens.model.heads.fit import Head
from eigenlens.model.images.preprocessing import STANDARD, Preprocessing
from eigenlens.model.runtime.encoder import KIND, ONNX_FILE, Encoder

_CHECKED = 4


def publish_head(
    head: Head,
    out: Path,
    *,
    backbone: Encoder,
    properties: Mapping[str, object],
    pixels: NDArray[np.uint8],
    preprocessing: Preprocessing = STANDARD,
) -> artifact.Artifact:
    """Publish a backbone with a head as the encoder at `out`.

    Args:
        backbone: that the features came from.
        properties: what the manifest says besides the code's length and eigenvalues.
        pixels: some prepared images, on which the written file must agree with the head on the backbone's features.
        preprocessing: version of how files become pixels that the features were computed with.

    Raises: ArtifactExistsError; EncoderError, if they do not agree.
    """
    eigenvalues = [round(float(x), 6) for x in head.eigenvalues]
    manifest = {
        "code_length": len(eigenvalues),
        "image_size": backbone.image_size,
        "preprocessing": preprocessing,
        "backbone": backbone.artifact.properties["backbone"],
        **properties,
        "eigenvalues": eigenvalues,
    }
    expected = head.codes(power_normalise(backbone.encode(pixels[:_CHECKED])))

    def check(directory: Path) -> None:
        require_agreement(expected, Encoder(directory, precision="float32").encode(pixels[:_CHECKED]))

    made_from = {"backbone": backbone.id}
    with artifact.publishing(out, kind=KIND, made_from=made_from, properties=manifest, check=check) as directory:
        onnx.save(with_head(onnx.load(backbone.artifact.file(ONNX_FILE)), head), directory / ONNX_FILE)
        (directory / SPECTRUM_FILE).write_text(json.dumps({"eigenvalues": eigenvalues}))
    return artifact.read(out, kind=KIND, verify=False)


def with_head(backbone: onnx.ModelProto, head: Head) -> onnx.ModelProto:
    """Append power normalisation and the head to the backbone's graph; each operator means the same from opset 9 on."""
    model = compose.add_prefix(backbone, "features/", rename_inputs=False)
    graph = model.graph
    features = graph.output[0].name
    length = head.hidden.layers[0][0].shape[1] if head.hidden.layers else head.weight.shape[1]
    constants = {
        "head/ones": np.ones((length, 1)),
        "head/tiny": np.array(1e-24),
        "head/weight": head.weight.numpy(),
        "head/offset": head.offset.numpy(),
    }
    layers, last = [], "head/unit"
    for number, (weight, offset) in enumerate(head.hidden.layers):
        names = [f"head/{number}/{name}" for name in ("weight", "offset", "sum", "out")]
        constants |= {names[0]: weight.numpy(), names[1]: offset.numpy()}
        layers.append(helper.make_node("Gemm", [last, *names[:2]], [names[2]], transB=1))
        layers.append(helper.make_node("Relu", [names[2]], [names[3]]))
        last = names[3]
    if layers:
        layers.append(helper.make_node("Concat", ["head/unit", last], ["head/functions"], axis=1))
        last = "head/functions"
    graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items())
    # A root vector's squared length is the sum of the absolute features.
    graph.node.extend(
        [
            helper.make_node("Abs", [features], ["head/size"]),
            helper.make_node("Sqrt", ["head/size"], ["head/root"]),
            helper.make_node("Sign", [features], ["head/sign"]),
            helper.make_node("Mul", ["head/root", "head/sign"], ["head/signed"]),
            helper.make_node("MatMul", ["head/size", "head/ones"], ["head/sum"]),
            helper.make_node("Max", ["head/sum", "head/tiny"], ["head/positive"]),
            helper.make_node("Sqrt", ["head/positive"], ["head/norm"]),
            helper.make_node("Div", ["head/signed", "head/norm"], ["head/unit"]),
            *layers,
            helper.make_node("Gemm", [last, "head/weight", "head/offset"], [OUTPUT], transB=1),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", head.weight.shape[0]]))
    return model
