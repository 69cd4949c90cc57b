"""ResNet-18, 34 and 50 without classifier, with torchvision's parameter names and pixels: its checkpoints fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eigenlens.model.backbones.backbone import Backbone
from eigenlens.model.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, Renormalise


class _BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, width_in: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(width_in, width * self.expansion, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return out


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, width_in: int, width: int, *, stride: int) -> None:
        super().__init__()
        width_out = width * self.expansion
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(width_in, width_out, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return out


def _downsample(width_in: int, width_out: int, *, stride: int) -> nn.Module | None:
    if stride == 1 and width_in == width_out:
        return None
    return nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out))


class ResNet(Backbone):
    """He et al., arXiv:1512.03385, in the form of torchvision (stride in the 3x3 convolution).

    Args:
        small_images: for images of some 32 pixels: the first convolution is 3x3 with stride 1, and nothing is pooled.
            Source: Chen et al., arXiv:2002.05709, appendix B.9.
    """

    classifier = "fc"

    def __init__(
        self,
        block: type[_BasicBlock] | type[_Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        small_images: bool = False,
    ) -> None:
        super().__init__()
        self.pixels = Renormalise(IMAGENET_MEAN, IMAGENET_STD)
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False) if small_images else nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1)
        width_in = 64
        for stage, depth in enumerate(depths, start=1):
            width = 32 * 2**stage
            blocks: list[nn.Module] = []
            for i in range(depth):
                blocks.append(block(width_in, width, stride=2 if stage > 1 and i == 0 else 1))
                width_in = width * block.expansion
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.feature_length = width_in
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.pixels(x)))))
        x = self.get_submodule("layer4")(
            self.get_submodule("layer3")(self.get_submodule("layer2")(self.get_submodule("layer1")(x)))
        )
        return torch.mean(x, (2, 3))


def resnet18() -> ResNet:
    """ResNet-18; features are 512 wide."""
    return ResNet(_BasicBlock, (2, 2, 2, 2))


def resnet18_small_images() -> ResNet:
    """ResNet-18 for images of some 32 pixels; features are 512 wide."""
    return ResNet(_BasicBlock, (2, 2, 2, 2), small_images=True)


def resnet34() -> ResNet:
    """ResNet-34; features are 512 wide."""
    return ResNet(_BasicBlock, (3, 4, 6, 3))


def resnet50() -> ResNet:
    """ResNet-50; features are 2048 wide."""
    return ResNet(_Bottleneck, (3, 4, 6, 3))
