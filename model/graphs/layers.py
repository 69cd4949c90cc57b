"""An encoder of nodes as layers that ONNX files are made of and that numpy computes: unit rows, products, ReLU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from eigenlens.model.graphs.node_features import unit_rows

_OPSET = 17
_TINY = 1.2e-38  # the smallest float32 of full precision


@dataclass(frozen=True)
class Layer:
    """values W^T + b, and what is below zero cut off where `relu` says so.

    Attributes:
        weight, offset: (outputs, inputs) and (outputs,), float64.
        unit: rows of values are first divided by their length; those that are all zero stay.
    """

    weight: NDArray[np.float64]
    offset: NDArray[np.float64]
    relu: bool = False
    unit: bool = False


def apply_layers(layers: Iterable[Layer], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return what the layers make of values: (n, inputs of the first) to (n, outputs of the last)."""
    result = np.asarray(values, dtype=np.float64)
    for layer in layers:
        result = (unit_rows(result) if layer.unit else result) @ layer.weight.T + layer.offset
        if layer.relu:
            result = np.maximum(result, 0)
    return result


def layers_of(modules: Iterable[nn.Module]) -> list[Layer]:
    """Return linear modules in evaluation mode, with the batch normalisations and ReLUs that follow them, as layers."""
    layers: list[Layer] = []
    for module in modules:
        if isinstance(module, nn.Linear):
            weight = module.weight.detach().cpu().double().numpy()
            offset = np.zeros(len(weight)) if module.bias is None else module.bias.detach().cpu().double().numpy()
            layers.append(Layer(weight, offset))
        elif isinstance(module, nn.BatchNorm1d):
            last = layers.pop()
            assert module.running_mean is not None
            assert module.running_var is not None
            factor = (module.weight / (module.running_var + module.eps).sqrt()).detach().cpu().double().numpy()
            offset = (last.offset - module.running_mean.cpu().double().numpy()) * factor
            offset += module.bias.detach().cpu().double().numpy()
            layers.append(Layer(last.weight * factor[:, None], offset))
        else:
            assert isinstance(module, nn.ReLU)
            layers.append(replace(layers.pop(), relu=True))
    return layers


def onnx_model(layers: Sequence[Layer]) -> onnx.ModelProto:
    """Build `features` (n, inputs) to `codes` (n, outputs) by the layers."""
    constants: dict[str, NDArray[np.float64]] = {}
    nodes, last = [], "features"
    for number, layer in enumerate(layers):
        if layer.unit:
            constants["tiny"] = np.array(_TINY)
            nodes += _unit_rows(last, f"unit{number}", prefix=f"of{number}_")
            last = f"unit{number}"
        weight, offset, product = f"weight{number}", f"offset{number}", f"product{number}"
        output = "codes" if number == len(layers) - 1 else f"layer{number}"
        constants |= {weight: layer.weight, offset: layer.offset}
        nodes.append(helper.make_node("Gemm", [last, weight, offset], [product if layer.relu else output], transB=1))
        if layer.relu:
            nodes.append(helper.make_node("Relu", [product], [output]))
        last = output
    columns, code_length = layers[0].weight.shape[1], len(layers[-1].weight)
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


def _unit_rows(values: str, unit: str, *, prefix: str) -> list[onnx.NodeProto]:
    """Divide rows first by their largest number, since squares of large and of small ones leave float32."""
    sizes, largest, divisor, scaled, length, positive = (
        prefix + name for name in ("sizes", "largest", "divisor", "scaled", "length", "positive")
    )
    return [
        helper.make_node("Abs", [values], [sizes]),
        helper.make_node("ReduceMax", [sizes], [largest], axes=[1], keepdims=1),
        helper.make_node("Max", [largest, "tiny"], [divisor]),
        helper.make_node("Div", [values, divisor], [scaled]),
        helper.make_node("ReduceL2", [scaled], [length], axes=[1], keepdims=1),
        helper.make_node("Max", [length, "tiny"], [positive]),
        helper.make_node("Div", [scaled, positive], [unit]),
    ]
