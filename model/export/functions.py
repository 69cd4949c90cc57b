"""The ONNX nodes of torch's functions, one writer for each function that the networks of this project are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional as F


class UnknownFunctionError(Exception):
    """A network calls a function, or one in a form, that has no writer here."""


class Nodes(Protocol):
    """What writers add nodes to."""

    def name_of(self, value: Tensor | NDArray[np.generic] | float) -> str:
        """Return the name of a value that was computed before, or of a constant."""
        ...

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        ...


def _pair(value: int | Sequence[int]) -> list[int]:
    sides = [value] * 2 if isinstance(value, int) else list(value)
    return [int(side) for side in (sides * 2 if len(sides) == 1 else sides)]


def _require(known: bool, what: str) -> None:
    if not known:
        raise UnknownFunctionError(what)


def _convolution(
    nodes: Nodes,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> str:
    _require(not isinstance(padding, str), f"conv2d with padding {padding}")
    assert not isinstance(padding, str)
    return nodes.add(
        "Conv",
        [nodes.name_of(x) for x in (input, weight, bias) if x is not None],
        kernel_shape=list(weight.shape[2:]),
        strides=_pair(stride),
        pads=_pair(padding) * 2,
        dilations=_pair(dilation),
        group=groups,
    )


def _linear(nodes: Nodes, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> str:
    _require(input.ndim == 2, f"linear of {input.ndim} dimensions")
    return nodes.add("Gemm", [nodes.name_of(x) for x in (input, weight, bias) if x is not None], transB=1)


def _batch_normalisation(
    nodes: Nodes,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> str:
    parts = (weight, bias, running_mean, running_var)
    _require(not training and all(x is not None for x in parts), "batch_norm of a batch")
    names = [nodes.name_of(x) for x in parts if x is not None]
    return nodes.add("BatchNormalization", [nodes.name_of(input), *names], epsilon=eps)


def _relu(nodes: Nodes, input: Tensor, inplace: bool = False) -> str:
    return nodes.add("Relu", [nodes.name_of(input)])


def _clip(nodes: Nodes, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> str:
    return nodes.add("Clip", [nodes.name_of(input), nodes.name_of(float(min_val)), nodes.name_of(float(max_val))])


def _relu6(nodes: Nodes, input: Tensor, inplace: bool = False) -> str:
    return _clip(nodes, input, 0.0, 6.0)


def _windows(
    kernel_size: int | Sequence[int], stride: int | Sequence[int] | None, padding: int | Sequence[int]
) -> dict[str, list[int]]:
    return {
        "kernel_shape": _pair(kernel_size),
        "strides": _pair(stride or kernel_size),
        "pads": _pair(padding) * 2,
    }


def _average_pool(
    nodes: Nodes,
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> str:
    _require(divisor_override is None, "avg_pool2d with a divisor")
    return nodes.add(
        "AveragePool",
        [nodes.name_of(input)],
        **_windows(kernel_size, stride, padding),
        ceil_mode=int(ceil_mode),
        count_include_pad=int(count_include_pad),
    )


def _max_pool(
    nodes: Nodes,
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> str:
    _require(not return_indices, "max_pool2d with its indices")
    return nodes.add(
        "MaxPool",
        [nodes.name_of(input)],
        **_windows(kernel_size, stride, padding),
        dilations=_pair(dilation),
        ceil_mode=int(ceil_mode),
    )


def _pad(nodes: Nodes, input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> str:
    """Torch counts pads from the last dimension, (before, after) each; ONNX all that come before, then all after."""
    _require(mode == "constant", f"pad with {mode}")
    before = [0] * (input.ndim - len(pad) // 2) + list(pad[0::2])[::-1]
    after = [0] * (input.ndim - len(pad) // 2) + list(pad[1::2])[::-1]
    pads = nodes.name_of(np.array(before + after, np.int64))
    return nodes.add("Pad", [nodes.name_of(input), pads, nodes.name_of(float(value or 0.0))])


def _mean(nodes: Nodes, input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> str:
    _require(dim is not None, "mean of everything")
    assert dim is not None
    axes = np.array([dim] if isinstance(dim, int) else list(dim), np.int64)
    return nodes.add("ReduceMean", [nodes.name_of(input), nodes.name_of(axes)], keepdims=int(keepdim))


def _concatenation(nodes: Nodes, tensors: Sequence[Tensor], dim: int = 0) -> str:
    return nodes.add("Concat", [nodes.name_of(x) for x in tensors], axis=dim)


def _permutation(nodes: Nodes, input: Tensor, *dims: Any) -> str:
    order = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return nodes.add("Transpose", [nodes.name_of(input)], perm=list(order))


def _to_float(nodes: Nodes, input: Tensor) -> str:
    return nodes.add("Cast", [nodes.name_of(input)], to=TensorProto.FLOAT)


def _of_two(kind: str) -> Callable[..., str]:
    """Return the writer of an operation on two values of equal type; numbers become float32."""

    def write(nodes: Nodes, input: Tensor | float, other: Tensor | float) -> str:
        for value in (input, other):
            _require(not isinstance(value, Tensor) or value.dtype == torch.float32, f"{kind} of other than float32")
        return nodes.add(kind, [nodes.name_of(input), nodes.name_of(other)])

    return write


WRITERS: dict[Callable[..., Any], Callable[..., str]] = {
    F.conv2d: _convolution,
    F.linear: _linear,
    F.batch_norm: _batch_normalisation,
    F.relu: _relu,
    torch.relu: _relu,
    F.hardtanh: _clip,
    F.relu6: _relu6,
    F.avg_pool2d: _average_pool,
    F.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    F.pad: _pad,
    torch.mean: _mean,
    torch.cat: _concatenation,
    torch.permute: _permutation,
    Tensor.permute: _permutation,
    Tensor.mean: _mean,
    Tensor.float: _to_float,
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__), _of_two("Add")),
    **dict.fromkeys((torch.sub, Tensor.sub, Tensor.__sub__), _of_two("Sub")),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__), _of_two("Mul")),
    **dict.fromkeys((torch.div, Tensor.div, Tensor.__truediv__), _of_two("Div")),
}
"""Writers by function. Each takes the arguments of its function, and returns the name of the output."""
