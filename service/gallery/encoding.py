"""Encoding of stored images; their codes are stored batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from eigenlens.model.errors import ImageError
from eigenlens.model.images.decode import load_square
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.runtime.open import AnyEncoder
from eigenlens.service.errors import ImageContentGoneError, ImageNotFoundError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress

BATCH_SIZE = 32
# An image of the gallery was within the limit when it was added.
UNLIMITED_PIXELS = 2**40


def encode_images(gallery: Gallery, encoder: AnyEncoder, keys: Sequence[int], progress: Progress) -> dict[int, str]:
    """Encode stored images and store their codes; each batch is durable when it is counted.

    Args:
        keys: keys of images without a code of this encoder.

    Returns: the reason for each image that could not be encoded, by its key; images that were removed meanwhile are
        skipped.
    """
    if not isinstance(encoder, Encoder):  # nodes are stored smoothed, which their features cannot be told from
        return {key: f"node {key} has no code of this encoder: build with --graph" for key in keys}
    failures: dict[int, str] = {}
    load = partial(
        load_square, size=encoder.image_size, max_pixels=UNLIMITED_PIXELS, preprocessing=encoder.preprocessing
    )
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(keys), BATCH_SIZE):
            batch = [int(key) for key in keys[start : start + BATCH_SIZE]]
            contents = {}
            for key in batch:
                try:
                    contents[key] = gallery.store.content(key)
                except ImageNotFoundError:
                    continue
                except ImageContentGoneError as error:
                    failures[key] = str(error)
            decoded = pool.map(load, contents.values())
            pixels = {}
            for key, square in zip(contents, decoded, strict=True):
                if isinstance(square, ImageError):
                    failures[key] = f"image {key} was added but can no longer be read: {square}"
                else:
                    pixels[key] = square
            if pixels:
                codes = encoder.encode(np.stack(list(pixels.values())))
                gallery.store.put_codes(list(pixels), codes, encoder_id=encoder.id)
            progress.advance(len(batch))
    return failures
