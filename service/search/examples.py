"""Search by examples: more like these, less like those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One example, by exactly one of image, id and code.

    Attributes:
        image: bytes of an image file.
        id: id of an image in the gallery.
        code: a full code.
    """

    image: bytes | None = None
    id: str | None = None
    code: Sequence[float] | None = None


@dataclass(frozen=True)
class Examples:
    """What results are to be like, one example at least, and what they are to be unlike."""

    positive: tuple[Example, ...]
    negative: tuple[Example, ...] = ()


def combine(positive: Codes, negative: Codes) -> Codes:
    """Return the code to search with, (code_length,): p for positive examples alone, else p + (p - n).

    p and n are the means of the examples' unit codes: the search starts at what it is to be like, and moves away from
    what it is to be unlike by as much as these differ.

    Args:
        positive: (at least 1, code_length).
        negative: (any number, code_length).
    """
    like: Codes = _unit(positive).mean(0)
    return like if len(negative) == 0 else np.asarray(like + (like - _unit(negative).mean(0)))


def _unit(codes: Codes) -> Codes:
    norms = np.linalg.norm(codes, axis=1, keepdims=True)
    return np.asarray(codes / np.where(norms > 0, norms, 1), dtype=np.float32)
