"""A network as an ONNX graph: the functions that it calls are written down while it computes an example."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from eigenlens.model.export.folding import fold_normalisations, fold_pads
from eigenlens.model.export.functions import WRITERS, UnknownFunctionError

_OPSET, _IR_VERSION = 20, 10
# Numbers of items: whatever depends on them shows as a difference between two recordings.
_FEW, _MORE = 2, 5
# What asks for a shape computes nothing.
_QUESTIONS = (Tensor.dim, Tensor.size, Tensor.shape.__get__)  # type: ignore[attr-defined]  # as torch.overrides names it


def record(network: nn.Module, item: Tensor, *, inputs: str, outputs: str) -> onnx.ModelProto:
    """Write a network in evaluation mode as an ONNX graph with a free batch axis; its output is float32.

    Batch normalisation and padding with zeros are folded into the convolutions or linear maps beside them.

    Args:
        item: an example, (1, ...), of any values.
        inputs, outputs: what the graph calls its input and its output.

    Raises: UnknownFunctionError, if the network calls what has no writer, or calls depend on the number of items.
    """
    recording, result = _record(network, item.expand(_FEW, *item.shape[1:]), inputs, outputs)
    other, _ = _record(network, item.expand(_MORE, *item.shape[1:]), inputs, outputs)
    if not recording.is_the_same_as(other):
        raise UnknownFunctionError("calls that depend on the number of items")
    nodes, constants = recording.nodes, recording.constants
    fold_pads(nodes, constants)
    fold_normalisations(nodes, constants)
    used = {name for node in nodes for name in node.input}
    kind = helper.np_dtype_to_tensor_dtype(item.numpy().dtype)
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info(inputs, kind, ["n", *item.shape[1:]])],
        [helper.make_tensor_value_info(outputs, onnx.TensorProto.FLOAT, ["n", *result.shape[1:]])],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="eigenlens"
    )


def _record(network: nn.Module, example: Tensor, inputs: str, outputs: str) -> tuple[_Recording, Tensor]:
    names = {id(x): name for name, x in (*network.named_parameters(), *network.named_buffers())}
    with torch.inference_mode(), _Recording(example, inputs, names) as recording:
        result: Tensor = network(example)
    recording.end(result, outputs)
    return recording, result


class _Recording(TorchFunctionMode):
    """While it is entered, functions of what derives from the input become nodes; other tensors are constants.

    Args:
        names: of constants, by the identity of their tensors.
    """

    def __init__(self, example: Tensor, inputs: str, names: dict[int, str]) -> None:
        super().__init__()
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}
        self._computed = {id(example): inputs}
        self._named = names
        # Kept, since the identity of a tensor that is gone would become another's.
        self._seen = [example]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute, and write down what was computed."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _QUESTIONS or not any(id(x) in self._computed for x in _flat([*args, *kwargs.values()])):
            return result
        called = getattr(func, "__qualname__", str(func))
        writer = WRITERS.get(func)
        if writer is None:
            raise UnknownFunctionError(called)
        try:
            inspect.signature(writer).bind(self, *args, **kwargs)
        except TypeError as error:
            raise UnknownFunctionError(f"{called}: {error}") from error
        # Computed in place, the input itself is the result: it has the new name from here on.
        self._computed[id(result)] = writer(self, *args, **kwargs)
        self._seen.append(result)
        return result

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def name_of(self, value: Tensor | NDArray[np.generic] | float) -> str:
        """Return the name of a value that was computed before, or of a constant."""
        if isinstance(value, Tensor):
            if id(value) in self._computed:
                return self._computed[id(value)]
            self._seen.append(value)
            array, known = value.detach().cpu().numpy(), self._named.get(id(value))
        else:
            array, known = np.asarray(value, np.float32) if isinstance(value, float | int) else value, None
        same = (x for x, other in self.constants.items() if other.dtype == array.dtype and np.array_equal(other, array))
        name = known or (next(same, None) if array.size <= 8 else None) or f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name

    def end(self, result: Tensor, outputs: str) -> None:
        """Give the result its name. Raises: UnknownFunctionError, if no function of the input computed it."""
        name = self._computed.get(id(result))
        if not self.nodes or name is None or name == self._computed[id(self._seen[0])]:
            raise UnknownFunctionError("an output that is no function of the input")
        if result.dtype != torch.float32:
            raise UnknownFunctionError(f"an output of {result.dtype}")
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [outputs if x == name else x for x in names]

    def is_the_same_as(self, other: _Recording) -> bool:
        """Whether the other has the same nodes and constants."""
        return (
            self.nodes == other.nodes
            and self.constants.keys() == other.constants.keys()
            and all(np.array_equal(x, other.constants[name]) for name, x in self.constants.items())
        )


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value
