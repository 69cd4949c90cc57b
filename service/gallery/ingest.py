"""Taking images in: decoded, encoded and kept with their codes, each batch durable when it is counted."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import ImageError
from eigenlens.model.images.decode import DEFAULT_MAX_PIXELS, inspect
from eigenlens.model.images.sources import SourceImage
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.gallery.store import NewImage, Store


@dataclass(frozen=True)
class Outcome:
    """What became of one image; `reason` says why it failed."""

    id: str
    status: Literal["added", "replaced", "unchanged", "failed"]
    reason: str | None = None


def take_in(
    store: Store,
    encoder: Encoder,
    images: Sequence[SourceImage],
    pool: Executor,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    keep_metadata: bool = False,
) -> list[Outcome]:
    """Keep images with their codes in one transaction; one that cannot be used fails alone.

    Images that are there with the same content and metadata are left as they are. Files stay where they are; bytes
    without a file are copied into the store. Of several images with one id the last one counts.

    Args:
        keep_metadata: of images that are there with the same content: what was edited since is not undone.
    """
    outcomes: dict[int, Outcome] = {}
    fresh: list[tuple[int, SourceImage, str]] = []
    for place, image in enumerate(images):
        checksum = sha256(image.data).hexdigest()
        if image.problem is None and store.holds(
            image.id, checksum=checksum, path=image.path, metadata=None if keep_metadata else dict(image.metadata)
        ):
            outcomes[place] = Outcome(image.id, "unchanged")
        else:
            fresh.append((place, image, checksum))
    loaded = list(pool.map(lambda item: item[1].load(encoder.image_size, max_pixels=max_pixels), fresh))
    accepted: list[tuple[int, SourceImage, str, NDArray[np.uint8]]] = []
    for (place, image, checksum), pixels in zip(fresh, loaded, strict=True):
        if isinstance(pixels, ImageError):
            outcomes[place] = Outcome(image.id, "failed", str(pixels))
        else:
            accepted.append((place, image, checksum, pixels))
    if accepted:
        codes = encoder.encode(np.stack([pixels for *_, pixels in accepted]))
        rows = [
            _new_image(image, checksum, code) for (_, image, checksum, _), code in zip(accepted, codes, strict=True)
        ]
        replaced = store.put(rows, encoder_id=encoder.id)
        for (place, image, *_), there in zip(accepted, replaced, strict=True):
            outcomes[place] = Outcome(image.id, "replaced" if there else "added")
    return [outcomes[place] for place in range(len(images))]


def _new_image(image: SourceImage, checksum: str, code: NDArray[np.float32]) -> NewImage:
    info = inspect(image.data)
    metadata: dict[str, Any] = dict(image.metadata)
    return NewImage(
        id=image.id,
        media_type=info.media_type,
        width=info.width,
        height=info.height,
        sha256=checksum,
        metadata=metadata,
        code=code,
        data=None if image.path is not None else image.data,
        path=image.path,
    )
