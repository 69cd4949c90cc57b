"""How far an upload is: the images that are done with, and the bytes that were sent."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class UploadProgress:
    """How far an upload is.

    Attributes:
        images: that are in the gallery or were refused, of `total_images`.
        bytes: of files that were sent or need not be, of `total_bytes`; less than before where they are sent again.
    """

    images: int
    total_images: int
    bytes: int
    total_bytes: int


OnUploadProgress = Callable[[UploadProgress], None]


class Sized(Protocol):
    """A file of an upload."""

    @property
    def size(self) -> int:
        """Bytes of the file."""


def ignore_upload_progress(progress: UploadProgress) -> None:
    """Ignore progress, for callers that pass no function for it."""


class UploadCounter:
    """Counts what an upload has done, and tells it at each change.

    counter = UploadCounter(uploads, on_progress)
    send([counter.open(data) for data in batch])
    counter.finish(batch)
    """

    def __init__(self, uploads: Sequence[Sized], on_progress: OnUploadProgress) -> None:
        self._total_images, self._total_bytes = len(uploads), sum(upload.size for upload in uploads)
        self._images = self._bytes = 0
        self._sending: list[_CountedFile] = []
        self._on_progress = on_progress

    def open(self, data: bytes) -> io.BytesIO:
        """Return a file of `data`; what is read of it counts as sent, until the files that are sent are finished."""
        file = _CountedFile(data, self._tell)
        self._sending.append(file)
        return file

    def give_up(self) -> None:
        """Count what was sent of files that are not finished as not sent."""
        self._sending.clear()

    def finish(self, uploads: Sequence[Sized]) -> None:
        """Count uploads as done with."""
        self.give_up()
        self._images += len(uploads)
        self._bytes += sum(upload.size for upload in uploads)
        self._tell()

    def _tell(self) -> None:
        sent = min(self._total_bytes, self._bytes + sum(file.sent for file in self._sending))
        self._on_progress(UploadProgress(self._images, self._total_images, sent, self._total_bytes))


class _CountedFile(io.BytesIO):
    """A file of which the bytes that were read are counted: from its beginning again, where that is read again."""

    def __init__(self, data: bytes, on_read: Callable[[], None]) -> None:
        super().__init__(data)
        self.sent = 0
        self._on_read = on_read

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.sent = self.tell()
        self._on_read()
        return piece
