"""A small residual network for 24 to 96 pixels a side, sized to train in minutes on two CPU cores."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from eigenlens.model.backbones.backbone import Backbone


class _Block(nn.Module):
    def __init__(self, width_in: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
            nn.Conv2d(width_in, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class SmallConv(Backbone):
    """Stem and three residual blocks, each halving the side; global average pooling."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(
            _Block(widths[0], widths[1], stride=1),
            _Block(widths[1], widths[2], stride=2),
            _Block(widths[2], widths[3], stride=2),
        )
        self.feature_length = widths[3]

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.stem(x)).mean((2, 3))
        return features


def small_conv() -> SmallConv:
    """The default for training from scratch on a CPU; features are 256 wide."""
    return SmallConv((32, 64, 128, 256))


def tiny_conv() -> SmallConv:
    """A quarter of small_conv's work, for training in a minute or two; features are 128 wide."""
    return SmallConv((16, 32, 64, 128))
