"""The network of nodes: features that are smoothed over the edges already, so that one hidden layer is enough."""

from __future__ import annotations

from torch import Tensor, nn

from eigenlens.model.backbones.backbone import Backbone

MLP = "mlp"
INPUT_LENGTH = 512
"""Numbers of a node that it takes; a graph with fewer features leaves the last ones zero."""


class Mlp(Backbone):
    """One hidden layer: numbers of nodes (n, INPUT_LENGTH) to features (n, feature_length), not images."""

    feature_length = 512

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(INPUT_LENGTH, self.feature_length, bias=False),
            nn.BatchNorm1d(self.feature_length),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features
