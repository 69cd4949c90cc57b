"""A network over the squares of a picture: what another gives for each of them, averaged, in the same ONNX file."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from eigenlens.model.export.feature_extractor import INPUT, OUTPUT
from eigenlens.model.images.preprocessing import CROP_PLACES


def over_crops(network: onnx.ModelProto, *, size: int, length: int) -> onnx.ModelProto:
    """Return a network from `pixels`, uint8 (n, 3, size, size, 3), to the mean of what `network` gives for each square.

    Each operator means the same from opset 9 on.

    Args:
        network: from `pixels`, uint8 (n, size, size, 3), to its only output, float32 (n, length).
    """
    model = compose.add_prefix(network, "square/")
    graph, count = model.graph, len(CROP_PLACES)
    first, last = graph.input[0].name, graph.output[0].name
    # Shapes that are noted there say n where there are now three times as many squares.
    for field in (graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.insert(0, helper.make_node("Reshape", [INPUT, "crops/one-by-one"], [first]))
    graph.node.extend(
        [
            helper.make_node("Reshape", [last, "crops/of-each-picture"], ["crops/all"]),
            helper.make_node("MatMul", ["crops/shares", "crops/all"], ["crops/mean"]),
            helper.make_node("Reshape", ["crops/mean", "crops/flat"], [OUTPUT]),
        ]
    )
    constants = {
        "crops/one-by-one": np.array([-1, size, size, 3]),
        "crops/of-each-picture": np.array([-1, count, length]),
        "crops/flat": np.array([-1, length]),
        "crops/shares": np.full((1, count), 1 / count, dtype=np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", count, size, size, 3]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", length]))
    return model
