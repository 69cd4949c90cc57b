"""Loading of files of codes: images that were encoded elsewhere become images of a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from eigenlens.image_ids import check_id
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.shards.codes import CodedImage, CodesOfShard, find_codes
from eigenlens.service.api.report import Report
from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.ingest import Outcome, count
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.store.protocol import Store
from eigenlens.service.gallery.store.records import NewImage


def open_codes(paths: Sequence[Path], encoder: Encoder) -> list[CodesOfShard]:
    """Open files of codes, and those in folders. Raises: SourceError; GalleryError, for another encoder's codes."""
    shards = [CodesOfShard(path) for path in find_codes(paths)]
    for shard in shards:
        if shard.encoder_id != encoder.id:
            raise GalleryError(f"{shard.path} has codes of the encoder {shard.encoder_id}, not of {encoder.id}")
    return shards


def add_codes(gallery: Gallery, encoder: Encoder, shards: Sequence[CodesOfShard], progress: Progress) -> Report:
    """Store the images and codes of all shards, a group of rows at a time; each is durable when it is counted.

    Images that are in the store with the same content are skipped, so you can repeat an interrupted call.

    Raises: SourceError, for a file that is damaged.
    """
    report, store = Report(), gallery.store
    coded = {int(key) for key in store.coded_keys(encoder_id=encoder.id)}
    is_indexed = gallery.current() is not None and gallery.current_encoder_id() == encoder.id
    progress.start("load", sum(shard.count for shard in shards))
    for shard in shards:
        for group in range(shard.groups):
            ids = shard.ids(group)
            held = {id for id, checksum in ids if checksum and _holds(store, id, checksum)}
            uncoded = set() if is_indexed else {id for id in held if store.record(id).key not in coded}
            if len(held) < len(ids) or uncoded:
                images = shard.read(group)
                _put_codes(store, encoder, [image for image in images if image.id in uncoded])
                count(report, _put(store, encoder, [image for image in images if image.id not in held]))
            count(report, [Outcome(id, "unchanged") for id in held])
            progress.advance(len(ids))
    return report


def _holds(store: Store, id: str, checksum: str) -> bool:
    return store.holds(id, checksum=checksum, path=None, metadata=None)


def _put_codes(store: Store, encoder: Encoder, images: Sequence[CodedImage]) -> None:
    """Store codes of images that are in the store, which has those of another encoder."""
    coded = [(store.record(image.id).key, image.code) for image in images if image.code is not None]
    if coded:
        store.put_codes([key for key, _ in coded], np.stack([code for _, code in coded]), encoder_id=encoder.id)


def _put(store: Store, encoder: Encoder, images: Sequence[CodedImage]) -> list[Outcome]:
    """Store images in one transaction; one that cannot be used does not stop the others."""
    outcomes, accepted = [], []
    for image in images:
        try:
            accepted.append(_new_image(image))
        except ValueError as error:
            outcomes.append(Outcome(image.id, "failed", str(error)))
    replaced = store.put(accepted, encoder_id=encoder.id)
    return outcomes + [
        Outcome(image.id, "replaced" if was_replaced else "added")
        for image, was_replaced in zip(accepted, replaced, strict=True)
    ]


def _new_image(row: CodedImage) -> NewImage:
    """Return an image to store. Raises: ValueError, which says why it cannot be."""
    if row.image is None or row.code is None:
        raise ValueError(row.problem or "it has no code")
    if sha256(row.image).hexdigest() != row.sha256:
        raise ValueError("its bytes are not those that were encoded: the file of codes is damaged")
    return NewImage(
        id=check_id(row.id),
        media_type=row.media_type,
        width=row.width,
        height=row.height,
        sha256=row.sha256,
        metadata=row.metadata,
        code=row.code,
        data=row.image,
    )
