"""Names of backbones and what builds them, with fresh weights or published ones."""

from __future__ import annotations

from collections.abc import Callable

from eigenlens.model.backbones.backbone import Backbone
from eigenlens.model.backbones.efficientnet import EFFICIENTNET, EfficientNetLite0
from eigenlens.model.backbones.mlp import MLP, Mlp
from eigenlens.model.backbones.resnet import resnet18, resnet18_small_images, resnet34, resnet50
from eigenlens.model.backbones.small_conv import small_conv, tiny_conv
from eigenlens.model.backbones.timm_models import PREFIX, TimmBackbone, require_timm_model
from eigenlens.model.errors import ConfigError

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "tiny-conv": tiny_conv,
    "small-conv": small_conv,
    "resnet18": resnet18,
    "resnet18-cifar": resnet18_small_images,
    "resnet34": resnet34,
    "resnet50": resnet50,
    EFFICIENTNET: EfficientNetLite0,
    MLP: Mlp,
}


def build_backbone(name: str) -> Backbone:
    """Build a backbone with fresh weights.

    Raises: ConfigError, which lists the names there are; ModuleNotFoundError, where its extra is not installed.
    """
    require_backbone(name)
    return TimmBackbone(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else BACKBONES[name]()


def pretrained_backbone(name: str) -> Backbone:
    """Build a backbone with the weights that it is published with; it has an `image_size`.

    Raises: ConfigError, if none are; ModuleNotFoundError, where its extra is not installed.
    """
    if name.startswith(PREFIX):
        return TimmBackbone(name.removeprefix(PREFIX), pretrained=True)
    if name == EFFICIENTNET:
        return EfficientNetLite0(pretrained=True)
    raise ConfigError(f"backbone '{name}' does not come with weights; {EFFICIENTNET} and {PREFIX}NAME do")


def require_backbone(name: str) -> None:
    """Check that there is a backbone of that name. Raises: ConfigError, which lists the names there are."""
    if name.startswith(PREFIX):
        require_timm_model(name.removeprefix(PREFIX))
    elif name not in BACKBONES:
        raise ConfigError(f"there is no backbone '{name}'; available: {', '.join(BACKBONES)}, {PREFIX}NAME")
