"""Encoding of shards: for each a file of codes, written whole or not at all; one that is there is not made again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import ImageError
from eigenlens.model.images.decode import DEFAULT_MAX_PIXELS, ImageInfo
from eigenlens.model.images.sources import Source, SourceImage, batches
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.shards.codes import CodedImage, writing_codes_of_shard

BATCH_SIZE = 32
# Batches that are decoded while one is encoded; and images that a thread decodes before it asks for more.
_BATCHES_AHEAD, _IMAGES_AT_ONCE = 2, 8


@dataclass(frozen=True)
class _Decoded:
    """An image with its pixels for the encoder and what its header says, or why there are none; and its checksum."""

    image: SourceImage
    loaded: tuple[NDArray[np.uint8], ImageInfo] | ImageError
    checksum: str


def encode_shard(
    source: Source,
    encoder: Encoder,
    path: Path,
    pool: Executor,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    advance: Callable[[int], object] = lambda count: None,
) -> int:
    """Write the codes of all images of a shard to a file.

    Args:
        pool: decodes the images.
        advance: called with the number of images that were done since.

    Returns: how many images could not be used; the file says why.

    Raises: SourceError, if the shard cannot be read to its end; then there is no file.
    """
    failed = 0
    with writing_codes_of_shard(path, encoder_id=encoder.id, code_length=encoder.code_length) as writer:
        for batch in _decoded(source, encoder, pool, max_pixels=max_pixels):
            rows = _encode(batch, encoder)
            failed += sum(row.problem is not None for row in rows)
            writer.append(rows)
            advance(len(rows))
    return failed


def _decoded(source: Source, encoder: Encoder, pool: Executor, *, max_pixels: int) -> Iterator[list[_Decoded]]:
    """Yield batches of decoded images, in order; the next are decoded meanwhile."""
    decode = partial(_decode, size=encoder.image_size, max_pixels=max_pixels, preprocessing=encoder.preprocessing)
    ahead: deque[list[Future[list[_Decoded]]]] = deque()
    for batch in batches(source, BATCH_SIZE):
        parts = [batch[start : start + _IMAGES_AT_ONCE] for start in range(0, len(batch), _IMAGES_AT_ONCE)]
        ahead.append([pool.submit(lambda part: list(map(decode, part)), part) for part in parts])
        if len(ahead) > _BATCHES_AHEAD:
            yield [decoded for future in ahead.popleft() for decoded in future.result()]
    while ahead:
        yield [decoded for future in ahead.popleft() for decoded in future.result()]


def _decode(image: SourceImage, *, size: int, max_pixels: int, preprocessing: int) -> _Decoded:
    loaded = image.load_with_info(size, max_pixels=max_pixels, preprocessing=preprocessing)
    return _Decoded(image, loaded, sha256(image.data).hexdigest())


def _encode(batch: list[_Decoded], encoder: Encoder) -> list[CodedImage]:
    pixels = [item.loaded[0] for item in batch if not isinstance(item.loaded, ImageError)]
    codes = iter(encoder.encode(np.stack(pixels)) if pixels else ())
    rows = []
    for item in batch:
        image = item.image
        if isinstance(item.loaded, ImageError):
            rows.append(CodedImage(image.id, problem=str(item.loaded)))
            continue
        info = item.loaded[1]
        rows.append(
            CodedImage(
                image.id,
                info.media_type,
                info.width,
                info.height,
                item.checksum,
                dict(image.metadata),
                image.data,
                next(codes),
            )
        )
    return rows
