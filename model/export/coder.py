"""From a trained network to its codes: the spectrum of its functions, and one linear map that orders and scales."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eigenlens.model.config import TrainingConfig
from eigenlens.model.network import CodeNetwork, EncoderNetwork
from eigenlens.model.pairs.neighbours import IMAGES_PER_NEIGHBOUR, nearest_neighbours
from eigenlens.model.pairs.source import PairSource, rng_for
from eigenlens.model.spectrum.moments import FOLDS, PairMoments
from eigenlens.model.spectrum.rayleigh_ritz import Spectrum, project_out, rayleigh_ritz, rayleigh_ritz_within

_BATCH = 512
# How often neighbours are sought, by the code so far.
_ROUNDS = 2


def code_network(network: EncoderNetwork, config: TrainingConfig) -> CodeNetwork:
    """Build the network that a configuration's codes come from; `set_codes` gives it its codes."""
    spectrum = config.closed_form
    return CodeNetwork(network, basis=spectrum.basis, leading=spectrum.leading, code_length=config.code_length)


def estimate_spectrum(network: CodeNetwork, pairs: PairSource, config: TrainingConfig) -> Spectrum:
    """Estimate the ordered eigenfunctions by Rayleigh-Ritz over positive pairs of the training items.

    Views say what stays the same thing. The code that they give finds each item's neighbours, which say what is of its
    kind; the code of both finds them once more. Each of the three sets of pairs has the same weight.

    Where the network has leading functions, these are the first that views alone find among the combinations of z;
    what is found among the features comes after them and is uncorrelated with them.

    Args:
        network: in evaluation mode, on the device of the pairs.
        pairs: the training items.
    """
    settings = config.closed_form
    # A sample of the items in batches, no more than there are folds where they are few.
    rows = torch.randperm(len(pairs), generator=rng_for(config.seed, "spectrum", 0)).numpy()[: settings.max_images]
    size = min(_BATCH, math.ceil(len(rows) / FOLDS))
    batches = [np.sort(rows[i : i + size]) for i in range(0, len(rows), size)]
    count = min(settings.neighbours, len(rows) // IMAGES_PER_NEIGHBOUR)
    with torch.inference_mode():
        # Moments of psi, (features, z) or one of them, over pairs of views.
        moments = _view_moments(network, pairs, batches, config)
        span = torch.eye(moments.length, dtype=torch.float64)
        if network.leading:
            # The leading functions replace z: from here on, psi @ span is (features, leading functions).
            of_z = rayleigh_ritz_within(moments, span[:, network.features :], ridge=settings.leading_ridge)
            leading = of_z.first(network.leading)
            span = torch.cat([span[:, : network.features], leading.directions], 1)
            moments = moments.transform(span)
        identity = torch.eye(moments.length, dtype=torch.float64)
        features, leading_span = identity.split([moments.length - network.leading, network.leading], 1)
        if count:
            # Pairs of neighbours join the views': found by the code of the views, then by the code of both.
            psi = [network.functions(pairs.inputs(batch)) for batch in tqdm(batches, "functions", unit="batch")]
            psi = [part @ span.float().to(part.device) for part in psi] if network.leading else psi
            for _ in range(_ROUNDS):
                spectrum = rayleigh_ritz_within(moments, features, ridge=settings.ridge)
                add_neighbours(moments, psi, spectrum, config, count=count)
        if not network.leading:
            return rayleigh_ritz(moments, ridge=settings.ridge)
        # The features' functions follow, less what the leading ones explain of them.
        residual = project_out(moments, features, leading_span)
        following = rayleigh_ritz_within(moments, residual, ridge=settings.ridge)
    return Spectrum(
        torch.cat([leading.eigenvalues, following.eigenvalues]),
        torch.cat([leading.directions, span @ following.directions], 1),
        # Of E[psi] only its part in the span is known, and needed.
        span @ (torch.linalg.pinv(span.T @ span, hermitian=True) @ moments.mean),
        torch.cat([leading.margins, following.margins]),
        network.leading,
    )


def _view_moments(
    network: CodeNetwork, pairs: PairSource, batches: list[NDArray[np.int64]], config: TrainingConfig
) -> PairMoments:
    """Sum the moments of positive pairs, drawn as often as configured; a batch is a fold, in turn."""
    moments: PairMoments | None = None
    draws = list(enumerate(batches)) * config.spectrum.views
    for step, (fold, batch) in enumerate(tqdm(draws, desc="spectrum", unit="batch"), start=1):
        a, b = pairs.draw(batch, rng_for(config.seed, "spectrum", step))
        psi_a, psi_b = network.functions(a), network.functions(b)
        moments = moments or PairMoments(psi_a.shape[1])
        moments.update(psi_a, psi_b, fold=fold)
    assert moments is not None
    return moments


def add_neighbours(
    moments: PairMoments, batches: list[Tensor], spectrum: Spectrum, config: TrainingConfig, *, count: int
) -> None:
    """Add the pairs of each item and its nearest by the code of `spectrum`; in all they weigh as much as the views.

    Args:
        moments: of psi; they are added to.
        batches: psi of the items, (n, functions) each.
        count: neighbours of each item.
    """
    psi = torch.cat(batches)
    weight, offset = spectrum.code_weights(config.spectrum.diffusion_time, code_length=config.code_length)
    weight, offset = weight.float().to(psi.device), offset.float().to(psi.device)
    near = nearest_neighbours(psi @ weight.T + offset, count)
    folds = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    moments.update_neighbours(psi, near, folds, weight=config.spectrum.views / count)


def set_codes(network: CodeNetwork, spectrum: Spectrum, *, diffusion_time: float) -> None:
    """Set the network's linear map so that its output is the ordered code, code = W psi + b.

    Where psi holds z, the projector's last layer is folded in: z = V h + c, so W_z z = (W_z V) h + W_z c.
    """
    weight, offset = spectrum.code_weights(diffusion_time, code_length=network.code.out_features)
    if network.last is not None:
        of_features, of_outputs = weight[:, : network.features], weight[:, network.features :]
        offset = offset + of_outputs @ network.last.bias.detach().cpu().double()
        weight = torch.cat([of_features, of_outputs @ network.last.weight.detach().cpu().double()], 1)
    with torch.no_grad():
        network.code.weight.copy_(weight)
        network.code.bias.copy_(offset)
