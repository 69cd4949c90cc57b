"""A small ONNX feature extractor whose features are computable by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LENGTH = 6
SIDE = 4
COLOURS = np.random.default_rng(0).normal(size=(LENGTH, 3)).astype(np.float32)


def write_extractor(
    path: Path,
    *,
    batch: int | str = "n",
    sides: tuple[int | str, int | str] = (SIDE, SIDE),
    channels_first: bool = True,
    colours: int | str = 3,
    kind: int = TensorProto.FLOAT,
    reshaped: bool = False,
    mixed: bool = False,
    opset: int = 17,
) -> Path:
    """Means of `COLOURS` times each pixel but those of the last row: tensors `map`, `features` and `logits` (n, 2).

    Args:
        reshaped: the number of images in a batch, 1, is written into the graph.
        mixed: features are relative to the batch's mean.
    """
    shape = [batch, colours, *sides] if channels_first else [batch, *sides, colours]
    shape_of_features = numpy_helper.from_array(np.array([1, LENGTH], dtype=np.int64), "shape")
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 1, 2, 3] if channels_first else [0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["nchw"], ["batch"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["nchw", "batch" if mixed else "nothing"], ["shifted"]),
        helper.make_node("Conv", ["shifted", "colours"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
        helper.make_node("Reshape", ["mean", "shape"], ["features"])
        if reshaped
        else helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("MatMul", ["features", "classes"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "extractor",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 2])],
        [
            numpy_helper.from_array(np.stack([COLOURS, 0 * COLOURS], axis=2)[..., None], "colours"),
            numpy_helper.from_array(np.array(0, dtype=np.float32), "nothing"),
            numpy_helper.from_array(np.ones((LENGTH, 2), np.float32), "classes"),
            *([shape_of_features] if reshaped else []),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def features_of(
    pixels: NDArray[np.uint8], *, mean: tuple[float, ...] = (0, 0, 0), std: tuple[float, ...] = (1, 1, 1)
) -> NDArray[np.float64]:
    """`features` of images (n, side, side, 3) whose pixels are fed as (rgb / 255 - mean) / std."""
    fed = (pixels / 255 - np.array(mean)) / np.array(std)
    return np.asarray(fed[:, :-1].mean((1, 2)) @ COLOURS.T.astype(np.float64))
