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
from eigenlens.model.spectrum.rayleigh_ritz import Spectrum, rayleigh_ritz

_NONE = Hidden()
# The span is used where the photographs and their views are fewer than this share of the features.
_SMALL_SPAN = 1.25


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
    problem = PairProblem(hidden.functions(features), settings.positives, neighbour_graph(features, settings))
    spectrum = problem.solve(ridge=settings.ridge)
    weight, offset = spectrum.code_weights(settings.diffusion_time, code_length=code_length)
    eigenvalues = torch.zeros(code_length, dtype=torch.float64)
    eigenvalues[: len(spectrum.eigenvalues)] = spectrum.eigenvalues[:code_length]
    return Head(weight, offset, eigenvalues, hidden)


class PairProblem:
    """The eigenproblem of a head over the positive pairs of some photographs, to be solved for several ridges.

    Few photographs span few directions, and outside of these every function is zero. There the problem is solved in
    their span: with an orthonormal basis Q of it, functions f = Qᵀ g have the same eigenvalues, and the ridge, which is
    a share of the mean variance, counts directions that are not there.

        spectrum = PairProblem(functions, "views", None).solve(ridge=0.3)
    """

    def __init__(self, functions: NDArray[np.float32], positives: Positives, graph: NDArray[np.int64] | None) -> None:
        """Sum the moments of the pairs.

        Args:
            functions: (n, 1 + views, length).
            graph: rows of each image's neighbours, (n, count); needed unless positives are views.

        Raises: TrainingError, if there are no such pairs.
        """
        n, drawn, length = functions.shape
        self._basis: NDArray[np.float64] | None = None
        self._ridge_share = 1.0
        if _SMALL_SPAN * n * drawn < length:
            self._basis = np.linalg.qr(functions.reshape(-1, length).T.astype(np.float64))[0]
            self._ridge_share = n * drawn / length
            functions = (functions @ self._basis).astype(np.float32)
        self._moments = pair_moments(functions, positives=positives, graph=graph)

    def solve(self, *, ridge: float) -> Spectrum:
        """Return the eigenfunctions, as many as the photographs span. The ridge is as HeadSettings has it."""
        spectrum = rayleigh_ritz(self._moments, ridge=ridge * self._ridge_share, one_scale=True)
        if self._basis is None:
            return spectrum
        basis = torch.from_numpy(self._basis)
        return Spectrum(spectrum.eigenvalues, basis @ spectrum.directions, basis @ spectrum.mean, spectrum.margins)


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
