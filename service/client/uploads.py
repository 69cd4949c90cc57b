"""Uploads of folders: the id of each image file, and the division of the files into requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from eigenlens.image_files import Skipped, list_images, look_into
from eigenlens.image_ids import escape_bytes, ids_of_paths
from eigenlens.service.api.images import AddAnswer, AddedAnswer, FailedAnswer, FolderAnswer, ImagesAnswer
from eigenlens.service.api.report import SkippedAnswer
from eigenlens.service.client.calls import Call, add
from eigenlens.service.client.errors import ApiError
from eigenlens.service.client.upload_progress import UploadCounter

_BATCH_FILES = 32
# Small enough that a slow line shows progress, and that little is sent again after an interruption.
_BATCH_BYTES = 4 * 2**20
_PAGE = 200
# Too large, or too slow: with fewer images both may go well.
_WORTH_HALVING = (408, 413)


@dataclass(frozen=True)
class Upload:
    """An image file of a folder, with its id and metadata in the gallery."""

    path: Path
    id: str
    metadata: Mapping[str, Any]
    size: int = 0


@dataclass(frozen=True)
class Uploads:
    """The images of a folder to upload, and what else is there."""

    images: list[Upload]
    skipped: list[Skipped]


@dataclass(frozen=True)
class UploadOptions:
    """How a folder is uploaded.

    Attributes:
        prefix: begins every id.
        metadata: of every image, beside the label of its folder.
        follow_links: upload the folders that links lead to as well.
        skip_present: do not send images that the gallery has under their ids with the same bytes.
    """

    prefix: str = ""
    metadata: Mapping[str, Any] | None = None
    follow_links: bool = False
    skip_present: bool = False


def uploads_of(folder: Path, options: UploadOptions) -> Uploads:
    """List the image files below a folder, or one file, in the order of their paths; hidden ones are left out.

    An id is the path below the folder after the prefix; the top folder below it is the label, as in `eigenlens build`.
    """
    if folder.is_dir():
        listing = list_images(folder, follow_links=options.follow_links)
        files, skipped = list(listing.files), list(listing.skipped)
    else:
        found = look_into(folder, folder.name)
        files, skipped = ([], [found]) if isinstance(found, Skipped) else ([found], [])
    ids = ids_of_paths([file.relative for file in files], prefix=options.prefix)
    uploads = []
    for file, id in zip(files, ids, strict=True):
        parts = id.removeprefix(options.prefix).split("/")
        label = {"label": parts[0]} if len(parts) > 1 else {}
        uploads.append(Upload(file.path, id, {**label, **(options.metadata or {})}, file.size))
    return Uploads(uploads, skipped)


def batches_of(uploads: Sequence[Upload]) -> Iterator[list[Upload]]:
    """Divide uploads into batches of one request each."""
    batch: list[Upload] = []
    size = 0
    for upload in uploads:
        if batch and (len(batch) >= _BATCH_FILES or size + upload.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(upload)
        size += upload.size
    if batch:
        yield batch


def read_batch(batch: Sequence[Upload], counter: UploadCounter) -> tuple[Call | None, AddAnswer]:
    """Make the call that adds these, whose sending is counted; None if none can be read.

    Returns: the call, and the answer for those whose file cannot be read: each fails alone.
    """
    images, metadata, failed = {}, [], []
    for upload in batch:
        try:
            images[upload.id] = counter.open(upload.path.read_bytes())
        except OSError as error:
            failed.append(FailedAnswer(id=upload.id, reason=f"the file cannot be read: {error.strerror}"))
        else:
            metadata.append(upload.metadata)
    answer = merged([]).model_copy(update={"failed": failed})
    return (add(images, metadata) if images else None), answer


def halves_of(uploads: list[Upload], error: ApiError) -> list[list[Upload]] | None:
    """Split a request that was too large or too slow, down to the one upload that is alone; None for other errors."""
    if error.status not in _WORTH_HALVING:
        return None
    middle = (len(uploads) + 1) // 2
    return [half for half in (uploads[:middle], uploads[middle:]) if half]


def refused(upload: Upload, error: ApiError) -> AddAnswer:
    """Return the answer for an upload that was refused alone."""
    reason = str(error.problem.get("detail", error))
    return merged([]).model_copy(update={"failed": [FailedAnswer(id=upload.id, reason=reason)]})


def merged(answers: Sequence[AddAnswer]) -> AddAnswer:
    """Return one answer for several requests."""
    return AddAnswer(
        images=[image for answer in answers for image in answer.images],
        failed=[image for answer in answers for image in answer.failed],
        added=sum(answer.added for answer in answers),
        replaced=sum(answer.replaced for answer in answers),
        unchanged=sum(answer.unchanged for answer in answers),
    )


def of_folder(answer: AddAnswer, skipped: Sequence[Skipped]) -> FolderAnswer:
    """Return the answer for a folder: that of its images, and what else was there."""
    folder = FolderAnswer(**{name: getattr(answer, name) for name in AddAnswer.model_fields})
    folder.skipped = [SkippedAnswer(path=escape_bytes(entry.path), kind=entry.kind) for entry in skipped]
    return folder


def page_after(after: str | None, options: UploadOptions) -> Call:
    """Make the call that lists the gallery's images of a prefix after an id."""
    params = {"limit": _PAGE, "prefix": options.prefix} | ({"after": after} if after is not None else {})
    return Call("GET", "/v1/images", params=params)


def checksums_of(page: ImagesAnswer) -> dict[str, str]:
    """Return the checksums of a page of images, by id."""
    return {image.id: image.sha256 for image in page.images}


def part_present(uploads: Uploads, checksums: Mapping[str, str]) -> tuple[Uploads, AddAnswer]:
    """Part uploads into those to send, and the answer for those that the gallery has with the same bytes."""
    missing: list[Upload] = []
    present: list[Upload] = []
    for upload in uploads.images:
        (present if _is_same(upload, checksums.get(upload.id)) else missing).append(upload)
    answer = merged([]).model_copy(
        update={
            "images": [AddedAnswer(id=upload.id, status="unchanged") for upload in present],
            "unchanged": len(present),
        }
    )
    return replace(uploads, images=missing), answer


def _is_same(upload: Upload, checksum: str | None) -> bool:
    try:
        return checksum is not None and sha256(upload.path.read_bytes()).hexdigest() == checksum
    except OSError:
        return False
