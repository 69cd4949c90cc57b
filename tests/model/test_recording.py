"""Networks as ONNX files: written here function by function, or by torch's exporter where one has no writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from eigenlens.model.backbones.mlp import MLP
from eigenlens.model.backbones.registry import BACKBONES, build_backbone
from eigenlens.model.export.functions import UnknownFunctionError
from eigenlens.model.export.onnx_file import ServingNetwork, write_onnx
from eigenlens.model.export.recording import record

SIDE = 11


class Calls(nn.Module):
    """A function of float32 images (n, 3, SIDE, SIDE), and the modules that it calls."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x, *self.parts)


def settled(network: nn.Module) -> nn.Module:
    """Give batch normalisation statistics and weights of its own, so that leaving any of them out shows."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                assert tensor is not None
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
            for tensor in (module.running_var, module.weight.data):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval()


def open_onnx(model: onnx.ModelProto) -> Callable[[NDArray[np.generic]], NDArray[np.float32]]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda inputs: np.asarray(session.run(None, {model.graph.input[0].name: inputs})[0])


def ops_of(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


class Doubled(torch.autograd.Function):
    """A function with a gradient of its own; torch calls it, and what it calls is written."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x * 2


FORMS: dict[str, tuple[Callable[..., Tensor], list[nn.Module], list[str]]] = {
    "convolution": (
        lambda x, conv, norm: norm(conv(x)),
        [nn.Conv2d(3, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=3), nn.BatchNorm2d(6)],
        ["Conv"],
    ),
    "linear map": (
        lambda x, linear, norm: norm(linear(x.mean((2, 3)))),
        [nn.Linear(3, 5), nn.BatchNorm1d(5)],
        ["ReduceMean", "Gemm"],
    ),
    "normalisation alone": (lambda x, norm: norm(x), [nn.BatchNorm2d(3)], ["BatchNormalization"]),
    "normalisation of what is used again": (
        lambda x, conv, norm: (lambda y: norm(y) + y)(conv(x)),
        [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)],
        ["Conv", "BatchNormalization", "Add"],
    ),
    "weights that are used twice": (
        lambda x, conv, norm: norm(conv(conv(x))),
        [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)],
        ["Conv", "Conv", "BatchNormalization"],
    ),
    "zeros around": (
        lambda x, conv: conv(F.pad(x, [0, 2, 1, 0])),
        [nn.Conv2d(3, 4, 3, padding=1)],
        ["Conv"],
    ),
    "ones around": (lambda x, conv: conv(F.pad(x, [0, 2, 1, 0], value=1.0)), [nn.Conv2d(3, 4, 3)], ["Pad", "Conv"]),
    "channels around": (lambda x, conv: conv(F.pad(x, [0, 0, 0, 0, 1, 1])), [nn.Conv2d(5, 4, 3)], ["Pad", "Conv"]),
    "average": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), [], ["AveragePool"]),
    "average of what is inside": (
        lambda x: F.avg_pool2d(x, (2, 3), padding=1, count_include_pad=False),
        [],
        ["AveragePool"],
    ),
    "maximum": (lambda x, pool: pool(x), [nn.MaxPool2d(3, 2, 1, ceil_mode=True)], ["MaxPool"]),
    "bounds": (lambda x: F.relu6(x * 4) + F.hardtanh(x, -0.5, 0.25), [], ["Mul", "Clip", "Clip", "Add"]),
    "in place": (
        lambda x, conv: (lambda y: torch.cat([F.relu(y, inplace=True), y], 1))(conv(x)),
        [nn.Conv2d(3, 3, 1)],
        ["Conv", "Relu", "Concat"],
    ),
    "numbers": (lambda x: (x * 0.5 - 1) / 3 + torch.arange(SIDE).float(), [], ["Mul", "Sub", "Div", "Add"]),
    "with a gradient of its own": (lambda x: Doubled.apply(x) * 3, [], ["Mul", "Mul"]),  # type: ignore[no-untyped-call]
    "order": (lambda x: torch.mean(x.permute(0, 3, 1, 2), 1, keepdim=True), [], ["Transpose", "ReduceMean"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_function_is_written_as_torch_computes_it(form: str) -> None:
    function, modules, ops = FORMS[form]
    torch.manual_seed(1)
    network = settled(Calls(function, *modules))
    x = torch.randn(7, 3, SIDE, SIDE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = record(network, x[:1], inputs="x", outputs="y")
    with torch.inference_mode():
        expected = network(x)
    np.testing.assert_allclose(open_onnx(model)(x.numpy()), expected.numpy(), atol=1e-5)
    assert ops_of(model) == ops
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed by writing it"


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != MLP])
def test_every_backbone_is_written_without_torchs_exporter(name: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = ServingNetwork(settled(build_backbone(name))).eval()
    write_onnx(network, tmp_path / "encoder.onnx", image_size=32)
    model = onnx.load(tmp_path / "encoder.onnx")
    assert model.producer_name == "eigenlens"
    assert not {"BatchNormalization", "Pad"} & set(ops_of(model)), "they are folded"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels)).numpy()
    compute = open_onnx(model)
    np.testing.assert_allclose(compute(pixels), expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(compute(pixels[:1]), expected[:1], atol=1e-5 * np.abs(expected).max())


UNKNOWN: dict[str, tuple[Callable[..., Tensor], list[nn.Module], str]] = {
    "function": (F.gelu, [], "gelu"),
    "argument": (lambda x: torch.add(x, x, alpha=2), [], "alpha"),
    "form": (lambda x, conv: conv(x), [nn.Conv2d(3, 3, 3, padding="same")], "padding same"),
    "statistics of a batch": (lambda x, norm: norm(x), [nn.BatchNorm2d(3, track_running_stats=False)], "of a batch"),
    "number of items": (lambda x: x * (1 / x.shape[0]), [], "number of items"),
    "decision by content": (lambda x: x * 2 if x.sum() > 0 else x, [], "sum"),
    "number from content": (lambda x: x * x.mean((0, 1, 2, 3)).item(), [], "item"),
    "constant": (lambda x: torch.ones(len(x.shape), 2), [], "no function of the input"),
    "nothing": (lambda x: x, [], "no function of the input"),
}


@pytest.mark.parametrize("form", UNKNOWN)
def test_what_cannot_be_written_here_is_not_written(form: str) -> None:
    function, modules, said = UNKNOWN[form]
    with pytest.raises(UnknownFunctionError, match=said):
        record(Calls(function, *modules).eval(), torch.zeros(1, 3, SIDE, SIDE), inputs="x", outputs="y")


def test_torchs_exporter_writes_what_has_no_writer_here(tmp_path: Path) -> None:
    """GELU is a function of many a timm model."""
    torch.manual_seed(3)
    network = Calls(lambda x, linear: F.gelu(linear(x.float().mean((1, 2)) / 255)), nn.Linear(3, 4)).eval()
    write_onnx(network, tmp_path / "encoder.onnx", image_size=8)
    model = onnx.load(tmp_path / "encoder.onnx")
    assert model.producer_name == "pytorch"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(open_onnx(model)(pixels), expected, atol=1e-6)
    assert str(Path(torch.__file__).parent).encode() not in (tmp_path / "encoder.onnx").read_bytes()
