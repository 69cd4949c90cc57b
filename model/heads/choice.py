"""The choice of a head's settings: fixed values, and for the others those that find held-out photographs best."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from eigenlens.model.errors import TrainingError
from eigenlens.model.heads.fit import Head, HeadSettings, PairProblem, neighbour_graph
from eigenlens.model.heads.hidden import Hidden
from eigenlens.model.heads.positives import Positives
from eigenlens.model.pairs.neighbours import IMAGES_PER_NEIGHBOUR

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
TIMES = (0.0, 0.5, 1.0, 2.0)
NEIGHBOURS = (5, 10, 20, 50)
# Only labels can measure the quality of neighbours. These values searched clothing's training photographs best, each
# fifth of them by a head that was fitted to the others.
OF_KIND = HeadSettings("neighbours", neighbours=50, ridge=1.0, diffusion_time=1.5)
# Prefix lengths whose quality is averaged when settings are compared.
_LENGTHS = (16, 32, 64, 128, 256)
_PRECISION_AT = 10
_MAX_QUERIES = 2000
# One photograph in five is held out.
_HELD_OUT = 5
_NONE = Hidden()

Quality = Callable[[Head], float]


def resolve_settings(
    features: NDArray[np.float32],
    positives: Positives,
    *,
    labels: Sequence[str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    hidden: Callable[[HeadSettings], Hidden] = lambda _: Hidden(),
) -> HeadSettings:
    """Resolve the settings of a head: fixed values, and for the others the best on held-out photographs.

    The choice is printed on standard error.

    Args:
        features: (n, 1 + views, length), after `power_normalise`.
        labels: label of each image, to choose by; if None, a search with a view has to find its photograph.
        fixed: fixed values of HeadSettings, by name.
        hidden: trains a head's layers without the held-out photographs; called only if there is a choice.

    Raises: TrainingError, as choose_settings.
    """
    fixed = fixed or {}
    base = HeadSettings(positives)
    if positives == "neighbours":
        max_neighbours = max(1, len(features) // IMAGES_PER_NEIGHBOUR)
        base = replace(OF_KIND, neighbours=min(OF_KIND.neighbours, max_neighbours))
    base = replace(base, **fixed)
    if {"ridge", "diffusion_time"} <= fixed.keys() or (positives == "neighbours" and labels is None):
        return base
    chosen, quality = choose_settings(features, base, fixed=fixed.keys(), labels=labels, hidden=hidden(base))
    print(
        f"chosen: ridge {chosen.ridge:g}, diffusion time {chosen.diffusion_time:g}, "
        f"{'' if positives == 'views' else f'{chosen.neighbours} neighbours, '}quality {quality:.3f}",
        file=sys.stderr,
    )
    return chosen


def choose_settings(
    features: NDArray[np.float32],
    base: HeadSettings,
    *,
    fixed: Collection[str] = (),
    labels: Sequence[str] | None = None,
    hidden: Hidden = _NONE,
    seed: int = 0,
) -> tuple[HeadSettings, float]:
    """Choose the ridge, diffusion time and, with labels, number of neighbours that are best for held-out photographs.

    Every fifth photograph is held out from the fit. Without labels, the quality is the mean reciprocal rank of a
    photograph among all, when one of its views is the query. With labels, it is the precision@10 by label when the
    held-out photographs search the others. Either is averaged over prefix lengths.

    Args:
        base: the positives, and the values of the settings in `fixed`.
        hidden: layers of the head, trained without the photographs that `held_out` returns.

    Returns: the best settings and their quality.

    Raises: TrainingError, if there are too few photographs, or no views where these are needed.
    """
    n = len(features)
    queries = held_out(n, seed=seed)
    gallery = np.setdiff1d(np.arange(n), queries)
    if labels is None:
        quality = _reciprocal_rank_of_views(features, queries)
    else:
        quality = _precision_by_label(features, queries, gallery, labels)
    fitted = features[gallery]
    functions = hidden.functions(fitted)
    counts = [base.neighbours]
    ridges = (base.ridge,) if "ridge" in fixed else RIDGES
    times = (base.diffusion_time,) if "diffusion_time" in fixed else sorted({*TIMES, base.diffusion_time})
    if labels is not None and base.positives != "views" and "neighbours" not in fixed:
        counts = [count for count in NEIGHBOURS if count < len(gallery)] or counts
    best: tuple[HeadSettings, float] | None = None
    with tqdm(total=len(counts) * len(ridges), desc="choose settings", unit="fit") as bar:
        for count in counts:
            graph = neighbour_graph(fitted, replace(base, neighbours=count))
            problem = PairProblem(functions, base.positives, graph)
            for ridge in ridges:
                spectrum = problem.solve(ridge=ridge)
                for time in times:
                    score = quality(Head(*spectrum.code_weights(time), spectrum.eigenvalues, hidden))
                    if best is None or score > best[1]:
                        best = HeadSettings(base.positives, count, ridge, time), score
                bar.update()
    assert best is not None
    return best


def held_out(n: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Return the rows of the photographs among n that settings are chosen by, one in five.

    Raises: TrainingError, if n is too small.
    """
    if n < 2 * _HELD_OUT:
        raise TrainingError(f"choosing settings needs at least {2 * _HELD_OUT} usable photographs, not {n}")
    return np.random.default_rng(seed).permutation(n)[: min(n // _HELD_OUT, _MAX_QUERIES)]


def _reciprocal_rank_of_views(features: NDArray[np.float32], queries: NDArray[np.int64]) -> Quality:
    """Measure the mean reciprocal rank of each held-out photograph among all, searched by its last view."""
    if features.shape[1] < 2:
        raise TrainingError("choosing settings without labels needs views: give --views 1 or more, or --labels")
    views, rows = features[queries, -1], torch.from_numpy(queries)

    def quality(head: Head) -> float:
        def reciprocal_rank(scores: Tensor) -> Tensor:
            own_score = scores[torch.arange(len(rows)), rows]
            return 1 / (scores > own_score[:, None]).sum(1).add(1).double()

        return _mean_over_lengths(head, features[:, 0], views, reciprocal_rank)

    return quality


def _precision_by_label(
    features: NDArray[np.float32], queries: NDArray[np.int64], gallery: NDArray[np.int64], labels: Sequence[str]
) -> Quality:
    """Measure precision@10 by label of the held-out photographs against the others."""
    classes = np.unique(np.asarray(labels), return_inverse=True)[1]
    if classes.max(initial=0) == 0:
        raise TrainingError("--labels needs images in at least two class folders")
    query_classes, gallery_classes = torch.from_numpy(classes[queries]), torch.from_numpy(classes[gallery])

    def quality(head: Head) -> float:
        def precision(scores: Tensor) -> Tensor:
            rows = scores.topk(min(_PRECISION_AT, scores.shape[1]), dim=1).indices
            return (gallery_classes[rows] == query_classes[:, None]).double().mean(1)

        return _mean_over_lengths(head, features[gallery, 0], features[queries, 0], precision)

    return quality


def _mean_over_lengths(
    head: Head, gallery: NDArray[np.float32], queries: NDArray[np.float32], measure: Callable[[Tensor], Tensor]
) -> float:
    """Average a measure of the scores (queries, gallery) over queries and prefix lengths."""
    gallery_codes, query_codes = (torch.from_numpy(head.codes(features)) for features in (gallery, queries))
    values = []
    for length in _LENGTHS:
        scores = F.normalize(query_codes[:, :length], dim=1) @ F.normalize(gallery_codes[:, :length], dim=1).T
        values.append(float(measure(scores).mean()))
    return float(np.mean(values))
