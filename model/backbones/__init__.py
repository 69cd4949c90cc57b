"""Networks from pixels to features."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from model.backbones.resnet import resnet18, resnet50
from model.backbones.small_conv import small_conv, tiny_conv
from model.errors import ConfigError

BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "tiny-conv": tiny_conv,
    "small-conv": small_conv,
    "resnet18": resnet18,
    "resnet50": resnet50,
}


def build_backbone(name: str) -> nn.Module:
    """A backbone with fresh weights: (n, 3, size, size) normalised pixels to (n, `.feature_length`).

    Raises: ConfigError, which lists the names there are.
    """
    require_backbone(name)
    return BACKBONES[name]()


def require_backbone(name: str) -> None:
    """Raises: ConfigError, which lists the names there are, for another one."""
    if name not in BACKBONES:
        raise ConfigError(f"there is no backbone '{name}'; available: {', '.join(BACKBONES)}")
