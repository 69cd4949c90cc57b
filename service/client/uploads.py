"""Uploads of folders: the id of each image file, and the division of the files into requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eigenlens.image_files import is_image_path
from eigenlens.service.api.images import AddAnswer, FailedAnswer
from eigenlens.service.client.calls import Call, add, read
from eigenlens.service.client.errors import ApiError

_BATCH_FILES = 32
_BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Upload:
    """An image file of a folder, with its id and metadata in the gallery."""

    path: Path
    id: str
    metadata: Mapping[str, Any]


def uploads_of(folder: Path, *, prefix: str = "", metadata: Mapping[str, Any] | None = None) -> list[Upload]:
    """List the image files below a folder, or one file, in the order of their paths; hidden ones are left out.

    An id is the path below the folder after `prefix`; the top folder below it is the label, as in `eigenlens build`.
    """
    if not folder.is_dir():
        return [Upload(folder, prefix + folder.name, metadata or {})]
    uploads = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if is_image_path(path.relative_to(folder)) and path.is_file():
            label = {"label": parts[0]} if len(parts) > 1 else {}
            uploads.append(Upload(path, prefix + "/".join(parts), {**label, **(metadata or {})}))
    return uploads


def batches_of(uploads: Sequence[Upload]) -> Iterator[list[Upload]]:
    """Divide uploads into batches of one request each."""
    batch: list[Upload] = []
    size = 0
    for upload in uploads:
        bytes_ = upload.path.stat().st_size if upload.path.exists() else 0
        if batch and (len(batch) >= _BATCH_FILES or size + bytes_ > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(upload)
        size += bytes_
    if batch:
        yield batch


def add_uploads(uploads: Sequence[Upload]) -> Call:
    """Make the call that adds these. Raises: ServiceError, if a file cannot be read."""
    return add({upload.id: read(upload.path) for upload in uploads}, [upload.metadata for upload in uploads])


def halves_of(uploads: list[Upload], error: ApiError) -> list[list[Upload]] | None:
    """Split a request that was too large, down to the one upload that is too large alone; None for other errors."""
    if error.status != 413:
        return None
    middle = (len(uploads) + 1) // 2
    return [half for half in (uploads[:middle], uploads[middle:]) if half]


def refused(upload: Upload, error: ApiError) -> AddAnswer:
    """Return the answer for an upload that was refused alone."""
    reason = str(error.problem.get("detail", error))
    failed = [FailedAnswer(id=upload.id, reason=reason)]
    return AddAnswer(images=[], failed=failed, added=0, replaced=0, unchanged=0)


def merged(answers: Sequence[AddAnswer]) -> AddAnswer:
    """Return one answer for several requests."""
    return AddAnswer(
        images=[image for answer in answers for image in answer.images],
        failed=[image for answer in answers for image in answer.failed],
        added=sum(answer.added for answer in answers),
        replaced=sum(answer.replaced for answer in answers),
        unchanged=sum(answer.unchanged for answer in answers),
    )
