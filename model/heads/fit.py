"""Fitting a head: one generalised eigenproblem, its settings chosen on photographs that are held out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from eigenlens.model.errors import TrainingError
from eigenlens.model.heads.hidden import Hidden
from eigenlens.model.heads.positives import Positives, pair_moments
from eigenlens.model.pairs.neighbours import nearest_neighbours
from eigenlens.model.spectrum.rayleigh_ritz import rayleigh_ritz

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
TIMES = (0.0, 0.5, 1.0, 2.0)
NEIGHBOURS = (5, 10, 20, 50)
# Prefix lengths whose quality is averaged when settings are compared.
_LENGTHS = (16, 32, 64, 128, 256)
_PRECISION_AT = 10
_MAX_QUERIES = 2000
# One photograph in five is held out.
_HELD_OUT = 5
_NONE = Hidden()


@dataclass(frozen=True)
class HeadSettings:
    """What a head is fitted by.

    Attributes:
        neighbours: of each image that count as its kind; unused where positives are views.
        ridge: added to C in every direction, in shares of the mean variance.
        diffusion_time: t, coordinate j is scaled by eigenvalue_j ** t.
    """

    positives: Positives = "views"
    neighbours: int = 20
    ridge: float = 0.3
    diffusion_time: float = 1.0


@dataclass(frozen=True)
class Head:
    """From features to codes, code = weight f + offset; f are the features and, with hidden layers, functions of them.

    Attributes:
        weight, offset: (code_length, functions) and (code_length,), float64.
        eigenvalues: (code_length,), descending.
        hidden: what makes f of the features.
    """

    weight: Tensor
    offset: Tensor
    eigenvalues: Tensor
    hidden: Hidden = _NONE

    def codes(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Codes (n, code_length) of features (n, length)."""
        functions = torch.from_numpy(self.hidden.functions(np.asarray(features, dtype=np.float32)))
        found = functions @ self.weight.T.float() + self.offset.float()
        return found.numpy()


def fit_head(
    features: NDArray[np.float32], settings: HeadSettings, *, code_length: int, hidden: Hidden = _NONE
) -> Head:
    """The head of the given settings: the leading eigenfunctions that are linear in the features and functions of them.

    Args:
        features: (n, 1 + views, length), after `power_normalise`.

    Raises: TrainingError, if the features hold no such pairs.
    """
    graph = neighbour_graph(features, settings)
    moments = pair_moments(hidden.functions(features), positives=settings.positives, graph=graph)
    spectrum = rayleigh_ritz(moments, ridge=settings.ridge, one_scale=True)
    weight, offset = spectrum.code_weights(settings.diffusion_time)
    return Head(weight[:code_length], offset[:code_length], spectrum.eigenvalues[:code_length], hidden)


def choose_settings(
    features: NDArray[np.float32],
    base: HeadSettings,
    *,
    fixed: Collection[str] = (),
    labels: Sequence[str] | None = None,
    hidden: Hidden = _NONE,
    seed: int = 0,
) -> tuple[HeadSettings, float]:
    """Ridge, diffusion time and, with labels, the number of neighbours that serve held-out photographs best.

    Every fifth photograph is held out from the fit. Without labels the quality is how well a photograph is found by its
    view among all photographs (mean reciprocal rank); with labels it is the precision@10 by label of the held-out
    photographs against the others. Either is averaged over prefix lengths.

    Args:
        base: what is kept of it: the positives, and the settings that `fixed` names.
        hidden: layers of the head, trained without those that `held_out` names.

    Returns: the best settings and their quality.

    Raises: TrainingError, if there are too few photographs, or no views where these are needed.
    """
    n = len(features)
    held = held_out(n, seed=seed)
    kept = np.setdiff1d(np.arange(n), held)
    quality = _finds_itself(features, held) if labels is None else _finds_its_kind(features, held, kept, labels)
    fitted = features[kept]
    functions = hidden.functions(fitted)
    counts = [base.neighbours]
    ridges = (base.ridge,) if "ridge" in fixed else RIDGES
    times = (base.diffusion_time,) if "diffusion_time" in fixed else sorted({*TIMES, base.diffusion_time})
    if labels is not None and base.positives != "views" and "neighbours" not in fixed:
        counts = [count for count in NEIGHBOURS if count < len(kept)] or counts
    best: tuple[HeadSettings, float] | None = None
    with tqdm(total=len(counts) * len(ridges), desc="choose settings", unit="fit") as bar:
        for count in counts:
            graph = neighbour_graph(fitted, replace(base, neighbours=count))
            moments = pair_moments(functions, positives=base.positives, graph=graph)
            for ridge in ridges:
                spectrum = rayleigh_ritz(moments, ridge=ridge, one_scale=True)
                for time in times:
                    found = quality(Head(*spectrum.code_weights(time), spectrum.eigenvalues, hidden))
                    if best is None or found > best[1]:
                        best = HeadSettings(base.positives, count, ridge, time), found
                bar.update()
    assert best is not None
    return best


def held_out(n: int, *, seed: int = 0) -> NDArray[np.int64]:
    """The photographs among n that settings are chosen by: one in five. Raises: TrainingError, if n is too small."""
    if n < 2 * _HELD_OUT:
        raise TrainingError(f"choosing settings needs at least {2 * _HELD_OUT} usable photographs, not {n}")
    return np.random.default_rng(seed).permutation(n)[: min(n // _HELD_OUT, _MAX_QUERIES)]


def neighbour_graph(features: NDArray[np.float32], settings: HeadSettings) -> NDArray[np.int64] | None:
    """Rows of each image's nearest, (n, neighbours), where positives ask for them.

    Heads are fitted to square roots, which serve the very thing; what these are roots of tells the kind better. So
    neighbours are sought by that, unless the head has views beside them.
    """
    if settings.positives == "views":
        return None
    sought = torch.from_numpy(features[:, 0])
    if settings.positives == "neighbours":
        sought = sought * sought.abs()
    return nearest_neighbours(sought, settings.neighbours)


def _finds_itself(features: NDArray[np.float32], held: NDArray[np.int64]) -> Callable[[Head], float]:
    """Mean reciprocal rank of each held-out photograph among all, searched by its last view."""
    if features.shape[1] < 2:
        raise TrainingError("choosing settings without labels needs views: give --views 1 or more, or --labels")
    searched, rows = features[held, -1], torch.from_numpy(held)

    def quality(head: Head) -> float:
        def reciprocal_rank(scores: Tensor) -> Tensor:
            own = scores[torch.arange(len(rows)), rows]
            return 1 / (scores > own[:, None]).sum(1).add(1).double()

        return _mean_over_lengths(head, features[:, 0], searched, reciprocal_rank)

    return quality


def _finds_its_kind(
    features: NDArray[np.float32], held: NDArray[np.int64], kept: NDArray[np.int64], labels: Sequence[str]
) -> Callable[[Head], float]:
    """precision@10 by label of the held-out photographs against the others."""
    number = np.unique(np.asarray(labels), return_inverse=True)[1]
    if number.max(initial=0) == 0:
        raise TrainingError("--labels needs images in at least two class folders")
    asked, known = torch.from_numpy(number[held]), torch.from_numpy(number[kept])

    def quality(head: Head) -> float:
        def precision(scores: Tensor) -> Tensor:
            rows = scores.topk(min(_PRECISION_AT, scores.shape[1]), dim=1).indices
            return (known[rows] == asked[:, None]).double().mean(1)

        return _mean_over_lengths(head, features[kept, 0], features[held, 0], precision)

    return quality


def _mean_over_lengths(
    head: Head, gallery: NDArray[np.float32], queries: NDArray[np.float32], measure: Callable[[Tensor], Tensor]
) -> float:
    found, asked = (torch.from_numpy(head.codes(features)) for features in (gallery, queries))
    values = []
    for length in _LENGTHS:
        scores = F.normalize(asked[:, :length], dim=1) @ F.normalize(found[:, :length], dim=1).T
        values.append(float(measure(scores).mean()))
    return float(np.mean(values))
