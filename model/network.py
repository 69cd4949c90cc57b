"""The trained network: backbone, then an MLP projector whose output is the eigenfunctions up to scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eigenlens.model.backbones.pixels import PIXEL_MEAN, PIXEL_STD
from eigenlens.model.backbones.registry import build_backbone


class Projector(nn.Sequential):
    """Features to z: hidden layers of linear, batch normalisation and ReLU, then one linear layer (`last`)."""

    def __init__(self, feature_length: int, *, hidden_length: int, hidden_layers: int, code_length: int) -> None:
        layers: list[nn.Module] = []
        width = feature_length
        for _ in range(hidden_layers):
            layers += [
                nn.Linear(width, hidden_length, bias=False),
                nn.BatchNorm1d(hidden_length),
                nn.ReLU(inplace=True),
            ]
            width = hidden_length
        super().__init__(*layers, nn.Linear(width, code_length))

    @property
    def last(self) -> nn.Linear:
        """The linear layer that ends the projector."""
        layer = self[-1]
        assert isinstance(layer, nn.Linear)
        return layer


class EncoderNetwork(nn.Module):
    """Backbone and projector: network inputs, as normalised pixels (n, 3, size, size), to z (n, code_length)."""

    def __init__(self, backbone: str, *, hidden_length: int, hidden_layers: int, code_length: int) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone)
        self.projector = Projector(
            self.backbone.feature_length,
            hidden_length=hidden_length,
            hidden_layers=hidden_layers,
            code_length=code_length,
        )

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.projector(self.backbone(x))
        return z


class CodeNetwork(nn.Module):
    """A trained network's layers and one linear map of them (`code`): network inputs to codes (n, code_length).

    Args:
        basis: "features", the backbone's; "projector", whose z is a linear map of its last hidden layer.
        leading: how many functions of z come before those of the features; of no effect where z is the basis.
        code_length: at most; a code has no more coordinates than there are functions.
    """

    def __init__(self, network: EncoderNetwork, *, basis: str, code_length: int, leading: int = 0) -> None:
        super().__init__()
        last = network.projector.last if basis == "projector" or leading else None
        hidden = [] if last is None else list(network.projector)[:-1]
        self.backbone, self.projector, self.last = network.backbone, nn.Sequential(*hidden), last
        width, outputs = (0, 0) if last is None else (last.in_features, last.out_features)
        self.features = 0 if basis == "projector" else network.backbone.feature_length
        self.leading = min(leading, outputs) if self.features else 0
        self.code = nn.Linear(self.features + width, min(code_length, self.features + self.leading or outputs))

    def functions(self, x: Tensor) -> Tensor:
        """Return psi, of which codes are linear combinations: features, then z, where they are used; (n, functions)."""
        layers = self._layers(x)
        if self.last is None:
            return layers
        return torch.cat([layers[:, : self.features], self.last(layers[:, self.features :])], 1)

    def forward(self, x: Tensor) -> Tensor:
        codes: Tensor = self.code(self._layers(x))
        return codes

    def _layers(self, x: Tensor) -> Tensor:
        """Return features, then the projector's last hidden layer, where they are used."""
        features: Tensor = self.backbone(x)
        if self.last is None:
            return features
        hidden: Tensor = self.projector(features)
        return torch.cat([features, hidden], 1) if self.features else hidden


def normalise_pixels(pixels: Tensor, *, size: int | None = None) -> Tensor:
    """Convert uint8 pixels (n, side, side, 3) to what backbones take: float32 (n, 3, size, size), shrunk to `size`."""
    x = (pixels.permute(0, 3, 1, 2).float() * (1 / 255) - PIXEL_MEAN) / PIXEL_STD
    return x if size in (None, x.shape[2]) else nn.functional.interpolate(x, size=size, mode="area")
