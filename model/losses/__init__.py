"""Training objectives, one idea a file, all of the form `loss(z_a, z_b) -> scalar`, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from eigenlens.model.config import ObjectiveConfig
from eigenlens.model.losses.barlow_twins import barlow_twins_loss
from eigenlens.model.losses.nested import nested_low_rank_loss
from eigenlens.model.losses.neural_eigenmap import neural_eigenmap_loss
from eigenlens.model.losses.simclr import simclr_loss
from eigenlens.model.losses.spectral_contrastive import spectral_contrastive_loss
from eigenlens.model.losses.vicreg import vicreg_loss

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Callable[..., Tensor]] = {
    "neural-eigenmap": neural_eigenmap_loss,
    "nested": nested_low_rank_loss,
    "scl": spectral_contrastive_loss,
    "barlow-twins": barlow_twins_loss,
    "simclr": simclr_loss,
    "vicreg": vicreg_loss,
}


def build_loss(objective: ObjectiveConfig) -> Loss:
    """Build the objective that a configuration names, with its weights."""
    weights: dict[str, Any] = objective.model_dump(exclude={"name"})
    return partial(LOSSES[objective.name], **weights)
