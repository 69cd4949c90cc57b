"""Fitting a head: one generalised eigenproblem over features, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eigenlens.model.heads.hidden import Hidden
from eigenlens.model.heads.positives import Positives, pair_moments
from eigenlens.model.pairs.neighbours import nearest_neighbours
from eigenlens.model.spectrum.rayleigh_ritz import rayleigh_ritz

_NONE = Hidden()


@dataclass(frozen=True)
class HeadSettings:
    """The settings that a head is fitted with.

    Attributes:
        positives: which features belong together.
        neighbours: how many near images of each count as its kind; unused where positives are views.
        ridge: added to C in every direction, in shares of the mean variance.
        diffusion_time: t, coordinate j is scaled by eigenvalue_j ** t.
    """

    positives: Positives = "views"
    neighbours: int = 20
    ridge: float = 0.3
    diffusion_time: float = 1.0


@dataclass(frozen=True)
class Head:
    """A linear map from features to codes; f are the features and, with hidden layers, functions of them.

        code = weight f + offset

    Example:
        head = fit_head(power_normalise(features), HeadSettings(), code_length=64)
        codes = head.codes(power_normalise(features)[:, 0])  # (n, 64)

    Attributes:
        weight, offset: (code_length, functions) and (code_length,), float64.
        eigenvalues: (code_length,), descending.
        hidden: computes f from the features.
    """

    weight: Tensor
    offset: Tensor
    eigenvalues: Tensor
    hidden: Hidden = _NONE

    def codes(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return codes (n, code_length) of features (n, length)."""
        functions = torch.from_numpy(self.hidden.functions(np.asarray(features, dtype=np.float32)))
        codes = functions @ self.weight.T.float() + self.offset.float()
        return codes.numpy()


def fit_head(
    features: NDArray[np.float32], settings: HeadSettings, *, code_length: int, hidden: Hidden = _NONE
) -> Head:
    """Fit a head: the leading eigenfunctions that are linear in the features and in functions of them.

    Args:
        features: (n, 1 + views, length), after `power_normalise`.

    Raises: TrainingError, if the features hold no such pairs.
    """
    graph = neighbour_graph(features, settings)
    moments = pair_moments(hidden.functions(features), positives=settings.positives, graph=graph)
    spectrum = rayleigh_ritz(moments, ridge=settings.ridge, one_scale=True)
    weight, offset = spectrum.code_weights(settings.diffusion_time)
    return Head(weight[:code_length], offset[:code_length], spectrum.eigenvalues[:code_length], hidden)


def neighbour_graph(features: NDArray[np.float32], settings: HeadSettings) -> NDArray[np.int64] | None:
    """Return the rows of each image's nearest neighbours, (n, neighbours); None where positives are views.

    Heads are fitted to square roots, which serve the very thing; what these are roots of tells the kind better. So
    neighbours are searched for by that, unless the head has views beside them.
    """
    if settings.positives == "views":
        return None
    vectors = torch.from_numpy(features[:, 0])
    if settings.positives == "neighbours":
        vectors = vectors * vectors.abs()
    return nearest_neighbours(vectors, settings.neighbours)
