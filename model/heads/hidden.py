"""Hidden layers of a head: functions of cached features beside the features, trained with the objective.

A linear head combines the features. With hidden layers it combines the features and what a small network makes of them,
so the Rayleigh-Ritz step that follows finds what either has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from eigenlens.model.config import NestedConfig
from eigenlens.model.errors import TrainingError
from eigenlens.model.heads.positives import Positives
from eigenlens.model.losses import build_loss
from eigenlens.model.network import Projector

_LAYERS = 1
_OUTPUTS = 256
_BATCH = 512
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 1e-2
_WARMUP_STEPS = 20
_CHUNK = 4096


@dataclass(frozen=True)
class Hidden:
    """Layers h -> relu(W h + b), from features to as many functions as the last one is wide; without any, the features.

    Attributes:
        layers: W (width, width before) and b (width,) of each, float32.
    """

    layers: tuple[tuple[Tensor, Tensor], ...] = ()

    def functions(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features (..., length) with the functions of them appended."""
        if not self.layers:
            return features
        flat = features.reshape(-1, features.shape[-1])
        computed = [self._layers(flat[i : i + _CHUNK]) for i in range(0, len(flat), _CHUNK)]
        return np.concatenate([flat, np.concatenate(computed)], axis=1).reshape(*features.shape[:-1], -1)

    def _layers(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        h = torch.from_numpy(features)
        for weight, offset in self.layers:
            h = torch.relu(h @ weight.T + offset)
        return h.numpy()


def train_hidden(
    features: NDArray[np.float32],
    *,
    positives: Positives,
    graph: NDArray[np.int64] | None,
    width: int,
    steps: int,
    seed: int,
) -> Hidden:
    """Train a projector over the features with the nested objective, on pairs of views, of neighbours or of both.

    Args:
        features: (n, 1 + views, length), of images and of their views.
        graph: rows of each image's neighbours, (n, count); needed unless positives are views.
        width: of the hidden layer.

    Raises: TrainingError, if there are no pairs, or the loss stops being a number.
    """
    n, drawn, length = features.shape
    if n < 2 or (positives != "neighbours" and drawn < 2):
        raise TrainingError(f"a head with hidden layers needs two images, and views for '{positives}'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Projector(length, hidden_length=width, hidden_layers=_LAYERS, code_length=_OUTPUTS).train()
    generator = torch.Generator().manual_seed(seed)
    loss, values = build_loss(NestedConfig()), torch.from_numpy(features)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=_WEIGHT_DECAY)
    for step in tqdm(range(steps), desc="head", unit="step"):
        ramp = min(1.0, (step + 1) / (_WARMUP_STEPS + 1))
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * ramp * 0.5 * (1 + math.cos(math.pi * step / steps))
        a, b = draw_pairs(values, positives=positives, graph=graph, generator=generator)
        optimizer.zero_grad(set_to_none=True)
        value = loss(*network(torch.cat([a, b])).chunk(2))
        value.backward()
        optimizer.step()
        if not math.isfinite(value.item()):
            raise TrainingError(f"the loss of the head's hidden layers is {value.item()} at step {step + 1}")
    return _rescale(Hidden(_fold_normalisation(network.eval())), features[:, 0])


def draw_pairs(
    features: Tensor, *, positives: Positives, graph: NDArray[np.int64] | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw positive pairs of at most 512 images, (m, length) each: two views, an image and a near one, or both."""
    n, drawn, _ = features.shape
    rows = torch.randperm(n, generator=generator)[:_BATCH]
    first = torch.randint(drawn, (len(rows),), generator=generator)
    other = (first + torch.randint(1, max(drawn, 2), (len(rows),), generator=generator)) % drawn
    a, b = features[rows, first], features[rows, other]
    if positives == "views":
        return a, b
    assert graph is not None
    near = torch.from_numpy(graph)[rows, torch.randint(graph.shape[1], (len(rows),), generator=generator)]
    kind = torch.rand(len(rows), generator=generator) < (0.5 if positives == "both" else 1.0)
    return torch.where(kind[:, None], features[rows, 0], a), torch.where(kind[:, None], features[near, 0], b)


def _rescale(hidden: Hidden, features: NDArray[np.float32]) -> Hidden:
    """Scale the functions to vary as much as the features do, so that a ridge weighs on both alike."""
    both = hidden.functions(features)
    length = features.shape[1]
    sizes = [float(np.square(part - part.mean(0)).sum()) for part in (both[:, :length], both[:, length:])]
    scale = math.sqrt(sizes[0] / max(sizes[1], 1e-12))
    *before, (weight, offset) = hidden.layers
    return Hidden((*before, (weight * scale, offset * scale)))


def _fold_normalisation(network: Projector) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return the hidden layers with their batch normalisation, in evaluation mode, folded in."""
    layers = []
    for linear, norm in zip(list(network)[:-1:3], list(network)[1::3], strict=True):
        assert isinstance(linear, nn.Linear)
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
        layers.append((linear.weight.detach() * gain[:, None], norm.bias.detach() - norm.running_mean * gain))
    return tuple(layers)
