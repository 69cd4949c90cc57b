"""An ONNX file that somebody exported, made to take uint8 pixels and to give one vector of features an image.

What the file says is read from it: the name, type, layout (NCHW or NHWC) and size of its input, and its output. What no
file says is how pixels are scaled: that is a parameter, ImageNet's mean and deviation unless it is given.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from eigenlens.model.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD
from eigenlens.model.errors import EncoderError
from eigenlens.model.runtime.sessions import open_session

INPUT, OUTPUT = "pixels", "codes"
_PREFIX = "backbone/"
# From this version of the operators on, those that are added here mean the same.
_OLDEST = 9
_USUAL_SIZE = 224
# Largest difference of features, relative to their norm, between an image alone and in a batch.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Pixels:
    """Pixels are fed as (rgb / 255 - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PIXELS = {
    "imagenet": Pixels(IMAGENET_MEAN, IMAGENET_STD),
    "unit": Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "signed": Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "raw": Pixels((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""Usual scales by name: to ImageNet's mean and deviation, to 0..1, to -1..1, and 0..255 as they are."""


@dataclass(frozen=True)
class Extractor:
    """From `pixels`, uint8 (n, image_size, image_size, 3), to `codes`, float32 (n, length)."""

    model: onnx.ModelProto
    image_size: int
    length: int


def pixels_to_features(path: Path, *, pixels: Pixels, image_size: int | None, output: str | None) -> Extractor:
    """Build the file's network behind the conversion of pixels; a map of features is averaged over its positions.

    Args:
        image_size: needed where the file leaves the size free; 224 when None.
        output: the tensor that holds the features, any in the file; its only output when None.

    Raises: EncoderError, which says what in the file does not fit and what would.
    """
    model = _load(path)
    graph_input = _only_input(model, path)
    shape = [d.dim_value or None for d in graph_input.type.tensor_type.shape.dim]
    channels_first = _channels_first(shape, path)
    size = _size(shape[2:] if channels_first else shape[1:3], image_size, path)
    _keep_only(model, _chosen_output(model, output, path))
    model = compose.add_prefix(model, _PREFIX)
    graph = model.graph
    source, features = graph.input[0], graph.output[0].name
    feeding = _feeding(source.name, source.type.tensor_type.elem_type, pixels, channels_first=channels_first)
    nodes = list(graph.node)
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend([*feeding.nodes, *nodes])
    graph.initializer.extend(feeding.constants)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", size, size, 3]))
    graph.output.append(onnx.ValueInfoProto(name=features))
    rank = _compute(model, size, path).ndim
    if rank not in (2, 4):
        raise EncoderError(
            f"{path}: '{features.removeprefix(_PREFIX)}' has {rank} axes; features are a vector of each image "
            "(n, length) or a map of vectors (4 axes): name another tensor with --backbone-output"
        )
    graph.node.extend(_pooling(features, channels_first=channels_first) if rank == 4 else [])
    last = graph.node[-1].output[0] if rank == 4 else features
    graph.node.append(helper.make_node("Cast", [last], [OUTPUT], to=TensorProto.FLOAT))
    graph.output[0].name = OUTPUT
    length = _compute(model, size, path).shape[1]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", length]))
    return Extractor(model, size, length)


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except (DecodeError, OSError, onnx.checker.ValidationError) as error:
        raise EncoderError(f"{path} cannot be read as an ONNX file: {str(error) or 'no such file'}") from error
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST:
        raise EncoderError(
            f"{path} is of ONNX opset {opset}, and {_OLDEST} or newer is needed: export it again, or convert it with "
            "onnx.version_converter"
        )
    return model


def _only_input(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [entry for entry in model.graph.input if entry.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise EncoderError(f"{path} has {len(inputs)} inputs ({names}); a feature extractor takes images alone")
    del model.graph.input[:]  # old files list their constants here too
    model.graph.input.extend(inputs)
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8):
        raise EncoderError(
            f"{path}: input '{inputs[0].name}' is {TensorProto.DataType.Name(kind).lower()}; float, float16 and uint8 "
            "can be fed with images"
        )
    return inputs[0]


def _channels_first(shape: Sequence[int | None], path: Path) -> bool:
    """Decide between NCHW and NHWC by the axis of three colours; where no axis has three, NCHW, as in PyTorch."""
    if len(shape) != 4 or not {shape[1], shape[3]} & {3, None}:
        raise EncoderError(
            f"{path}: its input has shape {_format_shape(shape)}, which is neither (n, 3, h, w) nor (n, h, w, 3)"
        )
    return shape[1] == 3 or (shape[1] is None and shape[3] != 3)


def _size(sides: Sequence[int | None], requested: int | None, path: Path) -> int:
    known = {side for side in sides if side}
    if len(known) > 1:
        raise EncoderError(f"{path}: its input is {sides[1]} x {sides[0]} pixels, and only squares are supported")
    size = known.pop() if known else requested or _USUAL_SIZE
    if requested not in (None, size):
        raise EncoderError(f"{path}: its input is {size} pixels a side; leave --backbone-size out")
    return size


def _chosen_output(model: onnx.ModelProto, name: str | None, path: Path) -> str:
    made: list[str] = [tensor for node in model.graph.node for tensor in node.output if tensor]
    outputs: list[str] = [entry.name for entry in model.graph.output]
    if name is None and len(outputs) == 1:
        return outputs[0]
    if name is None or name not in made:
        wrong = "has several outputs" if name is None else f"has no tensor '{name}'"
        raise EncoderError(
            f"{path} {wrong}: give --backbone-output one of its outputs ({', '.join(outputs)}) or of the tensors "
            f"before them ({', '.join(made[-6:])})"
        )
    return name


def _keep_only(model: onnx.ModelProto, output: str) -> None:
    """Make a tensor the only output, and remove what it does not depend on."""
    graph = model.graph
    needed, ancestors = {output}, []
    for node in reversed(graph.node):  # a graph lists its nodes after what they depend on
        if needed.intersection(node.output):
            ancestors.append(node)
            needed.update(node.input)
            needed.update(_names_within(node))
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    nodes = list(reversed(ancestors))
    del graph.node[:], graph.initializer[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    graph.output.append(onnx.ValueInfoProto(name=output))


def _names_within(node: onnx.NodeProto) -> set[str]:
    """Return the names that the branches and bodies within a node use."""
    inner = [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
    used = {name for graph in inner for child in graph.node for name in (*child.input, *_names_within(child))}
    return used | {entry.name for graph in inner for entry in graph.output}


@dataclass(frozen=True)
class _Feeding:
    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto]


def _feeding(name: str, kind: int, pixels: Pixels, *, channels_first: bool) -> _Feeding:
    """Make the nodes from the pixels to the tensor `name`: scaled, unless it takes bytes, and in its layout."""
    nodes, constants, last = [], [], INPUT
    if kind != TensorProto.UINT8:
        mean, std = (np.array(values, dtype=np.float64) * 255 for values in (pixels.mean, pixels.std))
        constants = [
            numpy_helper.from_array(mean.astype(np.float32), "pixels/mean"),
            numpy_helper.from_array((1 / std).astype(np.float32), "pixels/scale"),
        ]
        nodes = [
            helper.make_node("Cast", [INPUT], ["pixels/float"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["pixels/float", "pixels/mean"], ["pixels/centred"]),
            helper.make_node("Mul", ["pixels/centred", "pixels/scale"], ["pixels/scaled"]),
            helper.make_node("Cast", ["pixels/scaled"], ["pixels/typed"], to=kind),
        ]
        last = "pixels/typed"
    layout = [0, 3, 1, 2] if channels_first else [0, 1, 2, 3]
    return _Feeding([*nodes, helper.make_node("Transpose", [last], [name], perm=layout)], constants)


def _pooling(name: str, *, channels_first: bool) -> list[onnx.NodeProto]:
    """Make the nodes that average a map of features, in the input's layout, over its positions."""
    layout = [0, 1, 2, 3] if channels_first else [0, 3, 1, 2]
    return [
        helper.make_node("Transpose", [name], ["features/map"], perm=layout),
        helper.make_node("GlobalAveragePool", ["features/map"], ["features/mean"]),
        helper.make_node("Flatten", ["features/mean"], ["features/flat"]),
    ]


def _compute(model: onnx.ModelProto, size: int, path: Path) -> NDArray[np.float32]:
    """Compute the features of two images; they have to be those of each alone. Raises: EncoderError."""
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        onnx.save(model, file)
        session, _ = open_session(file, runtime="onnxruntime", precision="float32", threads=1, shape=(size, size, 3))
    try:
        both = session(images)
        single = np.concatenate([session(images[:1]), session(images[1:])])
    except Exception as error:  # ONNX Runtime's errors have no common root but Exception
        raise EncoderError(
            f"{path} cannot compute the features of two images at a time: export it with a free batch axis ({error})"
        ) from error
    scale = max(float(np.abs(single).max()), 1e-12)
    if both.shape != single.shape or not np.abs(both - single).max() <= _TOLERANCE * scale:
        raise EncoderError(f"{path} mixes the images of a batch: export it for evaluation, with a free batch axis")
    return both


def _format_shape(shape: Sequence[int | None]) -> str:
    return f"({', '.join(str(side or '?') for side in shape)})"
