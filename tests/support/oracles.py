"""Slow, obvious float64 references for search and its metrics; they share no code with what they check."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit_prefix(codes: NDArray[Any], length: int) -> Array:
    """The first `length` coordinates of each row over their own norm; a row of zeros stays zero."""
    unit = []
    for prefix in codes[:, :length].astype(np.float64).tolist():  # lists: loops over arrays take five times as long
        norm = math.sqrt(sum(value * value for value in prefix))
        unit.append([value / norm if norm > 0 else 0.0 for value in prefix])
    return np.array(unit, dtype=np.float64).reshape(len(codes), length)


def cosine(queries: NDArray[Any], codes: NDArray[Any], *, length: int) -> Array:
    """Cosine of the first `length` coordinates of each query and each code, (q, n)."""
    unit_queries, unit_codes = unit_prefix(queries, length), unit_prefix(codes, length)
    listed = unit_codes.tolist()
    scores = [[sum(map(operator.mul, query, code)) for code in listed] for query in unit_queries.tolist()]
    return np.array(scores, dtype=np.float64).reshape(len(queries), len(codes))


def scatter_distance(queries: NDArray[Any], codes: NDArray[Any]) -> Array:
    """Squared distance of each unit query from the mean of the unit codes, by the inverse of their scatter: (q,)."""
    units = unit_prefix(codes, codes.shape[1])
    mean = units.mean(0)
    inverse = np.linalg.inv((units - mean).T @ (units - mean))
    away = unit_prefix(queries, queries.shape[1]) - mean
    return np.array([each @ inverse @ each for each in away])


def top_k(scores: Array, k: int) -> list[list[int]]:
    """Rows of the k largest scores of each query, best first."""
    return [sorted(range(len(row)), key=row.__getitem__, reverse=True)[:k] for row in scores.tolist()]


def best_scores(scores: Array, k: int) -> Array:
    """The k largest scores of each query, best first."""
    return np.array([sorted(row, reverse=True)[:k] for row in scores.tolist()], dtype=np.float64)


def recall_at_k(found: Sequence[int], exact: Sequence[int]) -> float:
    """Share of the exact top k that was found; -1 is an empty place; 0 where nothing was to be found."""
    wanted = [id for id in exact if id != -1]
    hits = sum(1 for id in wanted if id in list(found))
    return hits / len(wanted) if wanted else 0.0


def precision_at_k(relevant: Sequence[bool]) -> float:
    """Share of the results that are relevant."""
    return sum(1 for is_relevant in relevant if is_relevant) / len(relevant)


def average_precision_at_k(relevant: Sequence[bool]) -> float:
    """Mean of precision@i over the places i of the relevant results; 0 where there is none."""
    precisions = [precision_at_k(relevant[: i + 1]) for i, is_relevant in enumerate(relevant) if is_relevant]
    return sum(precisions) / len(precisions) if precisions else 0.0
