"""Heads on a frozen backbone beside its features and their PCA: the same kind on clothing, the same thing on Holidays.

All are fitted to the training photographs of clothing only, without labels, by the defaults of `eigenlens fit`. Same
kind: precision@10 by class of the test photographs searched among the training ones. Same thing: mean average precision
of each scene's first photograph (`..00`) searched among all others, the query left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from eigenlens.index.metrics import average_precision_at_k, precision_at_k

LENGTHS = (8, 16, 32, 64, 128, 256)
PRECISION_AT = 10

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """Features, or codes, of the photographs that everything is measured on, with what is known of them.

    Attributes:
        gallery, queries: of clothing, training and test, (n, length), with the class of each.
        scenes: of Holidays, (n, length), with the scene of each and whether it is its scene's query.
    """

    gallery: Features
    gallery_classes: NDArray[np.str_]
    queries: Features
    query_classes: NDArray[np.str_]
    scenes: Features
    scene_names: NDArray[np.str_]
    asks: NDArray[np.bool_]

    def mapped(self, code: Callable[[Features], Features]) -> Judged:
        """The same photographs with other codes."""
        return Judged(
            code(self.gallery),
            self.gallery_classes,
            code(self.queries),
            self.query_classes,
            code(self.scenes),
            self.scene_names,
            self.asks,
        )

    def quality(self, length: int) -> Mapping[tuple[str, str], float]:
        """By data and metric, with prefixes of the given length."""
        return {
            ("clothing", f"precision@{PRECISION_AT}"): kind_precision(
                self.gallery[:, :length],
                self.queries[:, :length],
                self.gallery_classes,
                self.query_classes,
            ),
            ("holidays-half", "mAP"): scene_map(self.scenes[:, :length], self.scene_names, self.asks),
        }


def is_query(id: str) -> bool:
    """Whether a photograph of Holidays is its scene's query: its number ends in 00."""
    return PurePosixPath(id).stem.endswith("00")


def kind_precision(
    gallery: Features, queries: Features, gallery_classes: NDArray[np.str_], query_classes: NDArray[np.str_]
) -> float:
    """precision@10 by class, by cosine."""
    rows = _cosines(queries, gallery).topk(PRECISION_AT, dim=1).indices.numpy()
    return float(precision_at_k(gallery_classes[rows] == query_classes[:, None]).mean())


def scene_map(codes: Features, scenes: NDArray[np.str_], asks: NDArray[np.bool_]) -> float:
    """Mean average precision of the queries that `asks` marks among all other photographs, by cosine."""
    found = []
    for row in np.flatnonzero(asks):
        order = np.argsort(-_cosines(codes[[row]], codes).numpy()[0], kind="stable")
        relevant = scenes[order[order != row]] == scenes[row]
        if relevant.any():
            found.append(float(average_precision_at_k(relevant[None])[0]))
    return float(np.mean(found))


def principal_components(features: Features) -> Callable[[Features], Features]:
    """Centring and rotation to the principal components of `features`, the largest first."""
    mean = features.mean(0)
    centred = (features - mean).astype(np.float64)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1].astype(np.float32)
    return lambda asked: (asked - mean) @ axes


def _cosines(queries: Features, gallery: Features) -> torch.Tensor:
    return F.normalize(torch.from_numpy(queries), dim=1) @ F.normalize(torch.from_numpy(gallery), dim=1).T
