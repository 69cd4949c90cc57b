"""Heads on a frozen backbone beside its features and their PCA: the same kind on clothing, the same thing on Holidays.

All are fitted to the training photographs of clothing only, without labels, by the defaults of `eigenlens fit`. Same
kind: precision@10 by class of the test photographs searched among the training ones. Same thing: mean average precision
of each scene's first photograph (`..00`) searched among all others, the query left out. Planted: a hard view of each
test photograph of clothing (another cut, angle and light) has to find that photograph among all of clothing; its
precision is the reciprocal of its rank. Pooled: the queries of the last two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.pca import Features
from eigenlens.benchmarks.common.retrieval import cosines, nearest
from eigenlens.benchmarks.heads.tables import gain_metrics
from eigenlens.index.metrics import average_precision_at_k, precision_at_k

LENGTHS = (8, 16, 32, 64, 128, 256)
PRECISION_AT = 10
KIND, SCENES, PLANTED, POOLED = "clothing", "holidays-half", "clothing-hard-views", "pooled"
# The scenes with what was fitted to them.
OWN = "holidays-half-own"
_RESAMPLES, _TAIL = 10_000, 0.025


@dataclass(frozen=True)
class EvaluationSet:
    """Features, or codes, of the photographs that everything is measured on, with what is known of them.

        codes = evaluation_set.mapped(principal_components(evaluation_set.gallery))
        codes.quality(16)["clothing", "precision@10"]

    Attributes:
        gallery, queries: of clothing, training and test, (n, length), with the class of each.
        hard_views: of the queries' photographs, in their order, (n, length).
        scenes: of Holidays, (n, length), with the scene of each and whether it is its scene's query.
    """

    gallery: Features
    gallery_classes: NDArray[np.str_]
    queries: Features
    query_classes: NDArray[np.str_]
    hard_views: Features
    scenes: Features
    scene_names: NDArray[np.str_]
    scene_queries: NDArray[np.bool_]

    def mapped(self, code: Callable[[Features], Features]) -> EvaluationSet:
        """Return the same photographs with other codes."""
        return replace(
            self,
            gallery=code(self.gallery),
            queries=code(self.queries),
            hard_views=code(self.hard_views),
            scenes=code(self.scenes),
        )

    def quality(self, length: int) -> Mapping[tuple[str, str], float]:
        """Measure prefixes of the given length, by data and metric."""
        same_thing = {(data, "mAP"): float(values.mean()) for data, values in self.precisions(length).items()}
        return {(KIND, f"precision@{PRECISION_AT}"): self._kind_precision(length)} | same_thing

    def precisions(self, length: int) -> dict[str, NDArray[np.float64]]:
        """Return the average precision of each query for the same thing, by data, (queries,) each."""
        scenes = scene_precisions(self.scenes[:, :length], self.scene_names, self.scene_queries)
        photographs = np.concatenate([self.queries, self.gallery])
        planted = reciprocal_ranks(self.hard_views[:, :length], photographs[:, :length])
        return {SCENES: scenes, PLANTED: planted, POOLED: np.concatenate([scenes, planted])}

    def _kind_precision(self, length: int) -> float:
        """Measure precision@10 by class."""
        _, rows = nearest(self.gallery, self.queries, length=length, k=PRECISION_AT)
        return float(precision_at_k(self.gallery_classes[rows] == self.query_classes[:, None]).mean())


def is_query(id: str) -> bool:
    """Tell whether a photograph of Holidays is its scene's query: its number ends in 00."""
    return PurePosixPath(id).stem.endswith("00")


def scene_precisions(codes: Features, scenes: NDArray[np.str_], queries: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the average precision of each marked query among all other photographs, by cosine, (queries,).

    A query whose scene has no other photograph is left out.
    """
    precisions = []
    for row in np.flatnonzero(queries):
        order = np.argsort(-cosines(codes[[row]], codes).numpy()[0], kind="stable")
        relevant = scenes[order[order != row]] == scenes[row]
        if relevant.any():
            precisions.append(float(average_precision_at_k(relevant[None])[0]))
    return np.array(precisions)


def reciprocal_ranks(views: Features, photographs: Features) -> NDArray[np.float64]:
    """Return 1 / rank of each view's own photograph, which has the view's row, among all by cosine, (views,)."""
    scores = cosines(views, photographs)
    own = scores.diagonal()[:, None]
    return (1 / ((scores > own).sum(1) + 1).double()).numpy()


def gain_over(rival: str, gains: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean gain of queries over a rival and the ends of its interval, by the names of `gain_metrics`."""
    return dict(zip(gain_metrics(rival), (float(gains.mean()), *paired_interval(gains)), strict=True))


def paired_interval(gains: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean gain by bootstrap over queries, as (low, high).

    Args:
        gains: of each query, its measure by one method less that by the other, (queries,).

    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
    """
    drawn = np.random.default_rng(0).integers(0, len(gains), (_RESAMPLES, len(gains)))
    low, high = np.quantile(gains[drawn].mean(1), [_TAIL, 1 - _TAIL])
    return float(low), float(high)
