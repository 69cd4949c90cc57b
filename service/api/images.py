"""Requests and answers about images of the gallery."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from eigenlens.image_files import Skipped
from eigenlens.image_ids import check_id
from eigenlens.service.api.answer import AnswerModel
from eigenlens.service.api.report import NotedAnswer, RefusedAnswer, Report, SkippedAnswer

# In one request.
MAX_ADDED_IMAGES = 1000
_MAX_METADATA_BYTES = 64 * 1024
_MAX_FIELDS = 100
_MAX_DEPTH = 16


def _check_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError):  # they would be stored, and then fail every answer that tells them
        raise ValueError("metadata are JSON of finite numbers and text that UTF-8 can hold") from None
    if _depth(metadata) > _MAX_DEPTH:
        raise ValueError(f"metadata are nested at most {_MAX_DEPTH} deep")
    if len(metadata) > _MAX_FIELDS or size > _MAX_METADATA_BYTES:
        raise ValueError(f"metadata have at most {_MAX_FIELDS} fields and {_MAX_METADATA_BYTES} bytes")
    return metadata


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _check_columns(features: list[float] | dict[str, float]) -> list[float] | dict[str, float]:
    if isinstance(features, dict) and not all(re.fullmatch("[0-9]{1,9}", column) for column in features):
        raise ValueError("the names of features are their columns, from 0")
    return features


ImageId = Annotated[str, AfterValidator(check_id)]
Metadata = Annotated[dict[str, Any], AfterValidator(_check_metadata)]
Features = Annotated[
    Annotated[list[float], Field(max_length=65536)] | Annotated[dict[str, float], Field(max_length=65536)],
    AfterValidator(_check_columns),
]
"""Features of a node: all of them, or those that are not zero by their column."""
Neighbours = Annotated[list[str], Field(max_length=10_000)]


Order = Literal["name", "newest", "taken"]
"""Of a list of images: by their ids, the last added first, or the last taken first."""


class ImageReference(AnswerModel):
    """An image of the gallery, and where to look at it."""

    id: str
    media_type: str
    width: int
    height: int
    sha256: str
    content: str = Field(description="address of the image's bytes")
    thumbnail: str = Field(description="address of a picture of at most 192 pixels a side")


class ImageAnswer(ImageReference):
    """One image of the gallery."""

    metadata: dict[str, Any]


class ImagesAnswer(AnswerModel):
    """Some images of the gallery."""

    images: list[ImageAnswer]
    next: str | None = Field(None, description="value of `after` for the next page; null on the last page")


class ExifAnswer(AnswerModel):
    """What a camera wrote into an image file."""

    exif: dict[str, str] = Field(
        description="by name: taken, camera, lens, exposure, aperture, ISO, focal length, position, software, artist, "
        "copyright; empty if the file has none"
    )


class AddItem(BaseModel):
    """One image to add; in a gallery of nodes one node, by its features, its neighbours or both."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: ImageId
    image: str | None = Field(None, description="the image, base64")
    features: Features | None = Field(
        None, description="features of a node: a list of all, or an object of those that are not zero, by column"
    )
    neighbours: Neighbours | None = Field(
        None, description="ids of the node's neighbours, in the gallery or earlier in the list"
    )
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if (self.image is None) == (self.features is None and self.neighbours is None):
            raise ValueError("give either image (base64), or features, neighbours or both")
        return self


class AddBody(BaseModel):
    """Images to add."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[AddItem] = Field(min_length=1, max_length=MAX_ADDED_IMAGES)


class AddedAnswer(AnswerModel):
    """What became of one image that is in the gallery now."""

    id: str
    status: Literal["added", "replaced", "unchanged"]
    note: str | None = Field(None, description="what should be known of the image, such as that its file is truncated")


class FailedAnswer(AnswerModel):
    """An image that could not be used."""

    id: str = Field(description="id that the image would have")
    reason: str
    kind: str | None = Field(None, description="what a file is that is no image and not named like one, such as video")


class AddAnswer(AnswerModel):
    """What became of images that were sent: those that are in the gallery now and those that failed, in their order."""

    images: list[AddedAnswer]
    failed: list[FailedAnswer]
    added: int
    replaced: int
    unchanged: int


class FolderAnswer(AddAnswer):
    """What became of the files of a folder: of its images, and what else is there."""

    skipped: list[SkippedAnswer] = Field(default_factory=list)

    def report(self) -> Report:
        """Return the report of the run."""
        report = Report(added=self.added, replaced=self.replaced, unchanged=self.unchanged)
        report.failed = [RefusedAnswer(id=entry.id, reason=entry.reason) for entry in self.failed]
        report.notes = [NotedAnswer(id=entry.id, note=entry.note) for entry in self.images if entry.note]
        report.skip(Skipped(entry.path, entry.kind) for entry in self.skipped)
        return report


class MetadataBody(BaseModel):
    """A change of metadata."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metadata: Metadata


def merged(present: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Metadata after a change: what is given is set, what is null is removed. Raises: ValueError, if too large."""
    result = {**present, **change}
    return _check_metadata({name: value for name, value in result.items() if value is not None})
