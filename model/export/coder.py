"""From a trained network to its codes: the spectrum of its functions, and one linear map that orders and scales."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eigenlens.model.config import TrainingConfig
from eigenlens.model.network import CodeNetwork, EncoderNetwork, normalise_pixels
from eigenlens.model.pairs.neighbours import IMAGES_PER_NEIGHBOUR, nearest_neighbours
from eigenlens.model.pairs.sampler import PairSampler, stream
from eigenlens.model.spectrum.moments import FOLDS, PairMoments
from eigenlens.model.spectrum.rayleigh_ritz import Spectrum, rayleigh_ritz, rayleigh_ritz_within, without

_BATCH = 512
# How often neighbours are sought, by the code so far.
_ROUNDS = 2


def code_network(network: EncoderNetwork, config: TrainingConfig) -> CodeNetwork:
    """The network that a configuration's codes come from, not yet with its codes."""
    spectrum = config.spectrum
    return CodeNetwork(network, basis=spectrum.basis, leading=spectrum.leading, code_length=config.code_length)


def estimate_spectrum(
    network: CodeNetwork, pixels: NDArray[np.uint8], config: TrainingConfig, *, device: torch.device
) -> Spectrum:
    """Rayleigh-Ritz over positive pairs of the training images; `network` is in evaluation mode.

    Views say what stays the same thing. The code that they give finds each image's neighbours, which say what is of its
    kind; the code of both finds them once more. Each of the three sets of pairs has the same weight.

    Where the network has leading functions, these are the first that views alone find among the combinations of z;
    what is found among the features comes after them and is uncorrelated with them.
    """
    settings = config.spectrum
    chosen = stream(config.seed, "spectrum", 0)
    rows = torch.randperm(len(pixels), generator=chosen).numpy()[: settings.max_images]
    size = min(_BATCH, math.ceil(len(rows) / FOLDS))
    batches = [np.sort(rows[i : i + size]) for i in range(0, len(rows), size)]
    count = min(settings.neighbours, len(rows) // IMAGES_PER_NEIGHBOUR)
    with torch.inference_mode():
        moments = _view_moments(network, pixels, batches, config, device=device)
        span = torch.eye(moments.length, dtype=torch.float64)
        if network.leading:
            of_z = rayleigh_ritz_within(moments, span[:, network.features :], ridge=settings.leading_ridge)
            leading = of_z.first(network.leading)
            span = torch.cat([span[:, : network.features], leading.directions], 1)
            moments = moments.through(span)
        combined = torch.eye(moments.length, dtype=torch.float64)
        own, found_before = combined.split([moments.length - network.leading, network.leading], 1)
        if count:
            psi = [
                _functions(network, pixels[batch], config, device) for batch in tqdm(batches, "functions", unit="batch")
            ]
            psi = [part @ span.float() for part in psi] if network.leading else psi
            for _ in range(_ROUNDS):
                spectrum = rayleigh_ritz_within(moments, own, ridge=settings.ridge)
                add_neighbours(moments, psi, spectrum, config, count=count)
        if not network.leading:
            return rayleigh_ritz(moments, ridge=settings.ridge)
        following = rayleigh_ritz_within(moments, without(moments, own, found_before), ridge=settings.ridge)
    return Spectrum(
        torch.cat([leading.eigenvalues, following.eigenvalues]),
        torch.cat([leading.directions, span @ following.directions], 1),
        # Of E[psi] only what the combined functions tell is known, and needed.
        span @ (torch.linalg.pinv(span.T @ span, hermitian=True) @ moments.mean),
        torch.cat([leading.margins, following.margins]),
        network.leading,
    )


def _view_moments(
    network: CodeNetwork,
    pixels: NDArray[np.uint8],
    batches: list[NDArray[np.int64]],
    config: TrainingConfig,
    *,
    device: torch.device,
) -> PairMoments:
    """The moments of two views of each image, drawn as often as configured; a batch is a fold, in turn."""
    pairs = PairSampler(pixels, config, device=device)
    moments: PairMoments | None = None
    drawn = list(enumerate(batches)) * config.spectrum.views
    for step, (fold, batch) in enumerate(tqdm(drawn, desc="spectrum", unit="batch"), start=1):
        views = pairs.draw(batch, generator=stream(config.seed, "spectrum", step))
        psi_a, psi_b = (network.functions(view) for view in views)
        moments = moments or PairMoments(psi_a.shape[1])
        moments.update(psi_a, psi_b, fold=fold)
    assert moments is not None
    return moments


def _functions(network: CodeNetwork, pixels: NDArray[np.uint8], config: TrainingConfig, device: torch.device) -> Tensor:
    """psi of whole images, (n, functions), float32, in the main memory."""
    x = normalise_pixels(torch.from_numpy(np.array(pixels)).to(device), size=config.image_size)
    return network.functions(x.contiguous(memory_format=torch.channels_last)).cpu()


def add_neighbours(
    moments: PairMoments, batches: list[Tensor], spectrum: Spectrum, config: TrainingConfig, *, count: int
) -> None:
    """Add pairs of each image and its nearest by the code of `spectrum`, in all as much as the views weigh."""
    psi = torch.cat(batches)
    weight, offset = spectrum.code_weights(config.spectrum.diffusion_time, code_length=config.code_length)
    graph = nearest_neighbours(psi @ weight.T.float() + offset.float(), count)
    start = 0
    for fold, batch in enumerate(tqdm(batches, desc="neighbours' pairs", unit="batch")):
        for near in graph[start : start + len(batch)].T:
            moments.update(batch, psi[near], fold=fold, weight=config.spectrum.views / count)
        start += len(batch)


def set_codes(network: CodeNetwork, spectrum: Spectrum, *, diffusion_time: float) -> None:
    """Make the network's output the ordered code; through the projector's last layer, where z is combined."""
    weight, offset = spectrum.code_weights(diffusion_time, code_length=network.code.out_features)
    if network.last is not None:
        of_features, of_outputs = weight[:, : network.features], weight[:, network.features :]
        offset = offset + of_outputs @ network.last.bias.detach().cpu().double()
        weight = torch.cat([of_features, of_outputs @ network.last.weight.detach().cpu().double()], 1)
    with torch.no_grad():
        network.code.weight.copy_(weight)
        network.code.bias.copy_(offset)
