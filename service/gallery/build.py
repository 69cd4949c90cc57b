"""Building a gallery: take images in with their codes, encode what has none, publish the next generation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.building.row_order import order_rows
from eigenlens.index.codes.artifact import Codes, writing_codes
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.index.faiss_engine.kinds import choose_indexes
from eigenlens.index.plans.plan import choose_lengths
from eigenlens.model.errors import ImageError
from eigenlens.model.images.decode import load_square
from eigenlens.model.images.sources import Source, batches
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.errors import GalleryError, ImageContentGoneError, ImageNotFoundError
from eigenlens.service.gallery.disk_space import require_room
from eigenlens.service.gallery.ingest import take_in
from eigenlens.service.gallery.layout import Gallery

log = logging.getLogger(__name__)

BATCH = 256
_ASSEMBLED = 4096
KEPT_GENERATIONS = 3


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

    def tell(self, text: str) -> None:
        """Something to know before the next stage."""


def add_images(gallery: Gallery, encoder: Encoder, source: Source, progress: Progress) -> Report:
    """Take a source's images in with their codes, batch by batch; each batch is durable when it is counted.

    Images that are there with the same content are skipped, so an interrupted call carries on where it stopped.
    Files of a folder stay where they are; bytes from an archive or a sample are copied into the store.
    """
    report = Report()
    progress.start("take in", len(source))
    with ThreadPoolExecutor() as pool:
        for batch in batches(source, BATCH):
            for outcome in take_in(gallery.store, encoder, batch, pool, keep_metadata=True):
                if outcome.status == "failed":
                    report.failed.append((outcome.id, outcome.reason or ""))
                elif outcome.status == "unchanged":
                    report.unchanged += 1
                else:
                    report.added += 1
            progress.advance(len(batch))
    return report


def publish_generation(
    gallery: Gallery,
    encoder: Encoder,
    progress: Progress,
    *,
    lengths: Sequence[int] | None = None,
    kinds: Mapping[int, str] | None = None,
    gpu: Gpu | None = None,
    switch: Callable[[int], None] | None = None,
) -> int:
    """Build the next generation from everything in the store and switch to it; the caller holds the writer's lock.

    Codes come from the current generation or the store; only images without a code of this encoder are encoded. Images
    may be added, replaced and removed meanwhile: what came after the moment that the generation holds stays pending.

    Args:
        lengths: prefix lengths; when None those of the current generation, or the usual ones for another encoder.
        kinds: index kind of some of the lengths; what suits the gallery for the others.
        gpu: for the indexes, and for the searches that calibration measures; the CPU when None.
        switch: called with the number of the new generation, to activate it; the gallery's own `activate` when None.

    Returns: the number of the new generation.

    Raises: CodesError, for a length that codes do not have; IndexKindError; GalleryError, if there is no image, or one
        that has to be encoded cannot be; NoRoomError.
    """
    current = _current_generation(gallery, encoder)
    if lengths is None and current is not None:
        lengths = current.lengths
    chosen = choose_lengths(encoder.code_length, lengths)
    count = gallery.store.count()
    specs = choose_indexes(count, lengths=chosen, kinds=kinds, gpu=gpu is not None)
    told = require_room(gallery.root, specs, count=count, code_length=encoder.code_length)
    progress.tell(f"the generation takes {told}")
    previous = None if current is None else current.codes
    keys, removal = _encode_missing(gallery, encoder, previous, progress)
    number = gallery.next_number()
    codes = _assemble(gallery, encoder, previous, keys, name=f"{number:06d}", gpu=gpu, progress=progress)
    progress.start("index", len(chosen))
    build_generation(
        gallery.generation_path(number),
        codes,
        BuildOptions(
            lengths=chosen,
            kinds=kinds,
            metadata=gallery.store.metadata_of(codes.keys),
            removal=removal,
            gpu=gpu,
            on_progress=lambda done, total: progress.advance(1),
        ),
    )
    served = gallery.current()
    (switch or gallery.activate)(number)
    gallery.retire(keep=KEPT_GENERATIONS, served=served)
    return number


def encode_images(gallery: Gallery, encoder: Encoder, keys: Sequence[int], progress: Progress) -> list[str]:
    """Keep codes by this encoder of images that have none; each batch is durable when it is counted.

    Returns: why images could not be encoded, one reason each; one that was removed meanwhile needs no code.
    """
    failed: list[str] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(keys), BATCH):
            batch = [int(key) for key in keys[start : start + BATCH]]
            contents = {}
            for key in batch:
                try:
                    contents[key] = gallery.store.content(key)
                except ImageNotFoundError:
                    continue
                except ImageContentGoneError as error:
                    failed.append(str(error))
            loaded = pool.map(lambda data: load_square(data, encoder.image_size), contents.values())
            pixels = {}
            for key, found in zip(contents, loaded, strict=True):
                if isinstance(found, ImageError):
                    failed.append(f"image {key} was taken in but can no longer be read: {found}")
                else:
                    pixels[key] = found
            if pixels:
                codes = encoder.encode(np.stack(list(pixels.values())))
                gallery.store.put_codes(list(pixels), codes, encoder_id=encoder.id)
            progress.advance(len(batch))
    return failed


def _encode_missing(
    gallery: Gallery, encoder: Encoder, previous: Codes | None, progress: Progress
) -> tuple[NDArray[np.int64], int]:
    """Keys of all images at a moment when each has a code, and the last removal at that moment."""
    announced = False
    while True:
        keys, removal = gallery.store.contents()
        coded = gallery.store.coded_keys(encoder_id=encoder.id)
        if previous is not None:
            coded = np.union1d(coded, previous.keys)
        missing = np.setdiff1d(keys, coded)
        if not announced or len(missing):
            progress.start("encode", len(missing))
            announced = True
        if len(missing) == 0:
            return keys, removal
        failed = encode_images(gallery, encoder, missing.tolist(), progress)
        if failed:
            raise GalleryError(f"{len(failed)} images have no code and cannot be encoded: {'; '.join(failed[:3])}")


def _assemble(
    gallery: Gallery,
    encoder: Encoder,
    previous: Codes | None,
    keys: NDArray[np.int64],
    *,
    name: str,
    gpu: Gpu | None,
    progress: Progress,
) -> Codes:
    """One codes artifact for all images, near ones together; the previous one itself where nothing changed."""
    if len(keys) == 0:
        raise GalleryError(f"the gallery {gallery.root} has no images; give some with --images")
    if previous is not None and np.array_equal(np.sort(previous.keys), keys):
        return previous
    progress.start("assemble", len(keys))
    path = gallery.codes / name
    order = order_rows(lambda start, stop: _codes_of(gallery, encoder, previous, keys[start:stop]), len(keys), gpu=gpu)
    with writing_codes(path, count=len(keys), code_length=encoder.code_length, encoder_id=encoder.id) as writer:
        for start in range(0, len(keys), _ASSEMBLED):
            batch = keys[order[start : start + _ASSEMBLED]]
            writer.append(batch, _codes_of(gallery, encoder, previous, batch))
            progress.advance(len(batch))
    return Codes(path, verify=False)


def _codes_of(
    gallery: Gallery, encoder: Encoder, previous: Codes | None, keys: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Codes from the previous artifact or the store; zeros for an image that was removed meanwhile."""
    codes = np.zeros((len(keys), encoder.code_length), dtype=np.float32)
    held = np.zeros(len(keys), dtype=bool)
    if previous is not None:
        rows = previous.rows_of(keys)
        held = rows >= 0
        codes[held] = previous.take(rows[held])
    for place in np.flatnonzero(~held):
        code = gallery.store.code_of(int(keys[place]), encoder_id=encoder.id)
        if code is not None:
            codes[place] = code
    return codes


def _current_generation(gallery: Gallery, encoder: Encoder) -> Generation | None:
    """The current generation, if its codes are this encoder's and it can be opened: otherwise all is encoded again."""
    if gallery.current() is None:
        return None
    try:
        _, generation = gallery.open_current()
    except GalleryError as error:
        log.warning("nothing can be taken from the present generation: %s", error)
        return None
    return generation if generation.encoder_id == encoder.id else None
