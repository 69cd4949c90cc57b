"""Quality of codes by prefix length: agreement of neighbours with labels that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from eigenlens.index.codes.prefix import Floats
from eigenlens.index.metrics import average_precision_at_k, precision_at_k
from eigenlens.model.training.devices import choose_device

Labels = NDArray[np.int64]
_BLOCK = 500


@dataclass(frozen=True)
class LabelledCodes:
    """Codes of a gallery and of queries, (n, code_length), with the label of each, (n,)."""

    gallery: Floats
    gallery_labels: Labels
    queries: Floats
    query_labels: Labels


@dataclass(frozen=True)
class Cutoffs:
    """How many neighbours of a query each measure looks at: k of precision@k, of mAP@k, and of the vote."""

    precision: int
    mean_average_precision: int
    votes: int = 20


def cosines(queries: Floats, gallery: Floats) -> Tensor:
    """Return the cosine of every query (q, d) with every code of a gallery (n, d): (q, n), in single precision."""
    left, right = (_unit(codes) for codes in (queries, gallery))
    return left @ right.T


def nearest(gallery: Floats, queries: Floats, *, length: int, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the k nearest by the cosine of prefixes, exactly: scores and rows, (q, min(k, n)).

    A plain matrix product: for thousands of queries and a long list of results it beats an index built for few of each.
    """
    device = choose_device("auto")
    codes, targets = _unit(gallery[:, :length]).to(device), _unit(queries[:, :length]).to(device)
    blocks = [(block @ codes.T).topk(min(k, len(codes)), dim=1) for block in targets.split(_BLOCK)]
    return torch.cat([b.values for b in blocks]).cpu().numpy(), torch.cat([b.indices for b in blocks]).cpu().numpy()


def _unit(codes: Floats) -> Tensor:
    return F.normalize(torch.from_numpy(np.asarray(codes, dtype=np.float32)), dim=1)


def retrieval_quality(codes: LabelledCodes, *, lengths: Sequence[int], at: Cutoffs) -> dict[int, dict[str, float]]:
    """Measure precision@k, mAP@k and the accuracy of a vote of the nearest, at each prefix length; search is exact."""
    result = {}
    depth = max(at.precision, at.mean_average_precision)
    for length in lengths:
        scores, rows = nearest(codes.gallery, codes.queries, length=length, k=depth)
        relevant = codes.gallery_labels[rows] == codes.query_labels[:, None]
        votes = scores[:, : at.votes], rows[:, : at.votes]
        result[length] = {
            f"precision@{at.precision}": float(precision_at_k(relevant[:, : at.precision]).mean()),
            f"mAP@{at.mean_average_precision}": float(
                average_precision_at_k(relevant[:, : at.mean_average_precision]).mean()
            ),
            f"kNN accuracy@{at.votes}": vote_accuracy(*votes, codes.gallery_labels, codes.query_labels),
        }
    return result


def vote_accuracy(scores: Floats, rows: Labels, gallery_labels: Labels, query_labels: Labels) -> float:
    """Return the share of queries whose nearest, (q, k), vote by score for the right label."""
    votes = np.zeros((len(query_labels), int(gallery_labels.max()) + 1))
    np.add.at(votes, (np.arange(len(rows))[:, None], gallery_labels[rows]), scores)
    return float((votes.argmax(1) == query_labels).mean())


def probe_accuracy(codes: LabelledCodes, *, length: int) -> float:
    """Return the share of queries that a linear map of the prefix names rightly; it is fitted by least squares.

    It is fitted to the gallery's labels. Coordinates are standardised over the gallery; a ridge of a thousandth of
    their variance holds the fit.
    """
    gallery, queries = (np.asarray(part[:, :length], dtype=np.float64) for part in (codes.gallery, codes.queries))
    mean, deviation = gallery.mean(0), gallery.std(0).clip(min=1e-12)
    x = np.c_[(gallery - mean) / deviation, np.ones(len(gallery))]
    targets = np.eye(int(codes.gallery_labels.max()) + 1)[codes.gallery_labels]
    weights = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1]), x.T @ targets)
    predicted = np.c_[(queries - mean) / deviation, np.ones(len(queries))] @ weights
    return float((predicted.argmax(1) == codes.query_labels).mean())
