"""Nodes that a convolution or a linear map takes in: padding with zeros before it, batch normalisation after it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

Constants = dict[str, NDArray[np.generic]]


def fold_pads(nodes: list[NodeProto], constants: Constants) -> None:
    """Fold padding with zeros, in place, into the convolution that alone takes what is padded."""
    for pad in [node for node in nodes if node.op_type == "Pad"]:
        takers = [node for node in nodes if pad.output[0] in node.input]
        pads, value = (constants.get(name) for name in pad.input[1:])
        if [x.op_type for x in takers] != ["Conv"] or pads is None or value != 0 or pads.reshape(2, -1)[:, :2].any():
            continue
        before, after = pads.reshape(2, -1)[:, 2:]
        attribute = next(x for x in takers[0].attribute if x.name == "pads")
        own = np.array(attribute.ints)
        attribute.ints[:] = (own + np.concatenate([before, after])).tolist()
        takers[0].input[0] = pad.input[0]
        nodes.remove(pad)


def fold_normalisations(nodes: list[NodeProto], constants: Constants) -> None:
    """Fold batch normalisation, in place, into the convolution or linear map whose output it alone takes.

    γ (W x + b - μ) / √(σ² + ε) + β = (s W) x + s (b - μ) + β,   s = γ / √(σ² + ε)
    """
    made_by = {node.output[0]: node for node in nodes}
    for norm in [node for node in nodes if node.op_type == "BatchNormalization"]:
        linear = made_by.get(norm.input[0])
        if (
            linear is None
            or linear.op_type not in ("Conv", "Gemm")
            or linear.input[1] not in constants
            or sum(norm.input[0] in node.input for node in nodes) > 1
            or sum(linear.input[1] in node.input for node in nodes) > 1
        ):
            continue
        gain, shift, mean, variance = (constants[name].astype(np.float64) for name in norm.input[1:])
        epsilon = next(helper.get_attribute_value(x) for x in norm.attribute if x.name == "epsilon")
        scale = gain / np.sqrt(variance + epsilon)
        weight = constants[linear.input[1]]
        own = constants[linear.input[2]].astype(np.float64) if len(linear.input) > 2 else 0.0
        constants[linear.input[1]] = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
        bias = f"{linear.input[1]}.bias"
        constants[bias] = (scale * (own - mean) + shift).astype(np.float32)
        linear.input[:] = [*linear.input[:2], bias]
        linear.output[:] = norm.output
        made_by[norm.output[0]] = linear
        nodes.remove(norm)
