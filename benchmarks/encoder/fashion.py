"""Fashion-MNIST as a retrieval task, and PCA of its pixels to compare an encoder with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.labelled import LabelledImages
from eigenlens.benchmarks.common.pca import Features, principal_components
from eigenlens.model.images.fashion_mnist import FashionMnist


def load_fashion_mnist(*, queries: str) -> tuple[LabelledImages, LabelledImages]:
    """Load a gallery and queries: the 10,000 `test` images of the 60,000 for training, or 10,000 `validation` ones
    of the other 50,000.
    """
    gallery, searched = (FashionMnist(split) for split in ("train" if queries == "test" else "fit", queries))
    return _in_colour(gallery), _in_colour(searched)


def _in_colour(sample: FashionMnist) -> LabelledImages:
    return LabelledImages(np.repeat(sample.pixels[..., None], 3, axis=-1), sample.labels.astype(np.int64))


def pca_of_pixels(gallery: NDArray[np.uint8], queries: NDArray[np.uint8]) -> tuple[Features, Features]:
    """Return the principal components of grey pixels (n, side, side, 3) at full length, fitted to the gallery."""
    gallery_vectors, query_vectors = _grey_vectors(gallery), _grey_vectors(queries)
    components = principal_components(gallery_vectors)
    return components(gallery_vectors), components(query_vectors)


def _grey_vectors(pixels: NDArray[np.uint8]) -> Features:
    return pixels[..., 0].reshape(len(pixels), -1).astype(np.float32) / np.float32(255)
