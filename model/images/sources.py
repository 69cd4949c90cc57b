"""SOURCE: a folder of images, a tar of one, or a named sample; iterated one encoded image at a time."""

from __future__ import annotations

import lzma
import math
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eigenlens.image_files import (
    HEAD_BYTES,
    IMAGE_FORMATS,
    OTHER,
    FoundFile,
    Skipped,
    count_kinds,
    describe_counts,
    has_image_name,
    holds_image,
    is_hidden,
    kind_of,
    list_images,
)
from eigenlens.image_ids import escape_bytes, ids_of_paths
from eigenlens.model.errors import ImageError, SourceError
from eigenlens.model.images.decode import DEFAULT_MAX_PIXELS, READABLE, ImageInfo, View, load_square_with_info
from eigenlens.model.images.fashion_mnist import FashionMnist
from eigenlens.model.images.preprocessing import FRAMINGS, STANDARD, Preprocessing

DEFAULT_MAX_IMAGE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SourceImage:
    """One encoded image of a source.

    Attributes:
        id: unique within the source; the path below its root for files.
        data: the encoded bytes; none where they could not be read.
        path: the file on disk, where there is one.
        metadata: what the source knows; `label` is the name of the image's top folder, where there is one.
        problem: why there are no bytes, where that is so.
        file: how the file system described the file when it was listed, where there is one.
        preprocessing: how the file becomes pixels, where `load` is not told.
        view: what of the picture is seen, where that is not the picture.
    """

    id: str
    data: bytes
    path: Path | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    file: FoundFile | None = None
    preprocessing: Preprocessing = STANDARD
    view: View | None = None

    def load(
        self, size: int, *, max_pixels: int = DEFAULT_MAX_PIXELS, preprocessing: Preprocessing | None = None
    ) -> NDArray[np.uint8] | ImageError:
        """Decode the image to a square, (size, size, 3), or to those of its crops, or return why that cannot be."""
        loaded = self.load_with_info(size, max_pixels=max_pixels, preprocessing=preprocessing)
        return loaded if isinstance(loaded, ImageError) else loaded[0]

    def load_with_info(
        self, size: int, *, max_pixels: int = DEFAULT_MAX_PIXELS, preprocessing: Preprocessing | None = None
    ) -> tuple[NDArray[np.uint8], ImageInfo] | ImageError:
        """Decode the image as `load` does, and tell what its header says."""
        if self.problem is not None:
            return ImageError(self.problem)
        version = preprocessing or self.preprocessing
        return load_square_with_info(self.data, size, max_pixels=max_pixels, preprocessing=version, view=self.view)


class Source(Protocol):
    """Images that can be counted and iterated again and again in the same order.

    source: Source = open_source("~/Pictures")
    squares = [image.load(224) for image in source]
    """

    @property
    def name(self) -> str:
        """Argument of `open_source` that opens the same images again, for sources that it opens."""
        ...

    @property
    def skipped(self) -> Sequence[Skipped]:
        """What the source holds besides images: videos, raw files, folders that cannot be read, and the like."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[SourceImage]: ...


class FolderSource:
    """Image files below a folder, in the order of their paths; hidden files and folders are left out.

    for image in FolderSource(Path("Pictures")):
        print(image.id, image.metadata.get("label"))
    """

    def __init__(
        self,
        root: Path,
        *,
        prefix: str = "",
        follow_links: bool = False,
        max_bytes: int = DEFAULT_MAX_IMAGE_BYTES,
        may_be_empty: bool = False,
    ) -> None:
        """List the folder's images.

        Args:
            prefix: begins every id.
            follow_links: follow links to folders.
            max_bytes: files with more are not read; their images have a problem instead.

        Raises: SourceError, if it holds no image, unless it `may_be_empty`.
        """
        self.name = str(root.resolve())
        self._root, self._max_bytes = root, max_bytes
        listing = list_images(root, follow_links=follow_links)
        self.files, self.skipped = listing.files, listing.skipped
        self.ids = ids_of_paths([file.relative for file in listing.files], prefix=prefix)
        if not self.files and not may_be_empty:
            raise SourceError(f"{root} holds no image file{_instead(self.skipped)}; images are {READABLE} files")

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[SourceImage]:
        return self.read(range(len(self.files)))

    def read(self, rows: Iterable[int]) -> Iterator[SourceImage]:
        """Read some of the images, by their places in the order of paths."""
        for row in rows:
            file, data, problem = self.files[row], b"", None
            try:
                if file.size > self._max_bytes:
                    problem = too_large(file.size, self._max_bytes)
                else:
                    with file.path.open("rb") as f:
                        data = f.read(self._max_bytes)
            except OSError as error:
                problem = f"the file cannot be read: {error.strerror}"
            yield SourceImage(self.ids[row], data, file.path.resolve(), folder_label(file.relative), problem, file)


class TarSource:
    """Image files of a tar archive (compressed or not), in the archive's order; nothing is unpacked to disk.

    source = TarSource(Path("pictures.tar.gz"))
    len(source)  # the image files in it
    """

    def __init__(self, path: Path, *, prefix: str = "", max_bytes: int = DEFAULT_MAX_IMAGE_BYTES) -> None:
        self.name = str(path.resolve())
        self._path, self._max_bytes = path, max_bytes
        self._members: list[str] = []
        skipped: list[Skipped] = []
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    relative = PurePosixPath(member.name.removeprefix("./"))
                    if not member.isfile() or is_hidden(relative):
                        continue
                    kind = kind_of(_stream(tar, member).read(HEAD_BYTES), member.name)
                    if kind in IMAGE_FORMATS or (kind == OTHER and has_image_name(member.name)):
                        self._members.append(member.name)
                    else:
                        skipped.append(Skipped(str(relative), kind))
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
            raise SourceError(f"{path} is not a readable tar archive: {error}") from error
        self.skipped: tuple[Skipped, ...] = tuple(skipped)
        self._ids = ids_of_paths([str(PurePosixPath(name.removeprefix("./"))) for name in self._members], prefix=prefix)
        if not self._members:
            raise SourceError(f"{path} holds no image file{_instead(skipped)}; images are {READABLE} files")

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[SourceImage]:
        row = 0
        with tarfile.open(self._path) as tar:
            for member in tar:
                if row == len(self._members):
                    return
                if member.isfile() and member.name == self._members[row]:
                    large = member.size > self._max_bytes
                    data = b"" if large else _stream(tar, member).read(self._max_bytes)
                    problem = too_large(member.size, self._max_bytes) if large else None
                    label = folder_label(member.name.removeprefix("./"))
                    yield SourceImage(self._ids[row], data, None, label, problem)
                    row += 1


class SampleSource:
    """Fashion-MNIST: 70,000 product photographs of 28 x 28, or one of its splits."""

    def __init__(self, name: str, sample: FashionMnist) -> None:
        self.name = name
        self.skipped: tuple[Skipped, ...] = ()
        self._sample = sample

    def __len__(self) -> int:
        return len(self._sample)

    def __iter__(self) -> Iterator[SourceImage]:
        for id, data, metadata in self._sample:
            yield SourceImage(id, data, None, metadata)


def restricted(image: SourceImage, root: Path) -> SourceImage:
    """Return an image unless its file lies outside of a folder, where a link leads; then only that it does."""
    if image.path is None or image.path.is_relative_to(root):
        return image
    return replace(image, data=b"", path=None, problem="the file lies outside of the server's image folder")


class SubsampledSource:
    """At most `count` images of a source, evenly spaced over all of it.

    source = SubsampledSource(open_source("fashion-mnist"), 10_000)
    source.name  # "fashion-mnist, one in 7"
    """

    def __init__(self, source: Source, count: int) -> None:
        self._source, self._step = source, math.ceil(len(source) / count)
        self.name = source.name if self._step == 1 else f"{source.name}, one in {self._step}"
        self.skipped = source.skipped

    def __len__(self) -> int:
        return math.ceil(len(self._source) / self._step)

    def __iter__(self) -> Iterator[SourceImage]:
        return islice(self._source, 0, None, self._step)


class Framed:
    """The images of a source, each of which loads in one of FRAMINGS: as its centre, as the whole, or as its crops.

    source = Framed(open_source("~/Pictures"), "whole")
    """

    def __init__(self, source: Source, framing: str) -> None:
        self._source, self._preprocessing = source, FRAMINGS[framing]
        self.name = source.name if self._preprocessing == STANDARD else f"{source.name}, {framing}"
        self.skipped = source.skipped

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[SourceImage]:
        return (replace(image, preprocessing=self._preprocessing) for image in self._source)


class ConcatSource:
    """Several sources, one after the other.

    source = ConcatSource([FolderSource(one), TarSource(another)])
    len(source)  # the images of both
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.name = ", ".join(source.name for source in sources)
        self.skipped = [entry for source in sources for entry in source.skipped]

    def __len__(self) -> int:
        return sum(len(source) for source in self._sources)

    def __iter__(self) -> Iterator[SourceImage]:
        return chain.from_iterable(self._sources)


def open_source(
    spec: str, *, prefix: str = "", follow_links: bool = False, max_bytes: int = DEFAULT_MAX_IMAGE_BYTES
) -> Source:
    """Open the source that a SOURCE argument names: a folder, a tar of a folder, or a sample.

    Args:
        prefix: begins the ids of a folder's or a tar's images.
        follow_links: follow links to folders.
        max_bytes: files with more are not read.

    Raises: SourceError, which says what would have worked.
    """
    sample, _, split = spec.partition(":")
    if sample == "fashion-mnist" and not Path(spec).exists():
        return SampleSource(spec, FashionMnist(split or "all"))
    path = Path(spec).expanduser()
    if path.is_dir():
        return FolderSource(path, prefix=prefix, follow_links=follow_links, max_bytes=max_bytes)
    if path.is_file():
        return TarSource(path, prefix=prefix, max_bytes=max_bytes)
    raise SourceError(
        f"there is no image source '{spec}': give a folder, a tar or tar.gz of one, "
        "or fashion-mnist (or fashion-mnist:train, fashion-mnist:test)"
    )


def batches(source: Source, size: int) -> Iterator[list[SourceImage]]:
    """Iterate over the source's images, `size` at a time; the last batch may be smaller."""
    images = iter(source)
    while batch := list(islice(images, size)):
        yield batch


def too_large(size: int, max_bytes: int) -> str:
    """Return the problem of a file that has too many bytes."""
    return f"the image has {size} bytes; at most {max_bytes} are taken"


def folder_label(relative: str) -> dict[str, str]:
    """Return the metadata of an image by its path below its folder: the top folder of it, if there is one, as label."""
    top, slash, _ = relative.partition("/")
    return {"label": escape_bytes(top)} if slash else {}


def _stream(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream


def require_any_image(folder: Path, *, follow_links: bool = False) -> None:
    """Check that a folder holds an image, or is not there. Raises: SourceError, which says what else it holds."""
    if folder.is_dir() and not holds_image(folder, follow_links=follow_links):
        FolderSource(folder, follow_links=follow_links)


def _instead(skipped: Sequence[Skipped]) -> str:
    counts = describe_counts(count_kinds(skipped))
    return f" (it holds {counts})" if counts else ""
