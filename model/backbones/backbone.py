"""What every backbone is: a network from pixels, or numbers of nodes, to features, with what the rest needs to know."""

from __future__ import annotations

from typing import Self

from torch import nn


class Backbone(nn.Module):
    """Base class of networks from normalised pixels (n, 3, side, side) to features (n, feature_length).

    That of nodes takes (n, INPUT_LENGTH) instead.

        backbone = build_backbone("resnet18")
        features = backbone(normalise_pixels(pixels))  # (n, backbone.feature_length)

    Attributes:
        feature_length: width of the features.
        image_size: side of the input in pixels that published weights were trained on; None where there are none.
        classifier: name of the layer behind the features in published checkpoints; empty where they have none.
        checkpoint_prefix: what parameter names here have before those of published checkpoints.
    """

    feature_length: int
    image_size: int | None = None
    classifier: str = ""
    checkpoint_prefix: str = ""

    def freeze(self) -> Self:
        """Make this, in place, the network that heads are fitted to and that is served: it is not trained any more."""
        return self.requires_grad_(False)
