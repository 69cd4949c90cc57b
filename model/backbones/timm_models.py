"""Any timm model as a backbone: its features before the classifier, of the pixels that it was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from eigenlens.model.backbones.backbone import Backbone
from eigenlens.model.backbones.pixels import Renormalise
from eigenlens.model.errors import ConfigError

PREFIX = "timm:"


class TimmBackbone(Backbone):
    """The pooled features of timm's model of that name; `image_size` and the pixels' mean and std are its own.

    Raises: ModuleNotFoundError, where the extra `timm` is not installed; ConfigError, if timm has no such model, or no
        weights of it where they are asked for, or if it does not make one vector of a square image.
    """

    checkpoint_prefix = "network."

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        require_timm_model(name)
        import timm

        super().__init__()
        try:
            self.network = timm.create_model(name, pretrained=pretrained, num_classes=0)
        except Exception as error:  # what a download raises depends on timm's, the hub's and the system's versions
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(f"timm cannot make '{name}'{' with its weights' * pretrained}: {reason[0]}") from error
        data = timm.data.resolve_model_data_config(self.network)
        _, height, width = data["input_size"]
        if height != width:
            raise ConfigError(f"timm's '{name}' takes {width} x {height} pixels, and only squares are supported")
        self.image_size = int(height)
        self.classifier = str(self.network.pretrained_cfg.get("classifier", ""))
        self.pixels = Renormalise(data["mean"], data["std"])
        with torch.no_grad():
            shape = self.network.eval()(torch.zeros(1, 3, height, width)).shape
        if len(shape) != 2:
            raise ConfigError(f"timm's '{name}' makes features of shape {tuple(shape)} and not one vector of an image")
        self.feature_length = int(shape[1])
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network(self.pixels(x))
        return features


def require_timm_model(name: str) -> None:
    """Raises: ConfigError, with names that are like it, if timm has no such model; ModuleNotFoundError without timm."""
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.partition('.')[0]}*")[:6] or timm.list_models("resnet*")[:6]
        raise ConfigError(f"timm has no model '{name}'; it has, among others, {', '.join(near)}")
