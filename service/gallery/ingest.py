"""Ingest: decode images, encode them, and store them with their codes; each batch is durable when it is counted."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eigenlens.image_files import HEAD_BYTES, IMAGE_FORMATS, OTHER, has_image_name, kind_of
from eigenlens.model.errors import ImageError
from eigenlens.model.images.decode import DEFAULT_MAX_PIXELS, ImageInfo
from eigenlens.model.images.sources import Source, SourceImage, batches
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.api.report import NotedAnswer, RefusedAnswer, Report
from eigenlens.service.gallery.dates import with_date
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.store.protocol import Store
from eigenlens.service.gallery.store.records import NewImage

# Small, so that progress moves and an interruption loses little.
INGEST_BATCH_SIZE = 32


@dataclass(frozen=True)
class Outcome:
    """The outcome for one image; `reason` says why it failed, `note` what should be known of one that was taken."""

    id: str
    status: Literal["added", "replaced", "unchanged", "failed"]
    reason: str | None = None
    note: str | None = None
    kind: str | None = None


def add_images(
    gallery: Gallery, encoder: Encoder, source: Source, progress: Progress, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Report:
    """Ingest all images of a source, batch by batch.

    Images that are in the store with the same content are skipped, so you can repeat an interrupted call. Files of a
    folder stay where they are; bytes from an archive or a sample are copied into the store.
    """
    report = Report()
    report.skip(source.skipped)
    progress.start("take in", len(source))
    with ThreadPoolExecutor() as pool:
        for batch in batches(source, INGEST_BATCH_SIZE):
            count(report, ingest(gallery.store, encoder, batch, pool, max_pixels=max_pixels, keep_metadata=True))
            progress.advance(len(batch))
    return report


def count(report: Report, outcomes: Sequence[Outcome]) -> None:
    """Count outcomes in a report."""
    for outcome in outcomes:
        if outcome.status == "failed":
            report.failed.append(RefusedAnswer(id=outcome.id, reason=outcome.reason or ""))
        else:
            setattr(report, outcome.status, getattr(report, outcome.status) + 1)
        if outcome.note is not None:
            report.notes.append(NotedAnswer(id=outcome.id, note=outcome.note))


def ingest(
    store: Store,
    encoder: Encoder,
    images: Sequence[SourceImage],
    pool: Executor,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    keep_metadata: bool = False,
) -> list[Outcome]:
    """Store images with their codes in one transaction; an image that cannot be used does not stop the others.

    Images that are in the store with the same content and metadata are left as they are. Files stay where they are;
    bytes without a file are copied into the store. Of several images with one id the last one counts.

    Args:
        pool: decodes the images.
        keep_metadata: keep the stored metadata of an image with the same content, so that edits are not undone.

    Returns: one outcome for each image, in their order.
    """
    outcomes: dict[int, Outcome] = {}
    changed: list[tuple[int, SourceImage, str]] = []
    for position, image in enumerate(images):
        checksum = sha256(image.data).hexdigest()
        if image.problem is None and store.holds(
            image.id, checksum=checksum, path=image.path, metadata=None if keep_metadata else _metadata_of(image)
        ):
            outcomes[position] = Outcome(image.id, "unchanged")
        else:
            changed.append((position, image, checksum))
    load = partial(
        SourceImage.load_with_info, size=encoder.image_size, max_pixels=max_pixels, preprocessing=encoder.preprocessing
    )
    decoded = list(pool.map(lambda item: load(item[1]), changed))
    accepted: list[tuple[int, SourceImage, str, ImageInfo]] = []
    squares: list[NDArray[np.uint8]] = []
    for (position, image, checksum), loaded in zip(changed, decoded, strict=True):
        if isinstance(loaded, ImageError):
            outcomes[position] = Outcome(image.id, "failed", str(loaded), kind=_other_kind(image))
        else:
            accepted.append((position, image, checksum, loaded[1]))
            squares.append(loaded[0])
    if accepted:
        codes = encoder.encode(np.stack(squares))
        rows = [
            _new_image(image, info, checksum, code)
            for (_, image, checksum, info), code in zip(accepted, codes, strict=True)
        ]
        replaced = store.put(rows, encoder_id=encoder.id)
        for (position, image, _, info), was_replaced in zip(accepted, replaced, strict=True):
            outcomes[position] = Outcome(image.id, "replaced" if was_replaced else "added", note=info.note)
    return [outcomes[position] for position in range(len(images))]


def _other_kind(image: SourceImage) -> str | None:
    """Return what a file is that a folder's listing would have left out; None for one that is or should be an image."""
    kind = kind_of(image.data[:HEAD_BYTES], image.id)
    named = kind == OTHER and has_image_name(image.id)
    return None if image.problem is not None or named or kind in IMAGE_FORMATS else kind


def _metadata_of(image: SourceImage) -> dict[str, Any]:
    """Return the metadata that an image is stored with: those that came with it, and when it was taken."""
    return with_date(image.metadata, image.data)


def _new_image(image: SourceImage, info: ImageInfo, checksum: str, code: NDArray[np.float32]) -> NewImage:
    return NewImage(
        id=image.id,
        media_type=info.media_type,
        width=info.width,
        height=info.height,
        sha256=checksum,
        metadata=_metadata_of(image),
        code=code,
        data=None if image.path is not None else image.data,
        path=image.path,
    )
