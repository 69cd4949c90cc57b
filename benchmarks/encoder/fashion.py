"""Quality of an encoder artifact on Fashion-MNIST, by prefix length, beside PCA of the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eigenlens.model.images.fashion_mnist import FashionMnist
from eigenlens.model.runtime.encoder import Encoder

_BATCH = 500


@dataclass(frozen=True)
class LabelledImages:
    """Gallery and queries with labels.

    Attributes:
        gallery, queries: uint8 pixels, (n, side, side, 3).
        gallery_labels, query_labels: (n,).
    """

    gallery: NDArray[np.uint8]
    gallery_labels: NDArray[np.int64]
    queries: NDArray[np.uint8]
    query_labels: NDArray[np.int64]


def load_fashion_mnist(*, queries: str) -> LabelledImages:
    """The 10,000 test images as queries of the 60,000 for training, or 10,000 `validation` ones of the other 50,000."""
    found, searched = (FashionMnist(split) for split in ("train" if queries == "test" else "fit", queries))
    return LabelledImages(*_colour(found), *_colour(searched))


def _colour(sample: FashionMnist) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.repeat(sample.pixels[..., None], 3, axis=-1), sample.labels.astype(np.int64)


def encode_all(encoder: Encoder, pixels: NDArray[np.uint8], *, name: str) -> NDArray[np.float32]:
    """Codes of all images through the encoder that is served, (n, code_length), with a progress bar."""
    starts = range(0, len(pixels), _BATCH)
    return np.concatenate(
        [encoder.encode(pixels[i : i + _BATCH]) for i in tqdm(starts, desc=f"encode {name}", unit="batch")]
    )


def pca_of_pixels(data: LabelledImages) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Principal components of the raw pixels, fitted on the gallery: codes of gallery and queries, full length."""
    gallery = data.gallery[..., 0].reshape(len(data.gallery), -1).astype(np.float32) / 255
    queries = data.queries[..., 0].reshape(len(data.queries), -1).astype(np.float32) / 255
    mean = gallery.mean(0)
    centred = (gallery - mean).astype(np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1].astype(np.float32)
    return (gallery - mean) @ axes, (queries - mean) @ axes
