"""Building a gallery: take images in with their codes, encode what has none, publish the next generation."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from index.codes import Codes, writing_codes
from index.generation import Generation, build_generation, choose_lengths
from model.errors import ImageError
from model.images.decode import inspect, load_square
from model.images.sources import Source, SourceImage, batches
from model.runtime.encoder import Encoder
from service.errors import GalleryError
from service.gallery.layout import Gallery
from service.gallery.store import NewImage

BATCH = 256
KEPT_GENERATIONS = 3
Pixels = NDArray[np.uint8]


@dataclass
class Report:
    """What one build did with the images."""

    added: int = 0
    unchanged: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


class Progress:
    """Where a build stands; subclasses show or record it. `advance` may raise to stop the build between two batches."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins: 'take in', 'encode', 'assemble' or 'index'."""

    def advance(self, count: int) -> None:
        """So many more items of the stage are done."""


def add_images(gallery: Gallery, encoder: Encoder, source: Source, progress: Progress) -> Report:
    """Take a source's images in with their codes, batch by batch; each batch is durable when it is counted.

    Images that are there with the same content are skipped, so an interrupted call carries on where it stopped.
    Files of a folder stay where they are; bytes from an archive or a sample are copied into the store.
    """
    report = Report()
    progress.start("take in", len(source))
    with ThreadPoolExecutor() as pool:
        for batch in batches(source, BATCH):
            fresh = []
            for image in batch:
                checksum = sha256(image.data).hexdigest()
                if image.problem is None and gallery.store.holds(image.id, checksum=checksum, path=image.path):
                    report.unchanged += 1
                else:
                    fresh.append((image, checksum))
            loaded = list(pool.map(lambda item: item[0].load(encoder.image_size), fresh))
            accepted: list[tuple[SourceImage, str, Pixels]] = []
            for (image, checksum), pixels in zip(fresh, loaded, strict=True):
                if isinstance(pixels, ImageError):
                    report.failed.append((image.id, str(pixels)))
                else:
                    accepted.append((image, checksum, pixels))
            if accepted:
                codes = encoder.encode(np.stack([pixels for _, _, pixels in accepted]))
                rows = [
                    _new_image(image, checksum, code)
                    for (image, checksum, _), code in zip(accepted, codes, strict=True)
                ]
                gallery.store.put(rows, encoder_id=encoder.id)
                report.added += len(rows)
            progress.advance(len(batch))
    return report


def publish_generation(
    gallery: Gallery, encoder: Encoder, progress: Progress, *, lengths: Sequence[int] | None = None
) -> int:
    """Build the next generation from everything in the store and switch to it; the caller holds the writer's lock.

    Codes come from the current generation or the store; only images without a code of this encoder are encoded.

    Args:
        lengths: prefix lengths; when None those of the current generation, or the usual ones for another encoder.

    Returns: the number of the new generation.

    Raises: CodesError, for a length that codes do not have; GalleryError, if there is no image;
        ImageContentGoneError, if one has to be encoded and its file is gone.
    """
    current = _current_generation(gallery, encoder)
    if lengths is None and current is not None:
        lengths = current.lengths
    chosen = choose_lengths(encoder.code_length, lengths)
    previous = None if current is None else current.codes
    _encode_missing(gallery, encoder, previous, progress)
    number = gallery.next_number()
    codes = _assemble(gallery, encoder, previous, f"{number:06d}", progress)
    progress.start("index", len(chosen))
    build_generation(
        gallery.generation_path(number), codes, lengths=chosen, on_progress=lambda done, total: progress.advance(1)
    )
    gallery.activate(number)
    gallery.store.drop_codes(np.asarray(codes.keys), encoder_id=encoder.id)
    gallery.retire(keep=KEPT_GENERATIONS)
    return number


def _encode_missing(gallery: Gallery, encoder: Encoder, previous: Codes | None, progress: Progress) -> None:
    coded = gallery.store.coded_keys(encoder_id=encoder.id)
    if previous is not None:
        coded = np.union1d(coded, previous.keys)
    missing = np.setdiff1d(gallery.store.keys(), coded)
    progress.start("encode", len(missing))
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(missing), BATCH):
            keys = [int(key) for key in missing[start : start + BATCH]]
            contents = [gallery.store.content(key) for key in keys]
            pixels = []
            for key, loaded in zip(
                keys, pool.map(lambda data: load_square(data, encoder.image_size), contents), strict=True
            ):
                if isinstance(loaded, ImageError):
                    raise GalleryError(f"image {key} was taken in but can no longer be read: {loaded}")
                pixels.append(loaded)
            gallery.store.put_codes(keys, encoder.encode(np.stack(pixels)), encoder_id=encoder.id)
            progress.advance(len(keys))


def _assemble(gallery: Gallery, encoder: Encoder, previous: Codes | None, name: str, progress: Progress) -> Codes:
    """One codes artifact for all images; the previous one itself where nothing changed."""
    keys = gallery.store.keys()
    if len(keys) == 0:
        raise GalleryError(f"the gallery {gallery.root} has no images; give some with --images")
    if previous is not None and np.array_equal(previous.keys, keys):
        return previous
    progress.start("assemble", len(keys))
    path = gallery.codes / name
    with writing_codes(path, count=len(keys), code_length=encoder.code_length, encoder_id=encoder.id) as writer:
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            writer.append(batch, _codes_of(gallery, encoder, previous, batch))
            progress.advance(len(batch))
    return Codes(path, verify=False)


def _codes_of(
    gallery: Gallery, encoder: Encoder, previous: Codes | None, keys: NDArray[np.int64]
) -> NDArray[np.float32]:
    codes = np.empty((len(keys), encoder.code_length), dtype=np.float32)
    held = np.zeros(len(keys), dtype=bool)
    if previous is not None:
        places = np.searchsorted(previous.keys, keys).clip(max=len(previous) - 1)
        held = previous.keys[places] == keys
        codes[held] = previous.codes[places[held]]
    if not held.all():
        codes[~held] = gallery.store.codes_of(keys[~held], encoder_id=encoder.id)
    return codes


def _current_generation(gallery: Gallery, encoder: Encoder) -> Generation | None:
    """The current generation, if its codes are this encoder's."""
    if gallery.current() is None:
        return None
    _, generation = gallery.open_current()
    return generation if generation.encoder_id == encoder.id else None


def _new_image(image: SourceImage, checksum: str, code: NDArray[np.float32]) -> NewImage:
    info = inspect(image.data)
    return NewImage(
        id=image.id,
        media_type=info.media_type,
        width=info.width,
        height=info.height,
        sha256=checksum,
        metadata=dict(image.metadata),
        code=code,
        data=None if image.path is not None else image.data,
        path=image.path,
    )
