"""Quality of codes by prefix length: agreement of neighbours with labels that training never saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import Floats
from eigenlens.index.metrics import average_precision_at_k, precision_at_k

Labels = NDArray[np.int64]
_BLOCK = 500


def nearest(gallery: Floats, queries: Floats, *, length: int, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best by the cosine of prefixes, exactly: scores and rows, (q, min(k, n)).

    A plain matrix product: for thousands of queries and a long list of results it beats an index built for few of each.
    """
    found, asked = (
        torch.nn.functional.normalize(torch.from_numpy(np.asarray(c[:, :length], dtype=np.float32)), dim=1)
        for c in (gallery, queries)
    )
    blocks = [(block @ found.T).topk(min(k, len(found)), dim=1) for block in asked.split(_BLOCK)]
    return torch.cat([b.values for b in blocks]).numpy(), torch.cat([b.indices for b in blocks]).numpy()


def retrieval_quality(
    gallery: Floats,
    queries: Floats,
    gallery_labels: Labels,
    query_labels: Labels,
    *,
    lengths: Sequence[int],
    precision_at: int,
    map_at: int,
    votes: int = 20,
) -> dict[int, dict[str, float]]:
    """precision@k, mAP@k and the accuracy of a vote of the nearest, at each prefix length; search is exact."""
    result = {}
    for length in lengths:
        scores, rows = nearest(gallery, queries, length=length, k=max(precision_at, map_at))
        relevant = gallery_labels[rows] == query_labels[:, None]
        result[length] = {
            f"precision@{precision_at}": float(precision_at_k(relevant[:, :precision_at]).mean()),
            f"mAP@{map_at}": float(average_precision_at_k(relevant[:, :map_at]).mean()),
            f"kNN accuracy@{votes}": vote_accuracy(scores[:, :votes], rows[:, :votes], gallery_labels, query_labels),
        }
    return result


def vote_accuracy(scores: Floats, rows: Labels, gallery_labels: Labels, query_labels: Labels) -> float:
    """Share of queries whose nearest, (q, k), vote by score for the right label."""
    votes = np.zeros((len(query_labels), int(gallery_labels.max()) + 1))
    np.add.at(votes, (np.arange(len(rows))[:, None], gallery_labels[rows]), scores)
    return float((votes.argmax(1) == query_labels).mean())


def probe_accuracy(
    gallery: Floats, queries: Floats, gallery_labels: Labels, query_labels: Labels, *, length: int
) -> float:
    """Share of queries that a linear map of the prefix, fitted to the gallery's labels by least squares, names rightly.

    Coordinates are standardised over the gallery; a ridge of a thousandth of their variance holds the fit.
    """
    found, asked = (np.asarray(codes[:, :length], dtype=np.float64) for codes in (gallery, queries))
    mean, deviation = found.mean(0), found.std(0).clip(min=1e-12)
    x = np.c_[(found - mean) / deviation, np.ones(len(found))]
    targets = np.eye(int(gallery_labels.max()) + 1)[gallery_labels]
    weights = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1]), x.T @ targets)
    predicted = np.c_[(asked - mean) / deviation, np.ones(len(asked))] @ weights
    return float((predicted.argmax(1) == query_labels).mean())
